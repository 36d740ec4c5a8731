-- One table per partition that may lie here. All of them exist on every shard, so that a partition
-- can be moved to it; the coordinator's foreign tables say which are in use.
DO $$
BEGIN
    FOR p IN 0..15 LOOP
        EXECUTE format('
            CREATE TABLE order_event_%1$s (
                order_id  bigint      NOT NULL,
                fact      smallint    NOT NULL CHECK (fact BETWEEN 1 AND 6),
                item_id   bigint      NOT NULL,
                seller_id bigint      NOT NULL,
                client_id bigint      NOT NULL,
                quantity  integer     NOT NULL,
                reason    smallint    CHECK (reason BETWEEN 1 AND 5),
                at        timestamptz NOT NULL,
                -- An order''s fact stands once, however often it is told.
                PRIMARY KEY (order_id, fact),
                -- The row belongs to this partition: satisfies_hash_partition(16, %2$s), written
                -- out, since the partitioned table itself is on another server.
                CHECK (((hashint8extended(order_id, 8816678312871386365) & 15) + 3) & 15 = %2$s)
            )', lpad(p::text, 2, '0'), p);
        EXECUTE format('GRANT SELECT, INSERT ON order_event_%s TO ordersaga_fdw', lpad(p::text, 2, '0'));
    END LOOP;
END
$$;
