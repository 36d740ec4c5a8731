-- The bus' tables are its own now, in the schema sagabus (libs/sagabus/migrations). What the release
-- before shares with this one is moved there, and it goes on with views of it: two consumers of one
-- partition must fence each other, whatever release each is of.
SELECT sagabus.grant_to('ordersaga_service');

LOCK TABLE consumer_offset, dead_letter;
INSERT INTO sagabus.consumer_offset SELECT topic, partition, next_offset FROM consumer_offset;
-- Under their numbers: somebody may be sending some, and is going to delete those.
INSERT INTO sagabus.dead_letter (id, topic, partition, "offset", key, payload, header_names,
                                 header_values, error, at) OVERRIDING SYSTEM VALUE
SELECT id, topic, partition, "offset", key, payload, header_names, header_values, error, at
FROM dead_letter;
SELECT setval(pg_get_serial_sequence('sagabus.dead_letter', 'id'), last_value, is_called)
FROM dead_letter_id_seq;
DROP TABLE consumer_offset, dead_letter;
CREATE VIEW consumer_offset AS SELECT * FROM sagabus.consumer_offset;
CREATE VIEW dead_letter AS SELECT * FROM sagabus.dead_letter;
GRANT SELECT, INSERT, UPDATE ON consumer_offset TO ordersaga_service;
GRANT SELECT, INSERT, DELETE ON dead_letter TO ordersaga_service;
-- public.outbox stays until the next release: the one before writes to it, and what it leaves there
-- is moved (libs/runtime/src/former_outbox.rs). Rows of it that name a lease are nobody else's now.
