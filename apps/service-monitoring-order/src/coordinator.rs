//! The coordinator's side of the partitioned table: the servers, user mappings and foreign
//! partitions, brought in line with the configured nodes. A partition stays where it is: nodes
//! added later get partitions by moving them, never by a change here.

use std::time::Duration;

use anyhow::Context;
use ordersaga_contract::PARTITIONS;
use ordersaga_runtime::postgres;
use sagabus::backoff::Backoff;
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnection, PgPoolOptions};

use crate::config::Node;
use crate::db;

/// Serialises instances that start together.
const LOCK: i64 = 0x7368_6172_6473;

/// How the coordinator talks to a node. Without a batch size every row is a round trip of its own;
/// without the time-outs a silent node hangs a session for ever.
const SERVER_OPTIONS: [(&str, &str); 8] = [
    ("batch_size", "1000"),
    ("fetch_size", "1000"),
    ("connect_timeout", "2"),
    ("tcp_user_timeout", "3000"),
    ("keepalives_idle", "5"),
    ("keepalives_interval", "2"),
    ("keepalives_count", "3"),
    ("options", "-c lock_timeout=1000 -c statement_timeout=5000"),
];

/// The options of a server about encryption; set by a node's URL, and otherwise absent.
const TLS_OPTIONS: [&str; 2] = ["sslmode", "sslrootcert"];

/// Migrates the coordinator and brings servers and partitions in line, waiting for it as long as it
/// takes.
pub(crate) async fn migrate(owner: &str, nodes: &[Node]) {
    postgres::migrate("postgres", owner, &[sagabus::migrations(), db::MIGRATIONS]).await;
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
    while let Err(error) = align(owner, nodes).await {
        tracing::warn!(error = format!("{error:#}"), "partitions wait");
        backoff.wait().await;
    }
}

async fn align(owner: &str, nodes: &[Node]) -> anyhow::Result<()> {
    let options = postgres::holding(postgres::parse(owner)?, postgres::SILENCE);
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await?;
    let mut transaction = pool.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
    for node in nodes {
        align_server(&mut transaction, node).await.context(node.name)?;
    }
    create_partitions(&mut transaction, nodes).await?;
    transaction.commit().await?;
    pool.close().await;
    Ok(())
}

/// Creates the partitions that are missing, in turn over the nodes.
async fn create_partitions(connection: &mut PgConnection, nodes: &[Node]) -> anyhow::Result<()> {
    let existing: Vec<i32> = db::partitions(&mut *connection)
        .await?
        .into_iter()
        .map(|partition| partition.remainder)
        .collect();
    for (remainder, node) in (0..PARTITIONS).zip(nodes.iter().cycle()) {
        if existing.contains(&i32::try_from(remainder)?) {
            continue;
        }
        let (name, table) = (node.name, db::partition_table(remainder));
        execute(
            connection,
            format!(
                "CREATE FOREIGN TABLE {table} PARTITION OF order_event \
                 FOR VALUES WITH (MODULUS {PARTITIONS}, REMAINDER {remainder}) \
                 SERVER {name} OPTIONS (schema_name 'public', table_name '{table}')"
            ),
        )
        .await?;
    }
    Ok(())
}

async fn align_server(connection: &mut PgConnection, node: &Node) -> anyhow::Result<()> {
    let name = node.name;
    let url = postgres::parse(node.url.expose())?;
    let port = url.get_port().to_string();
    let place = [
        ("host", url.get_host()),
        ("port", port.as_str()),
        ("dbname", url.get_database().unwrap_or("postgres")),
    ];
    let tls = tls_options(node.url.expose())?;
    let tls = tls.iter().map(|(name, value)| (*name, value.as_str()));
    let wanted: Vec<_> = place.into_iter().chain(SERVER_OPTIONS).chain(tls).collect();
    let existing: Option<Vec<String>> = sqlx::query_scalar(
        "SELECT coalesce(srvoptions, '{}') FROM pg_foreign_server WHERE srvname = $1",
    )
    .bind(name)
    .fetch_optional(&mut *connection)
    .await?;
    match existing {
        None => {
            let options: Vec<_> =
                wanted.iter().map(|(key, value)| format!("{key} {}", literal(value))).collect();
            let options = options.join(", ");
            let create = format!(
                "CREATE SERVER {name} FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({options})"
            );
            execute(connection, create).await?;
        }
        Some(existing) => {
            for key in TLS_OPTIONS {
                let is_set = existing.iter().any(|option| option.starts_with(&format!("{key}=")));
                if is_set && !wanted.iter().any(|(name, _)| *name == key) {
                    execute(connection, format!("ALTER SERVER {name} OPTIONS (DROP {key})"))
                        .await?;
                }
            }
            for (key, value) in wanted {
                if existing.contains(&format!("{key}={value}")) {
                    continue;
                }
                let is_set = existing.iter().any(|option| option.starts_with(&format!("{key}=")));
                let verb = if is_set { "SET" } else { "ADD" };
                let value = literal(value);
                execute(connection, format!("ALTER SERVER {name} OPTIONS ({verb} {key} {value})"))
                    .await?;
            }
        }
    }
    map_users(connection, node).await
}

/// Whoever writes or reads through the coordinator does so as the node's restricted role.
async fn map_users(connection: &mut PgConnection, node: &Node) -> anyhow::Result<()> {
    let (name, url) = (node.name, node.url.expose());
    let (user, password) = credentials(url).context("the URL names no user and password")?;
    for role in ["ordersaga_service", "ordersaga_owner"] {
        let options = format!("user {}, password {}", literal(&user), literal(&password));
        execute(connection, format!("DROP USER MAPPING IF EXISTS FOR {role} SERVER {name}"))
            .await?;
        execute(
            connection,
            format!("CREATE USER MAPPING FOR {role} SERVER {name} OPTIONS ({options})"),
        )
        .await?;
    }
    Ok(())
}

/// Runs a statement that Postgres takes no parameters in. Every part of it is either a name that
/// the configuration's parser let through or a quoted literal.
async fn execute(connection: &mut PgConnection, statement: String) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}

/// How the coordinator is to encrypt its connections to a node: as the service itself does. The file
/// is read by the coordinator's server, so it lies at the same place there.
fn tls_options(url: &str) -> anyhow::Result<Vec<(&'static str, String)>> {
    let url = url::Url::parse(url).map_err(|_| anyhow::anyhow!("not a URL"))?;
    let mut options: Vec<(&str, String)> = Vec::new();
    for (name, value) in url.query_pairs() {
        let option = match &*name {
            "sslmode" | "ssl-mode" => TLS_OPTIONS[0],
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => TLS_OPTIONS[1],
            _ => continue,
        };
        options.push((option, value.into_owned()));
    }
    Ok(options)
}

fn credentials(url: &str) -> anyhow::Result<(String, String)> {
    // The parser's error would repeat the URL.
    let url = url::Url::parse(url).map_err(|_| anyhow::anyhow!("not a URL"))?;
    let decode = |text| percent_encoding::percent_decode_str(text).decode_utf8();
    let password = url.password().context("no password")?;
    Ok((decode(url.username())?.into_owned(), decode(password)?.into_owned()))
}

/// A string constant. Backslashes are plain: `standard_conforming_strings` is on since Postgres 9.1.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_decoded_and_quoted() {
        let (user, password) = credentials("postgres://fdw:it%27s%20a%2Fsecret@h:1/d").unwrap();
        assert_eq!((user.as_str(), literal(&password).as_str()), ("fdw", "'it''s a/secret'"));
        assert!(credentials("postgres://fdw@h/d").is_err());
    }

    #[test]
    fn options_about_encryption_come_from_the_url() {
        let url = "postgres://u:p@h/d?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem&x=y";
        let wanted =
            [("sslmode", "verify-full".to_owned()), ("sslrootcert", "/etc/ca.pem".to_owned())];
        assert_eq!(tls_options(url).unwrap(), wanted);
        assert!(tls_options("postgres://u:p@h/d").unwrap().is_empty());
    }
}
