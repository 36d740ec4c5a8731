-- A restore or a logical switchover copies rows and may leave sequences behind: ids that are taken
-- are then given out again. This moves the sequence past the highest id, and never back. The owner's
-- right: the service itself takes ids and sets none.
CREATE FUNCTION skip_taken_item_ids() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    -- Changes nothing. Its lock waits for whoever has taken ids and keeps others from taking any,
    -- so that the sequence stands still between the look and the move.
    ALTER SEQUENCE item_item_id_seq NO CYCLE;
    PERFORM setval('item_item_id_seq', highest)
    FROM (SELECT max(item_id) AS highest FROM item) i, item_item_id_seq s
    WHERE highest >= s.last_value;
END
$$;
REVOKE ALL ON FUNCTION skip_taken_item_ids FROM PUBLIC;
GRANT EXECUTE ON FUNCTION skip_taken_item_ids TO ordersaga_service;
