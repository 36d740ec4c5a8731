-- Orders as service-create-order knows them. Codes: ordersaga_saga::order::OrderState (1 placed,
-- 2 reserved, 3 cancelled), ordersaga_contract::{Fact, Reason}.
CREATE SEQUENCE order_id_seq AS bigint;

CREATE TABLE orders (
    order_id    bigint      PRIMARY KEY,
    item_id     bigint      NOT NULL CHECK (item_id > 0),
    seller_id   bigint      NOT NULL CHECK (seller_id > 0),
    client_id   bigint      NOT NULL CHECK (client_id > 0),
    quantity    integer     NOT NULL CHECK (quantity BETWEEN 1 AND 1000),
    state       smallint    NOT NULL CHECK (state BETWEEN 1 AND 3),
    -- The fact and reason that ended it: set exactly when it is cancelled.
    ended_by    smallint    CHECK (ended_by BETWEEN 4 AND 6),
    reason      smallint    CHECK (reason BETWEEN 1 AND 5),
    -- W3C trace context of the request, so that a later reset joins the same trace.
    traceparent text,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    CHECK ((state = 3) = (ended_by IS NOT NULL) AND (state = 3) = (reason IS NOT NULL))
) WITH (fillfactor = 80,
        -- Every order passes through orders_placed: its dead entries must not pile up.
        autovacuum_vacuum_scale_factor = 0.02);

-- What the deadline sweeper looks for: as small as the number of orders in flight.
CREATE INDEX orders_placed ON orders (order_id) WHERE state = 1;

CREATE TABLE idempotency_key (
    key         text        PRIMARY KEY,
    -- SHA-256 of the request: another request under the same key is an error, not a replay.
    fingerprint bytea       NOT NULL,
    order_id    bigint      NOT NULL,
    expires_at  timestamptz NOT NULL
);
CREATE INDEX idempotency_key_expiry ON idempotency_key (expires_at);

GRANT USAGE ON SEQUENCE order_id_seq TO ordersaga_service;
GRANT SELECT, INSERT, UPDATE ON orders TO ordersaga_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_key TO ordersaga_service;
