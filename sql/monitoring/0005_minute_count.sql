-- How many records of each fact were applied, by the minute in which the fact came true, and the
-- lowest and highest order they are about. Written in the transaction that moves the offsets, a row
-- for each fact and minute of a batch. Each lane of a process draws its own counter (follower.rs in
-- apps/service-monitoring-order), so that two that write at the same time do not wait for each other's
-- row. Codes of fact: ordersaga_contract::Fact.
CREATE TABLE minute_count (
    minute      timestamptz NOT NULL,
    fact        smallint    NOT NULL,
    counter     smallint    NOT NULL,
    records     bigint      NOT NULL,
    first_order bigint      NOT NULL,
    last_order  bigint      NOT NULL,
    PRIMARY KEY (minute, fact, counter)
) WITH (fillfactor = 50);

GRANT SELECT, INSERT, UPDATE, DELETE ON minute_count TO ordersaga_service;
