-- Whether Redis may hold items older than the database. A failed invalidation adds a doubt; once
-- everything cached before has been set aside, the doubts up to then count as settled. One row.
CREATE TABLE cache_state (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    doubts   bigint  NOT NULL DEFAULT 0,
    settled  bigint  NOT NULL DEFAULT 0
);
INSERT INTO cache_state DEFAULT VALUES;
GRANT SELECT, UPDATE ON cache_state TO ordersaga_service;
