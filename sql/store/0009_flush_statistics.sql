-- What this session has inserted is told to the statistics now: the next migration analyzes a table,
-- and what is told after that counts twice.
SELECT pg_stat_force_next_flush();
