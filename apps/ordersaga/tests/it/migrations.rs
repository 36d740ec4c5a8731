//! Schemas and the versions that run on them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use chrono::TimeDelta;
use ordersaga_contract::cloud_event;
use ordersaga_devstack::{Cluster, Service};
use ordersaga_runtime::clock;
use serde_json::json;
use sqlx::AssertSqlSafe;

use crate::bed::{Bed, Plan, WITHIN, block_on, saga, skipped, until};
use crate::client::order_for;
use crate::invariants;
use crate::poison::event;

const NEWER: &str = "INSERT INTO _sqlx_migrations \
                     (version, description, success, checksum, execution_time) \
                     VALUES (9999, 'of a newer version', true, '\\x00', 1)";

async fn run(bed: &Bed, cluster: Cluster, statement: &str) -> Result<()> {
    let statement = AssertSqlSafe(statement.to_owned());
    sqlx::raw_sql(statement).execute(bed.sql(cluster)).await?;
    Ok(())
}

#[test]
fn a_database_that_a_newer_version_migrated_is_accepted_and_the_log_says_so() -> Result<()> {
    saga(async |bed| {
        for cluster in Cluster::ALL {
            run(bed, cluster, NEWER).await?;
        }
        for service in Service::ALL {
            bed.services[&service].terminate().await?;
            bed.services[&service].migrate(WITHIN).await?;
            bed.start(service).await?;
            let log = std::fs::read_to_string(bed.services[&service].log())?;
            ensure!(
                log.contains("a newer version has migrated") && log.contains("9999"),
                "{service} says nothing of it: {log}"
            );
        }
        let order = bed.place(&order_for(bed.add_item(1).await?)).await?;
        bed.reaches(order, "SHIPPING").await?;
        invariants::hold(bed).await
    })
}

#[test]
fn a_service_waits_for_its_schema_and_says_so() -> Result<()> {
    block_on(Plan::default().idle().run(async |bed| {
        bed.apply_topics().await?;
        for service in Service::ALL {
            bed.services[&service].start()?;
        }
        for service in [Service::CreateOrder, Service::Store] {
            until("readiness says so", async || {
                let Ok(ready) = bed.get(service, "/ready").await else { return Ok(false) };
                Ok(ready.status == 503 && ready.text.contains("is not migrated"))
            })
            .await?;
        }
        bed.migrate().await?;
        bed.wait_ready().await
    }))
}

#[test]
fn a_migration_that_was_changed_or_did_not_end_is_refused() -> Result<()> {
    const WRONG: [(&str, &str); 3] = [
        ("SET checksum = '\\x00' WHERE version = 1", "previously applied but has been modified"),
        ("SET success = false WHERE version = 1", "partially applied"),
        ("SET version = 0 WHERE version = 9999", "not of this service"),
    ];
    saga(async |bed| {
        let service = &bed.services[&Service::CreateOrder];
        run(bed, Cluster::CreateOrder, NEWER).await?;
        let keep = "CREATE TABLE kept AS SELECT * FROM _sqlx_migrations";
        run(bed, Cluster::CreateOrder, keep).await?;
        for (change, reason) in WRONG {
            let update = format!("UPDATE _sqlx_migrations {change}");
            run(bed, Cluster::CreateOrder, &update).await?;
            let migration = service.migration();
            migration.start()?;
            until(reason, async || Ok(std::fs::read_to_string(service.log())?.contains(reason)))
                .await?;
            ensure!(migration.is_running(), "it waits");
            let restore = "TRUNCATE _sqlx_migrations; \
                           INSERT INTO _sqlx_migrations SELECT * FROM kept";
            run(bed, Cluster::CreateOrder, restore).await?;
            ensure!(migration.wait_exit(WITHIN).await?.success(), "{reason}: it goes on");
        }
        Ok(())
    })
}

/// The release before this one: what an operator goes back to.
const BEFORE: &str = "790ec3eeb83d0c3623ed8cec5df67bbd36764fbb";

/// The services of the release before, built once from its commit beside this build, whose built
/// dependencies it shares; none where the commit is not there.
fn build_before() -> Result<Option<PathBuf>> {
    let own = std::env::current_exe()?;
    let debug = own.ancestors().nth(2).context("this program is in no folder of a build")?;
    let place = debug.with_file_name("previous").join(BEFORE);
    let (tree, build) = (place.join("tree"), place.join("build"));
    let services = build.join("debug");
    if Service::ALL.iter().all(|service| services.join(service.name()).is_file()) {
        return Ok(Some(services));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("no workspace")?;
    let mut git = Command::new("git");
    git.current_dir(root).args(["cat-file", "-e", &format!("{BEFORE}^{{commit}}")]);
    if !git.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return Ok(None);
    }
    // What an earlier try left may be half of it.
    if place.exists() {
        std::fs::remove_dir_all(&place)?;
    }
    for folder in [&tree, &services] {
        std::fs::create_dir_all(folder)?;
    }
    let archive = place.join("tree.tar");
    let mut git = Command::new("git");
    succeed(git.current_dir(root).args(["archive", BEFORE, "--output"]).arg(&archive))?;
    succeed(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&tree))?;
    // With today's dependencies, which are built already: it is its own code that is tried.
    for manifest in ["Cargo.toml", "Cargo.lock"] {
        std::fs::copy(root.join(manifest), tree.join(manifest))?;
    }
    let reused = ["deps", "build", ".fingerprint"].map(|folder| debug.join(folder));
    succeed(Command::new("cp").arg("-al").args(reused).arg(&services))?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let added = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_EXE_"];
        if added.iter().any(|start| name.as_encoded_bytes().starts_with(start.as_bytes())) {
            cargo.env_remove(name);
        }
    }
    // Chosen among the whole workspace, dependencies have the features they were built with.
    cargo.current_dir(&tree).env("CARGO_TARGET_DIR", &build).args([
        "build",
        "--quiet",
        "--offline",
        "--workspace",
    ]);
    succeed(cargo.args(Service::ALL.iter().flat_map(|service| ["--bin", service.name()])))?;
    Ok(Some(services))
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

#[test]
fn the_release_before_works_on_the_newest_schema() -> Result<()> {
    let Some(before) = build_before()? else {
        skipped(&format!("{BEFORE} is not in this clone"));
        return Ok(());
    };
    block_on(Plan::default().run(async |bed| {
        let item = bed.add_item(20).await?;
        let order = order_for(item);
        let first = bed.place(&order).await?;
        bed.reaches(first, "SHIPPING").await?;
        for service in Service::ALL {
            let process = bed.services.get_mut(&service).context("a service")?;
            process.terminate().await?;
            process.take_binary_from(&before);
            // Without an owner's URL it leaves schemas alone; it would refuse what it does not know.
            process.start()?;
        }
        bed.wait_ready().await?;
        for _ in 0..10 {
            let order = bed.place(&order).await?;
            bed.reaches(order, "SHIPPING").await?;
        }
        bed.cancel(first).await?;
        bed.reaches(first, "CANCELLED").await?;
        invariants::hold(bed).await
    }))
}

/// The release before writes its events to `public.outbox`. Those that it leaves there, since it
/// was killed, are published by this one.
#[test]
fn what_the_release_before_left_in_its_outbox_is_published() -> Result<()> {
    const ORDER: i64 = 900_000;
    saga(async |bed| {
        let item = bed.add_item(5).await?;
        let time = cloud_event::time(clock::now() - TimeDelta::seconds(3));
        let placed = json!({"type": "OrderPlaced", "time": time});
        let event = event("incoming", ORDER, item, &placed)?;
        sqlx::query(
            "WITH placed AS (INSERT INTO orders (order_id, item_id, seller_id, client_id, quantity, \
                                                 state, created_at, updated_at) \
                             VALUES ($1, $2, 1, 1, 1, 1, $3::timestamptz, $3::timestamptz)) \
             INSERT INTO public.outbox (at, events, facts, order_ids, payloads, traceparents, \
                                        cache_ids, cache_versions) \
             VALUES ($3::timestamptz, 1, '{1}', ARRAY[$1], ARRAY[$4], '{null}', '{}', '{}')",
        )
        .bind(ORDER)
        .bind(item)
        .bind(time)
        .bind(&event.payload)
        .execute(bed.sql(Cluster::CreateOrder))
        .await?;
        bed.reaches(ORDER, "SHIPPING").await?;
        let left = bed.number(Cluster::CreateOrder, "SELECT count(*) FROM public.outbox").await?;
        ensure!(left == 0, "{left} rows are left");
        invariants::hold(bed).await
    })
}
