-- Run once in the monitoring database by its superuser, after bootstrap.sql: only a superuser may
-- install the foreign data wrapper. Servers, user mappings and partitions are the owner's work.
CREATE EXTENSION IF NOT EXISTS postgres_fdw;
GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO ordersaga_owner;
