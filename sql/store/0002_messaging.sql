-- What leaves and what has been consumed, in the same transactions as the effects
-- (libs/runtime/src/outbox.rs, consumer.rs).

-- One row per batch of events: a row per event costs ten times the CPU to write and drain.
CREATE TABLE outbox (
    -- Rows are read below the oldest running transaction, in this order: ids alone would let the
    -- reader pass a transaction that took its id early and commits late.
    tx             xid8        NOT NULL DEFAULT pg_current_xact_id(),
    id             bigint      GENERATED ALWAYS AS IDENTITY,
    at             timestamptz NOT NULL,
    events         integer     NOT NULL,
    facts          smallint[]  NOT NULL,
    order_ids      bigint[]    NOT NULL,
    payloads       bytea[]     NOT NULL,
    traceparents   text[]      NOT NULL,
    -- Cached things the batch changed, with their new versions: caches hear of a change before
    -- consumers do.
    cache_ids      bigint[]    NOT NULL,
    cache_versions bigint[]    NOT NULL,
    PRIMARY KEY (tx, id)
) WITH (autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);
-- Compressing what lives for milliseconds is wasted work.
ALTER TABLE outbox
    ALTER facts SET STORAGE EXTERNAL, ALTER order_ids SET STORAGE EXTERNAL,
    ALTER payloads SET STORAGE EXTERNAL, ALTER traceparents SET STORAGE EXTERNAL,
    ALTER cache_ids SET STORAGE EXTERNAL, ALTER cache_versions SET STORAGE EXTERNAL;

-- Records that were no events, on their way to the topic dead-letter.
CREATE TABLE dead_letter (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic       text        NOT NULL,
    partition   integer     NOT NULL,
    "offset"    bigint      NOT NULL,
    key         bytea,
    payload     bytea,
    -- The record's own headers, in order.
    header_names  text[]    NOT NULL,
    header_values bytea[]   NOT NULL,
    error       text        NOT NULL,
    at          timestamptz NOT NULL
);

-- Where each partition goes on. The group's offsets in the broker follow behind, for display only.
CREATE TABLE consumer_offset (
    topic       text        NOT NULL,
    partition   integer     NOT NULL,
    next_offset bigint      NOT NULL,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 10);

GRANT SELECT, INSERT, DELETE ON outbox, dead_letter TO ordersaga_service;
GRANT SELECT, INSERT, UPDATE ON consumer_offset TO ordersaga_service;
