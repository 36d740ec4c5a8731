-- What was heard of each order, spread over the shards by hash. The partitions are foreign tables
-- and come from configuration, with the servers they lie on (apps/service-monitoring-order).
-- Codes: ordersaga_contract::{Fact, Reason}.
CREATE TABLE order_event (
    order_id  bigint      NOT NULL,
    fact      smallint    NOT NULL,
    item_id   bigint      NOT NULL,
    seller_id bigint      NOT NULL,
    client_id bigint      NOT NULL,
    quantity  integer     NOT NULL,
    reason    smallint,
    at        timestamptz NOT NULL
) PARTITION BY HASH (order_id);

GRANT SELECT, INSERT ON order_event TO ordersaga_service;
