-- Whoever commits a row of the outbox publishes it, under a lease; rows whose lease has ended are
-- taken over (libs/runtime/src/relay.rs).

-- Unlogged: a lease outlives neither a crash of the server nor a failover, which only makes others
-- take its rows over; and renewing it costs no flush.
CREATE UNLOGGED TABLE outbox_lease (
    lease   bigint      PRIMARY KEY,
    ends_at timestamptz NOT NULL
) WITH (fillfactor = 10);

-- The lease of the process that publishes the row. Null: whoever comes first.
ALTER TABLE outbox ADD lease bigint;
-- Rows are deleted one by one, in no order. The column tx is written by services of earlier versions.
ALTER TABLE outbox DROP CONSTRAINT outbox_pkey, ADD PRIMARY KEY (id);

-- Moves the offsets of partitions, each from where a batch starts to where it ends, or fails: somebody
-- else has moved one. A batch begins with it (libs/runtime/src/consumer/lane.rs).
CREATE FUNCTION move_offsets(topics text[], partitions integer[], before bigint[], after bigint[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    moved bigint;
BEGIN
    UPDATE consumer_offset c SET next_offset = m.after
    FROM unnest(topics, partitions, before, after) m (topic, partition, before, after)
    WHERE c.topic = m.topic AND c.partition = m.partition AND c.next_offset = m.before;
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved <> cardinality(topics) THEN
        RAISE 'an offset was moved elsewhere' USING ERRCODE = 'FENCE';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION move_offsets FROM PUBLIC;

GRANT SELECT, INSERT, UPDATE, DELETE ON outbox_lease TO ordersaga_service;
GRANT UPDATE (lease) ON outbox TO ordersaga_service;
GRANT EXECUTE ON FUNCTION move_offsets TO ordersaga_service;
