//! Databases with the system's roles, on any of the Postgres servers.

use std::collections::BTreeMap;
use std::ops::Index;
use std::path::Path;

use anyhow::{Context, Result};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::names::Cluster;
use crate::parts::Passwords;

const BOOTSTRAP: &str = include_str!("../../../sql/bootstrap.sql");
const BOOTSTRAP_COORDINATOR: &str = include_str!("../../../sql/bootstrap-coordinator.sql");
/// Key of the advisory lock under which databases and roles of a server are made.
const LOCK: i64 = 0x006f_7264_6572;

/// One Postgres server on loopback.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its port.
    pub port: u16,
    /// Passwords of its roles.
    pub passwords: Passwords,
}

/// One database and the ways into it.
#[derive(Debug, Clone)]
pub struct Database {
    /// Port of the server, or of a proxy in front of it.
    pub port: u16,
    /// Its name.
    pub name: String,
    /// Passwords of the roles.
    pub passwords: Passwords,
    /// What stands behind its URLs: nothing, or parameters after a `?`.
    pub parameters: String,
}

impl Server {
    /// One of its databases, there or not.
    pub fn database(&self, name: &str) -> Database {
        Database {
            port: self.port,
            name: name.to_owned(),
            passwords: self.passwords.clone(),
            parameters: String::new(),
        }
    }

    async fn maintenance(&self) -> Result<PgConnection> {
        self.database("postgres").superuser().await
    }

    /// Makes a database with the roles and rights that the role `cluster` in the system needs; one
    /// that exists keeps its content.
    pub async fn create_database(&self, cluster: Cluster, name: &str) -> Result<Database> {
        let context = || format!("cannot make the database {name} on port {}", self.port);
        let mut maintenance = self.maintenance().await.with_context(context)?;
        // Roles belong to the server: two databases made at once would trip over each other there.
        sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK).execute(&mut maintenance).await?;
        let exists = sqlx::query("SELECT FROM pg_database WHERE datname = $1")
            .bind(name)
            .fetch_optional(&mut maintenance)
            .await?;
        if exists.is_none() {
            execute(&mut maintenance, format!("CREATE DATABASE \"{name}\"")).await?;
        }
        let database = self.database(name);
        database.bootstrap(cluster).await.with_context(context)?;
        maintenance.close().await?;
        Ok(database)
    }

    /// Drops a database if it is there, connections or not.
    pub async fn drop_database(&self, name: &str) -> Result<()> {
        let mut maintenance = self.maintenance().await?;
        let statement = format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)");
        execute(&mut maintenance, statement).await?;
        Ok(maintenance.close().await?)
    }
}

async fn execute(connection: &mut PgConnection, statement: String) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}

impl Database {
    fn url(&self, role: &str, password: &str) -> String {
        let Self { port, name, parameters, .. } = self;
        format!("postgres://{role}:{password}@127.0.0.1:{port}/{name}{parameters}")
    }

    /// For `postgres`.
    pub fn superuser_url(&self) -> String {
        self.url("postgres", &self.passwords.superuser)
    }

    /// For `ordersaga_owner`, who migrates.
    pub fn owner_url(&self) -> String {
        self.url("ordersaga_owner", &self.passwords.owner)
    }

    /// For `ordersaga_service`, without DDL; not on shards.
    pub fn service_url(&self) -> String {
        self.url("ordersaga_service", &self.passwords.service)
    }

    /// For `ordersaga_fdw`, the coordinator's role on shards.
    pub fn fdw_url(&self) -> String {
        self.url("ordersaga_fdw", &self.passwords.fdw)
    }

    /// The same database through a proxy on this port.
    #[must_use]
    pub fn through(&self, port: u16) -> Self {
        Self { port, ..self.clone() }
    }

    /// The same database, reached encrypted by clients that trust this authority only.
    #[must_use]
    pub fn trusting(&self, authority: &Path) -> Self {
        let authority = authority.to_string_lossy();
        let authority = utf8_percent_encode(&authority, NON_ALPHANUMERIC);
        let parameters = format!("?sslmode=verify-full&sslrootcert={authority}");
        Self { parameters, ..self.clone() }
    }

    /// Connects as the superuser.
    async fn superuser(&self) -> Result<PgConnection> {
        PgConnection::connect(&self.superuser_url())
            .await
            .with_context(|| format!("cannot connect to {} on port {}", self.name, self.port))
    }

    /// Makes the transactions of new sessions read-only, or no longer so. Sessions that there are
    /// stay as they are.
    pub async fn set_read_only(&self, read_only: bool) -> Result<()> {
        let change = if read_only { "SET" } else { "RESET" };
        let value = if read_only { " = on" } else { "" };
        let mut connection = self.superuser().await?;
        execute(&mut connection, "SET default_transaction_read_only = off".to_owned()).await?;
        let alter = format!(
            "ALTER DATABASE \"{}\" {change} default_transaction_read_only{value}",
            self.name
        );
        execute(&mut connection, alter).await?;
        Ok(connection.close().await?)
    }

    /// Ends the services' sessions, on a shard the coordinator's too, as an administrator may at any
    /// time; they are gone when this returns.
    pub async fn end_sessions(&self) -> Result<()> {
        let mut connection = self.superuser().await?;
        sqlx::query(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
             WHERE datname = current_database() \
               AND usename IN ('ordersaga_service', 'ordersaga_fdw')",
        )
        .execute(&mut connection)
        .await?;
        Ok(connection.close().await?)
    }

    async fn bootstrap(&self, cluster: Cluster) -> Result<()> {
        let mut connection = self.superuser().await?;
        let mut settings = vec![("ordersaga.owner_password", &self.passwords.owner)];
        if cluster.is_shard() {
            settings.push(("ordersaga.fdw_password", &self.passwords.fdw));
        } else {
            settings.push(("ordersaga.service_password", &self.passwords.service));
        }
        for (name, value) in settings {
            sqlx::query("SELECT set_config($1, $2, false)")
                .bind(name)
                .bind(value)
                .execute(&mut connection)
                .await?;
        }
        sqlx::raw_sql(BOOTSTRAP).execute(&mut connection).await?;
        if cluster == Cluster::Monitoring {
            sqlx::raw_sql(BOOTSTRAP_COORDINATOR).execute(&mut connection).await?;
        }
        let owner = format!("ALTER DATABASE \"{}\" OWNER TO ordersaga_owner", self.name);
        execute(&mut connection, owner).await?;
        Ok(connection.close().await?)
    }
}

/// The five databases of one system.
#[derive(Debug, Clone)]
pub struct Databases(BTreeMap<Cluster, Database>);

impl Databases {
    pub(crate) fn new(databases: BTreeMap<Cluster, Database>) -> Self {
        Self(databases)
    }

    /// Puts another database in the place of one: a private or a proxied one.
    pub fn set(&mut self, cluster: Cluster, database: Database) {
        self.0.insert(cluster, database);
    }
}

impl Index<Cluster> for Databases {
    type Output = Database;

    fn index(&self, cluster: Cluster) -> &Database {
        &self.0[&cluster]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_a_url_is_encoded() -> Result<()> {
        let server = Server { port: 1, passwords: Passwords::random()? };
        let database = server.database("store").trusting(Path::new("/tmp/a b,&/ca.pem"));
        let parameters = "?sslmode=verify-full&sslrootcert=%2Ftmp%2Fa%20b%2C%26%2Fca%2Epem";
        assert_eq!(database.parameters, parameters);
        Ok(())
    }
}
