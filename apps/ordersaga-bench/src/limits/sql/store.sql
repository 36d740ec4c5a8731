-- What the store's database has to hold.
CREATE TABLE item (
    item_id  bigint PRIMARY KEY,
    quantity bigint NOT NULL,
    reserved bigint NOT NULL CHECK (reserved BETWEEN 0 AND quantity)
) WITH (fillfactor = 50);
CREATE TABLE reservation (
    order_id   bigint      PRIMARY KEY,
    item_id    bigint      NOT NULL,
    seller_id  bigint      NOT NULL,
    client_id  bigint      NOT NULL,
    quantity   integer     NOT NULL,
    state      smallint    NOT NULL,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX reservation_of_item ON reservation (item_id, order_id) WHERE state <= 2;
INSERT INTO item SELECT n, 1000000000000, 0 FROM generate_series(1, 1000) n;
