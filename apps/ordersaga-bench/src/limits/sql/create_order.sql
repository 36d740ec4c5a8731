-- What create-order's database has to hold: orders, and one outbox row per batch.
CREATE TABLE orders (
    order_id   bigint      PRIMARY KEY,
    item_id    bigint      NOT NULL,
    seller_id  bigint      NOT NULL,
    client_id  bigint      NOT NULL,
    quantity   integer     NOT NULL,
    state      smallint    NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX orders_placed ON orders (order_id) WHERE state = 1;
CREATE SEQUENCE order_id_seq AS bigint;
