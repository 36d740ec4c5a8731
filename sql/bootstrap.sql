-- Run once in each database by its superuser, before any migration. It makes the roles whose
-- passwords the caller has put into the session and leaves out the others:
--   SELECT set_config('ordersaga.owner_password', '…', false);    -- migrations; owns every table
--   SELECT set_config('ordersaga.service_password', '…', false);  -- a service's daily work, no DDL
--   SELECT set_config('ordersaga.fdw_password', '…', false);      -- shards: what the coordinator may do
--   SELECT set_config('ordersaga.monitoring_password', '…', false);  -- statistics, and no table
-- Each database has passwords of its own. Running it again changes them and nothing else. Roles
-- belong to the cluster: bootstrap the databases of one cluster one after the other.
DO $$
DECLARE
    role text;
    password text;
BEGIN
    FOREACH role IN ARRAY ARRAY['owner', 'service', 'fdw', 'monitoring'] LOOP
        password := current_setting(format('ordersaga.%s_password', role), true);
        CONTINUE WHEN coalesce(password, '') = '';
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'ordersaga_' || role) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', 'ordersaga_' || role);
        END IF;
        EXECUTE format('ALTER ROLE %I PASSWORD %L', 'ordersaga_' || role, password);
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), 'ordersaga_' || role);
        EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', 'ordersaga_' || role);
        IF role = 'owner' THEN
            -- Migrations make the schema of the bus.
            EXECUTE format('GRANT CREATE ON DATABASE %I TO %I', current_database(), 'ordersaga_owner');
        END IF;
        IF role = 'monitoring' THEN
            GRANT pg_monitor TO ordersaga_monitoring;
        END IF;
    END LOOP;
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    -- In these everybody may connect, and fill the disk with temporary tables.
    REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
    REVOKE ALL ON SCHEMA public FROM PUBLIC;
    -- So may they with large objects, which need no right on a schema. lo_import is the superuser's.
    REVOKE EXECUTE ON FUNCTION lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea) FROM PUBLIC;
    GRANT CREATE, USAGE ON SCHEMA public TO ordersaga_owner;
END
$$;
