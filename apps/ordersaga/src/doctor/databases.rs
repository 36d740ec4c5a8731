//! The databases of the local stack, by its own `psql`.

use std::process::Command;

use anyhow::{Context, Result};
use ordersaga_devstack::{Cluster, Parts, programs, run};

use super::finding::{Finding, or_ok};
use super::seen::Surroundings;

/// Statements and connections take no longer.
const SECONDS: u32 = 5;
/// What a slot may keep of the write-ahead log.
const KEPT: u64 = 1024 * 1024 * 1024;

/// Asks each database of the local stack, and judges the rows.
fn of_each(
    seen: &Surroundings,
    query: &str,
    well: &str,
    judge: impl Fn(Cluster, &[Vec<String>]) -> Vec<Finding>,
) -> Vec<Finding> {
    let Some(state) = seen.running() else {
        return vec![Finding::unknown("no stack runs here; databases elsewhere are not looked at")];
    };
    let found =
        Cluster::ALL.into_iter().flat_map(|cluster| match ask(&state.parts, cluster, query) {
            Ok(rows) => judge(cluster, &rows),
            Err(error) => vec![
                Finding::problem(format!("Postgres of {cluster} cannot be asked: {error:#}"))
                    .mend(format!("ordersaga logs {cluster}"))
                    .runbook("PostgresDown"),
            ],
        });
    or_ok(found.collect(), well)
}

fn ask(parts: &Parts, cluster: Cluster, query: &str) -> Result<Vec<Vec<String>>> {
    let (_, folder) = programs::postgres().context("there is no psql")?;
    let server = parts.server(cluster);
    let mut psql = Command::new(folder.join("psql"));
    psql.args(["-XAtq", "-F", "\t", "-h", "127.0.0.1", "-U", "postgres", "-v", "ON_ERROR_STOP=1"]);
    psql.args(["-p", &server.port.to_string(), "-d", cluster.database(), "-c", query]);
    // Not an argument, which everybody on the machine can read.
    psql.env("PGPASSWORD", &server.passwords.superuser);
    psql.env("PGCONNECT_TIMEOUT", SECONDS.to_string());
    psql.env("PGOPTIONS", format!("-c statement_timeout={SECONDS}s"));
    Ok(rows(&run(&mut psql)?))
}

fn rows(text: &str) -> Vec<Vec<String>> {
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// The roles that services and migrations log in with.
pub(super) fn roles(seen: &Surroundings) -> Vec<Finding> {
    let query = "SELECT rolname FROM pg_roles WHERE rolcanlogin";
    of_each(seen, query, "every role is there", |cluster, rows| {
        let names: Vec<_> = rows.iter().filter_map(|row| row.first()).map(String::as_str).collect();
        judge_roles(cluster, &names)
    })
}

fn judge_roles(cluster: Cluster, there: &[&str]) -> Vec<Finding> {
    let work = if cluster.is_shard() { "ordersaga_fdw" } else { "ordersaga_service" };
    let missing = ["ordersaga_owner", work].into_iter().filter(|role| !there.contains(role));
    missing
        .map(|role| {
            Finding::problem(format!("the role {role} is missing in Postgres of {cluster}"))
                .mend("ordersaga down; ordersaga up makes it")
        })
        .collect()
}

/// Standbys and slots: one that nobody reads keeps the write-ahead log for ever.
pub(super) fn replication(seen: &Surroundings) -> Vec<Finding> {
    let query = "SELECT 'standby', '', pg_is_in_recovery()::int UNION ALL \
                 SELECT 'slot', slot_name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint \
                 FROM pg_replication_slots WHERE NOT active";
    of_each(seen, query, "no server is a standby, and no slot keeps the log", judge_replication)
}

fn judge_replication(cluster: Cluster, rows: &[Vec<String>]) -> Vec<Finding> {
    let found = rows.iter().filter_map(|row| {
        let [kind, name, number] = row.as_slice() else { return None };
        let number: u64 = number.parse().unwrap_or_default();
        match kind.as_str() {
            "standby" if number == 1 => Some(
                Finding::problem(format!("Postgres of {cluster} is a standby: it takes no writes"))
                    .mend("promote it (SELECT pg_promote()), or use the primary")
                    .runbook("ServiceNotReady"),
            ),
            "slot" => Some(judge_slot(cluster, name, number)),
            _ => None,
        }
    });
    found.collect()
}

fn judge_slot(cluster: Cluster, name: &str, bytes: u64) -> Finding {
    let what = format!(
        "nobody reads the replication slot {name} of {cluster}, which keeps {} MiB of log",
        bytes / (1024 * 1024)
    );
    let mend =
        format!("SELECT pg_drop_replication_slot('{name}') in that database, if it is not needed");
    let finding = if bytes > KEPT { Finding::problem(what) } else { Finding::warning(what) };
    finding.mend(mend).runbook("DiskSpaceLow")
}

/// Transactions that are open for long keep rows and locks.
pub(super) fn transactions(seen: &Surroundings) -> Vec<Finding> {
    let query = "SELECT pid, usename, extract(epoch FROM now() - xact_start)::bigint \
                 FROM pg_stat_activity WHERE xact_start < now() - interval '5 minutes' \
                 AND backend_type = 'client backend'";
    of_each(seen, query, "none is open for minutes", judge_transactions)
}

fn judge_transactions(cluster: Cluster, rows: &[Vec<String>]) -> Vec<Finding> {
    let found = rows.iter().filter_map(|row| {
        let [pid, user, seconds] = row.as_slice() else { return None };
        let what = format!("{user} has a transaction open in {cluster} for {seconds} s");
        let mend = format!("SELECT pg_terminate_backend({pid}) in that database");
        Some(Finding::warning(what).mend(mend).runbook("PostgresLongTransaction"))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_shard_has_a_role_for_the_coordinator_and_the_others_one_for_their_service() {
        let all = ["ordersaga_owner", "ordersaga_service"];
        assert_eq!(judge_roles(Cluster::Store, &all), []);
        let missing = judge_roles(Cluster::Shard1, &all);
        assert_eq!(missing[0].what, "the role ordersaga_fdw is missing in Postgres of shard1");
    }

    #[test]
    fn a_standby_and_a_forgotten_slot_are_told() {
        assert_eq!(judge_replication(Cluster::Store, &rows("standby\t\t0\n")), []);
        let found =
            judge_replication(Cluster::Store, &rows("standby\t\t1\nslot\told\t2147483648\n"));
        assert_eq!(found.iter().map(|one| one.level).collect::<Vec<_>>(), [Level::Problem; 2]);
        assert!(found[1].what.contains("slot old of store, which keeps 2048 MiB"), "{found:?}");
    }

    #[test]
    fn an_old_transaction_is_told_with_what_ends_it() {
        let found = judge_transactions(Cluster::Store, &rows("7\tordersaga_owner\t400\n"));
        assert_eq!(
            found[0].mend.as_deref(),
            Some("SELECT pg_terminate_backend(7) in that database")
        );
    }
}
