#!/bin/sh
# Runs once in each new Postgres container (/docker-entrypoint-initdb.d): roles and rights. The
# tables come from the migrations. Run again, it sets the passwords that the container has now.
#
# Passwords go from the environment straight into the session: not onto a command line, not into a
# log. A role whose password this container does not have is not created.
set -eu
export PGPASSWORD="${PGPASSWORD:-$POSTGRES_PASSWORD}"

psql --no-psqlrc --quiet --output=/dev/null --set ON_ERROR_STOP=1 \
    --username "${POSTGRES_USER:-postgres}" --dbname "$POSTGRES_DB" <<'SQL'
\set owner ''
\set service ''
\set fdw ''
\set monitoring ''
\getenv owner OWNER_PASSWORD
\getenv service SERVICE_PASSWORD
\getenv fdw FDW_PASSWORD
\getenv monitoring MONITORING_PASSWORD
SELECT set_config('ordersaga.owner_password', :'owner', false),
       set_config('ordersaga.service_password', :'service', false),
       set_config('ordersaga.fdw_password', :'fdw', false),
       set_config('ordersaga.monitoring_password', :'monitoring', false);
\i /ordersaga/bootstrap.sql
\getenv coordinator COORDINATOR
\if :{?coordinator}
\i /ordersaga/bootstrap-coordinator.sql
\endif
ALTER DATABASE :"DBNAME" OWNER TO ordersaga_owner;
SQL
