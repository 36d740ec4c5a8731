-- Items and what is held of them. Codes: reservation.state 1 reserved, 2 released, 3 refused,
-- 4 cancelled before it was seen (a tombstone); reason: ordersaga_contract::Reason.
CREATE TABLE item (
    item_id    bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    seller_id  bigint      NOT NULL CHECK (seller_id > 0),
    name       text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    -- Minor units of the currency.
    price      bigint      NOT NULL CHECK (price >= 0),
    quantity   bigint      NOT NULL DEFAULT 1 CHECK (quantity > 0),
    reserved   bigint      NOT NULL DEFAULT 0,
    -- Rises with each change; a cache never puts a lower one over a higher.
    version    bigint      NOT NULL DEFAULT 1,
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- Nothing is sold twice, whatever the code above believes.
    CHECK (reserved BETWEEN 0 AND quantity)
) WITH (fillfactor = 50);

CREATE TABLE reservation (
    order_id   bigint      PRIMARY KEY,
    item_id    bigint      NOT NULL,
    seller_id  bigint      NOT NULL,
    client_id  bigint      NOT NULL,
    quantity   integer     NOT NULL,
    state      smallint    NOT NULL CHECK (state BETWEEN 1 AND 4),
    reason     smallint    CHECK (reason BETWEEN 1 AND 5),
    updated_at timestamptz NOT NULL,
    CHECK ((state = 3) = (reason IS NOT NULL))
) WITH (fillfactor = 80);

-- An item's newest reservations, as find shows them.
CREATE INDEX reservation_of_item ON reservation (item_id, order_id) WHERE state <= 2;

GRANT SELECT, INSERT, UPDATE ON item, reservation TO ordersaga_service;

INSERT INTO item (seller_id, name, price) VALUES
    (1, 'IPHONE 13', 1000),
    (2, 'SAMSUNG S15', 950),
    (3, 'GOOGLE PIXEL 6', 450);
