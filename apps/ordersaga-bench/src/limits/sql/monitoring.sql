-- The coordinator: even partitions on one node, odd ones on the other. The caller has put ports
-- and the superuser's password into the session.
CREATE EXTENSION IF NOT EXISTS postgres_fdw;
CREATE TABLE order_event (
    order_id  bigint      NOT NULL,
    fact      smallint    NOT NULL,
    item_id   bigint      NOT NULL,
    seller_id bigint      NOT NULL,
    client_id bigint      NOT NULL,
    quantity  integer     NOT NULL,
    at        timestamptz NOT NULL
) PARTITION BY HASH (order_id);
DO $$
DECLARE
    node integer;
BEGIN
    FOR node IN 1..2 LOOP
        EXECUTE format(
            'CREATE SERVER shard%s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host %L, port %L, '
            'dbname %L, batch_size %L)',
            node, '127.0.0.1', current_setting('bench.port' || node), current_database(), '1000');
        EXECUTE format(
            'CREATE USER MAPPING FOR postgres SERVER shard%s OPTIONS (user %L, password %L)',
            node, 'postgres', current_setting('bench.password'));
    END LOOP;
    FOR p IN 0..15 LOOP
        EXECUTE format(
            'CREATE FOREIGN TABLE order_event_%s PARTITION OF order_event FOR VALUES WITH '
            '(MODULUS 16, REMAINDER %s) SERVER shard%s OPTIONS (table_name %L)',
            p, p, p % 2 + 1, 'order_event_' || p);
    END LOOP;
END
$$;
