-- Lists of items (apps/service-store/src/lists.rs): one seller's, newest first, and by the begin of
-- their names, in an order that no update of a collation changes. None of these columns is ever
-- updated, so that stock still changes without an entry in an index.

-- Not CONCURRENTLY: that waits for every older statement, and whoever waits for its turn to migrate
-- does so in a statement, so that each would wait for the other. What changes stock waits
-- meanwhile, what reads it does not.
CREATE INDEX item_of_seller ON item (seller_id, item_id);
CREATE INDEX item_by_name ON item (name COLLATE "C", item_id);

-- Building an index notes how many rows the table has as if it had been analyzed, which is when
-- `table_rows` counts them twice (libs/runtime/src/rows.rs).
ANALYZE item;
