-- What a database that consumes and publishes has besides.
CREATE TABLE outbox (
    tx        xid8       NOT NULL DEFAULT pg_current_xact_id(),
    id        bigint     GENERATED ALWAYS AS IDENTITY,
    facts     smallint[] NOT NULL,
    order_ids bigint[]   NOT NULL,
    payloads  bytea[]    NOT NULL,
    PRIMARY KEY (tx, id)
) WITH (autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);
ALTER TABLE outbox
    ALTER facts SET STORAGE EXTERNAL, ALTER order_ids SET STORAGE EXTERNAL,
    ALTER payloads SET STORAGE EXTERNAL;
CREATE TABLE consumer_offset (
    partition   integer PRIMARY KEY,
    next_offset bigint  NOT NULL
) WITH (fillfactor = 10);
INSERT INTO consumer_offset SELECT n, 0 FROM generate_series(0, 15) n;
