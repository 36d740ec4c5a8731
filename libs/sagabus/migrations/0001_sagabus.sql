-- What leaves and what has been consumed, in the same transactions as their effects.

-- One row per batch of messages: a row per message costs ten times the CPU to write and delete.
CREATE TABLE sagabus.outbox (
    id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The lease of the process that publishes the row. Null: whoever comes first.
    lease          bigint,
    at             timestamptz NOT NULL,
    messages       integer     NOT NULL,
    -- The messages as they are published (src/wire.rs).
    records        bytea       NOT NULL,
    -- Cached things the batch changed, with their new versions: caches hear of a change before
    -- consumers do.
    cache_ids      bigint[]    NOT NULL,
    cache_versions bigint[]    NOT NULL
) WITH (autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);
-- Compressing what lives for milliseconds is wasted work.
ALTER TABLE sagabus.outbox
    ALTER records SET STORAGE EXTERNAL, ALTER cache_ids SET STORAGE EXTERNAL,
    ALTER cache_versions SET STORAGE EXTERNAL;

-- Who publishes rows of the outbox. Unlogged: a lease outlives neither a crash of the server nor a
-- failover, which only makes others take its rows over; and renewing it costs no flush.
CREATE UNLOGGED TABLE sagabus.outbox_lease (
    lease   bigint      PRIMARY KEY,
    ends_at timestamptz NOT NULL
) WITH (fillfactor = 10);

-- Records that can never be applied, on their way to the dead-letter topic.
CREATE TABLE sagabus.dead_letter (
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
CREATE TABLE sagabus.consumer_offset (
    topic       text        NOT NULL,
    partition   integer     NOT NULL,
    next_offset bigint      NOT NULL,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 10);

-- Moves the offsets of partitions, each from where a batch starts to where it ends, or fails: somebody
-- else has moved one. A batch begins with it.
CREATE FUNCTION sagabus.move_offsets(
    topics text[], partitions integer[], before bigint[], after bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    moved bigint;
BEGIN
    UPDATE sagabus.consumer_offset c SET next_offset = m.after
    FROM unnest(topics, partitions, before, after) m (topic, partition, before, after)
    WHERE c.topic = m.topic AND c.partition = m.partition AND c.next_offset = m.before;
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved <> cardinality(topics) THEN
        RAISE 'an offset was moved elsewhere' USING ERRCODE = 'FENCE';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION sagabus.move_offsets FROM PUBLIC;

-- The rights of a role that consumes and publishes and owns nothing.
CREATE FUNCTION sagabus.grant_to(role regrole) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA sagabus TO %s', role);
    EXECUTE format('GRANT SELECT, INSERT, DELETE, UPDATE (lease) ON sagabus.outbox TO %s', role);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON sagabus.outbox_lease TO %s', role);
    EXECUTE format('GRANT SELECT, INSERT, DELETE ON sagabus.dead_letter TO %s', role);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON sagabus.consumer_offset TO %s', role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION sagabus.move_offsets TO %s', role);
END
$$;
REVOKE ALL ON FUNCTION sagabus.grant_to FROM PUBLIC;
