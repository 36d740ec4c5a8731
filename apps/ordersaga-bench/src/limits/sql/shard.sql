-- A node's partitions; the coordinator says which of them are in use.
DO $$
BEGIN
    FOR p IN 0..15 LOOP
        EXECUTE format('
            CREATE TABLE order_event_%s (
                order_id  bigint      NOT NULL,
                fact      smallint    NOT NULL,
                item_id   bigint      NOT NULL,
                seller_id bigint      NOT NULL,
                client_id bigint      NOT NULL,
                quantity  integer     NOT NULL,
                at        timestamptz NOT NULL,
                PRIMARY KEY (order_id, fact)
            )', p);
    END LOOP;
END
$$;
