-- Which item a request made under an Idempotency-Key (libs/runtime/src/idempotency.rs).
CREATE TABLE idempotency_key (
    key         text        PRIMARY KEY,
    -- SHA-256 of the request: another request under the same key is an error, not a replay.
    fingerprint bytea       NOT NULL,
    item_id     bigint      NOT NULL,
    expires_at  timestamptz NOT NULL
);
CREATE INDEX idempotency_key_expiry ON idempotency_key (expires_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_key TO ordersaga_service;
