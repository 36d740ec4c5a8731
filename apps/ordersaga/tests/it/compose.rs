//! The compose file gives the programs what they really take: its environment, with nothing but
//! addresses put in the place of its own, makes a system that works. TLS is the test's addition, since its
//! parts ask for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::{Cluster, Database, Service, ServiceProcess, TemporaryFolder, free_port};
use serde_json::Value;
use tokio::process::Command;

use crate::bed::{Bed, block_on, until};
use crate::client::{order_for, state_of};
use crate::dlq::{Said, program};
use crate::registry::Registry;
use crate::secure::{Parts, USERS, parts, password_of};

type Environment = BTreeMap<String, String>;

fn text(path: &str) -> Result<String> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    std::fs::read_to_string(root.join(path)).with_context(|| path.to_owned())
}

/// The services of the file, anchors and merges resolved.
fn services() -> Result<Value> {
    let file: Value = serde_saphyr::from_str(&text("docker-compose.yml")?)?;
    Ok(file["services"].clone())
}

/// A text of the file with its `${…}` filled in, as Compose does.
fn filled_in(text: &str, from: &Environment) -> Result<String> {
    let mut parts = text.split("${");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (inside, rest) = part.split_once('}').with_context(|| format!("no }} in {text}"))?;
        let end = inside.find([':', '-', '?']).unwrap_or(inside.len());
        let (name, otherwise) = inside.split_at(end);
        let value = from.get(name).filter(|value| !value.is_empty());
        let default = otherwise.trim_start_matches(':').strip_prefix('-');
        let value = value.map(String::as_str).or(default);
        filled.push_str(value.with_context(|| format!("{name} has no value: {text}"))?);
        filled.push_str(rest);
    }
    Ok(filled.replace("$$", "$"))
}

/// The environment of one of its services.
fn environment(service: &Value, from: &Environment) -> Result<Environment> {
    let variables = service["environment"].as_object().context("no environment")?;
    variables
        .iter()
        .map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            Ok((name.clone(), filled_in(&value, from)?))
        })
        .collect()
}

/// What stands in `.env`: each variable of the example, with the secrets of these parts.
fn secrets(parts: &Parts, database: &Database) -> Result<Environment> {
    let passwords = &database.passwords;
    let mut known: Environment = USERS
        .map(|(user, variable)| (variable.to_owned(), password_of(user)))
        .into_iter()
        .collect();
    // The five databases of this test are on one server.
    for cluster in Cluster::ALL {
        let of = cluster.database().to_uppercase();
        known.insert(format!("POSTGRES_PASSWORD_{of}"), passwords.superuser.clone());
        known.insert(format!("OWNER_PASSWORD_{of}"), passwords.owner.clone());
        known.insert(format!("MONITORING_PASSWORD_{of}"), "unused".to_owned());
        let (role, password) = if cluster.is_shard() {
            ("FDW", &passwords.fdw)
        } else {
            ("SERVICE", &passwords.service)
        };
        known.insert(format!("{role}_PASSWORD_{of}"), password.clone());
    }
    known.insert("REDIS_PASSWORD".to_owned(), parts.security.redis_password.clone());
    known.insert("KAFKA_PASSWORD_ADMIN".to_owned(), parts.security.admin_password.clone());
    let example = text(".env.example")?;
    for line in example.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, value) = line.split_once('=').context("no = in .env.example")?;
        let has_value = !value.is_empty() || known.contains_key(name);
        ensure!(has_value, "{name} stands in .env.example, and the test does not know it");
    }
    for name in known.keys() {
        ensure!(example.contains(&format!("\n{name}=")), "{name} is not in .env.example");
    }
    Ok(known)
}

/// A change to make: a variable, what it has, and what stands there instead.
type Move = (&'static str, &'static str, String);

/// Puts the test's addresses in the place of the file's; each must be there.
fn moved(environment: &mut Environment, moves: &[Move]) -> Result<()> {
    for (name, from, to) in moves {
        let value = environment.get_mut(*name).with_context(|| format!("no {name}"))?;
        ensure!(value.contains(from), "{name} does not have {from}");
        *value = value.replace(from, to);
    }
    Ok(())
}

/// Where a database is, as the end of a URL.
fn place(database: &Database) -> String {
    format!("@127.0.0.1:{}/{}{}", database.port, database.name, database.parameters)
}

/// Moves of the variables that name a service's own database, and the nodes of monitoring.
fn database_moves(
    service: Service,
    bed: &Bed,
    own: &'static str,
    nodes: &'static str,
) -> Vec<Move> {
    let databases = &bed.databases;
    let file = match service {
        Service::CreateOrder => "@postgres-create-order:5432/create_order",
        Service::Store => "@postgres-store:5432/store",
        Service::Monitoring => "@postgres-monitoring:5432/monitoring",
    };
    let mut moves = vec![(own, file, place(&databases[service.cluster()]))];
    if service == Service::Monitoring {
        moves.extend([
            (nodes, "@172.28.57.23:5432/shard1", place(&databases[Cluster::Shard1])),
            (nodes, "@172.28.57.24:5432/shard2", place(&databases[Cluster::Shard2])),
        ]);
    }
    moves
}

fn own_moves(service: Service, bed: &Bed, parts: &Parts) -> Vec<Move> {
    let mut moves = database_moves(service, bed, "DATABASE_URL", "SHARDS");
    moves.push(("KAFKA_BROKERS", "redpanda:9092", parts.broker.url()));
    if service == Service::Store {
        let url = parts.redis.url();
        let address = url.rsplit('@').next().unwrap_or_default().to_owned();
        moves.push(("REDIS_URL", "redis:6379/0", address));
        moves.push(("REDIS_URL", "redis://", "rediss://".to_owned()));
    }
    moves
}

/// What a test on shared parts adds: trust in their authority, and names of its own.
fn add(environment: &mut Environment, bed: &Bed, parts: &Parts) {
    environment.insert("KAFKA_CA_FILE".into(), parts.authority());
    environment.insert("KAFKA_TOPIC_PREFIX".into(), bed.prefix.clone());
}

fn process(
    service: Service,
    bed: &Bed,
    parts: &Parts,
    from: &Environment,
    logs: &Path,
) -> Result<ServiceProcess> {
    let described = &services()?[service.name()];
    ensure!(described["command"] == serde_json::json!([service.name()]), "{described}");
    let mut environment = environment(described, from)?;
    moved(&mut environment, &own_moves(service, bed, parts))?;
    let free = format!("127.0.0.1:{}", free_port()?);
    ensure!(environment["HTTP_LISTEN"] == format!("0.0.0.0:{}", service.port()), "{environment:?}");
    environment.insert("HTTP_LISTEN".into(), free);
    // Here all have one network.
    ensure!(environment.remove("ADMIN_LISTEN").is_some(), "Prometheus asks there");
    let hosts = &environment["HTTP_HOSTS"];
    ensure!(hosts.split(',').next() == Some(service.name()), "{hosts}: Prometheus calls it so");
    add(&mut environment, bed, parts);
    environment.insert("KAFKA_GROUP".into(), format!("{}{}", bed.prefix, service.group()));
    if service == Service::Store {
        environment.insert("REDIS_CA_FILE".into(), parts.authority());
    }
    Ok(ServiceProcess::new(service, environment, logs.join(format!("{service}.log"))))
}

/// The one-shot service that a service waits for.
async fn migrate(service: Service, bed: &Bed, from: &Environment) -> Result<()> {
    let (services, name) = (services()?, format!("migrate-{}", service.cluster()));
    let described = &services[&name];
    ensure!(described["command"] == serde_json::json!([service.name(), "migrate"]), "{name}");
    let waits = &services[service.name()]["depends_on"][&name]["condition"];
    ensure!(waits == "service_completed_successfully", "{service} does not wait for {name}");
    let mut environment = environment(described, from)?;
    let mut moves = database_moves(service, bed, "DATABASE_MIGRATION_URL", "SHARDS_MIGRATION");
    // The nodes as the service knows them, too.
    moves.extend(database_moves(service, bed, "", "SHARDS").into_iter().skip(1));
    moved(&mut environment, &moves)?;
    let mut job = Command::new(program(service.name())?);
    job.arg("migrate").envs(environment);
    Said::by(job).await?.expect(0, "").map(drop)
}

/// The one-shot service `topics`.
async fn apply_topics(bed: &Bed, parts: &Parts, from: &Environment) -> Result<()> {
    let described = &services()?["topics"];
    let command = described["command"].as_array().context("no command")?;
    let words: Vec<_> = command.iter().filter_map(Value::as_str).collect();
    let (name, arguments) = words.split_first().context("no program")?;
    let mut environment = environment(described, from)?;
    let registry = Registry::start(parts, &[]).await?;
    moved(
        &mut environment,
        &[
            ("KAFKA_BROKERS", "redpanda:9092", parts.broker.url()),
            ("SCHEMA_REGISTRY_URL", "http://redpanda:8081", registry.url()),
        ],
    )?;
    add(&mut environment, bed, parts);
    environment.insert("SCHEMA_REGISTRY_CA_FILE".into(), parts.authority());
    let mut job = Command::new(program(name)?);
    job.args(arguments).envs(environment);
    let said = Said::by(job).await?.expect(0, "service-store: granted")?;
    said.expect(0, "the schema registry is READONLY").map(drop)
}

#[test]
fn the_services_work_with_the_environment_of_the_compose_file() -> Result<()> {
    block_on(async {
        let parts = parts().await?;
        let logs = TemporaryFolder::new("compose")?;
        let test = async |bed: &mut Bed| {
            let from = secrets(parts, &bed.databases[Cluster::Store])?;
            apply_topics(bed, parts, &from).await?;
            for service in Service::ALL {
                migrate(service, bed, &from).await?;
                let process = process(service, bed, parts, &from, logs.path())?;
                process.start()?;
                bed.services.insert(service, process);
            }
            bed.wait_ready().await?;
            until("Redis is used", async || {
                let ready = bed.get(Service::Store, "/ready").await?.json()?;
                Ok(state_of(&ready, "redis")?["ready"] == true)
            })
            .await?;
            let order = bed.place(&order_for(1)).await?;
            bed.reaches(order, "SHIPPING").await?;
            bed.cancel(order).await?;
            bed.reaches(order, "CANCELLED").await.map(drop)
        };
        parts.plan("compose").await?.run(test).await
    })
}

#[test]
fn every_variable_in_the_compose_file_is_one_that_its_program_knows() -> Result<()> {
    block_on(async {
        let services = services()?;
        let access = text("redpanda/access.toml")?;
        for (name, program_name, arguments) in [
            ("service-create-order", "service-create-order", &[][..]),
            ("service-store", "service-store", &[]),
            ("service-monitoring-order", "service-monitoring-order", &[]),
            ("migrate-create-order", "service-create-order", &["migrate"]),
            ("migrate-store", "service-store", &["migrate"]),
            ("migrate-monitoring", "service-monitoring-order", &["migrate"]),
            ("topics", "ordersaga-kafka", &["topics", "apply"]),
            ("load", "ordersaga-load", &[]),
        ] {
            let mut help = Command::new(program(program_name)?);
            help.args(arguments).arg("--help").env_clear();
            let said = Said::by(help).await?.expect(0, "Usage")?.text;
            let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
            let variables = services[name]["environment"].as_object().context("no environment")?;
            for variable in variables.keys() {
                let known = ["=", "]"].map(|end| format!("[env: {variable}{end}"));
                let known = known.iter().any(|known| words.contains(known))
                    || access.contains(&format!("password = \"{variable}\""));
                ensure!(known, "{name}: {program_name} knows no {variable}");
            }
        }
        Ok(())
    })
}

/// The containers that have a password of Postgres, whatever it is called there: the server itself,
/// and whoever logs in with it.
fn holders(role: &str, database: &str) -> BTreeSet<String> {
    let server = format!("postgres-{database}");
    let name = if database.starts_with("shard") { "monitoring" } else { database };
    let migration = format!("migrate-{name}");
    let program = if name == "monitoring" { "monitoring-order" } else { name };
    let serving = format!("service-{program}");
    match role {
        "POSTGRES" => [server].into(),
        "OWNER" => [server, migration].into(),
        "SERVICE" => [server, serving].into(),
        "FDW" => [server, migration, serving].into(),
        _ => [server, "postgres-exporter".to_owned()].into(),
    }
}

#[test]
fn a_password_of_postgres_is_known_to_the_server_and_to_whom_it_lets_in() -> Result<()> {
    let services = services()?;
    let services = services.as_object().context("no services")?;
    let example = text(".env.example")?;
    let mut seen = 0;
    for line in example.lines() {
        let Some((role, rest)) = line.split_once("_PASSWORD_") else { continue };
        let Some((database, "")) = rest.split_once('=') else { continue };
        if role == "KAFKA" {
            continue;
        }
        let name = format!("${{{role}_PASSWORD_{database}");
        let has = |service: &Value| {
            let value = service.to_string();
            let mut found = value.match_indices(&name);
            found.any(|(at, _)| value[at + name.len()..].starts_with(['-', ':', '}']))
        };
        let found = services.iter().filter(|(_, service)| has(service));
        let found: BTreeSet<_> = found.map(|(name, _)| name.clone()).collect();
        let database = database.to_lowercase().replace('_', "-");
        ensure!(found == holders(role, &database), "{role} of {database}: {found:?}");
        seen += 1;
    }
    // The owner's, the superuser's and the exporter's on each server, and another one.
    ensure!(seen == 4 * Cluster::ALL.len(), "{seen} passwords");
    Ok(())
}

/// Else what a container prints is kept until the disk is full.
#[test]
fn the_logs_of_every_container_are_bounded() -> Result<()> {
    for (name, service) in services()?.as_object().context("no services")? {
        let logging = &service["logging"];
        // A driver of the engine's own choice may not know these options.
        ensure!(logging["driver"] == "json-file", "{name}: {logging}");
        let options = &logging["options"];
        ensure!(options["max-size"] == "10m" && options["max-file"] == "3", "{name}: {logging}");
    }
    Ok(())
}

/// What the tests' Redis lets its user do is what the compose file's does.
#[test]
fn the_store_has_the_same_rights_on_redis_everywhere() -> Result<()> {
    block_on(async {
        let parts = parts().await?;
        let own = std::fs::read_to_string(parts.security.redis_users())?;
        let own = own.replace(&parts.security.redis_password, "$$REDISCLI_AUTH");
        let services = services()?;
        let command = services["redis"]["command"][2].as_str().context("no command")?;
        for line in own.lines() {
            ensure!(command.contains(line), "not in the compose file: {line}");
        }
        Ok(())
    })
}

/// Console's pages ask an outside address for an announcement bar. The proxy in front of it forbids
/// that, and nobody gets around it.
#[test]
fn console_is_reached_only_through_what_keeps_its_pages_inside() -> Result<()> {
    let services = services()?;
    let published = services.as_object().context("no services")?.iter().filter(|(_, service)| {
        let ports = service["ports"].as_array().into_iter().flatten();
        ports.filter_map(Value::as_str).any(|port| port.ends_with(":8080") || port == "8080")
    });
    let published: Vec<_> = published.map(|(name, _)| name.as_str()).collect();
    ensure!(published == ["console-proxy"], "{published:?} publish Console's port");
    ensure!(services["console"].get("ports").is_none(), "Console publishes a port");
    let mounts = &services["console-proxy"]["volumes"];
    let mount = mounts[0].as_str().context("nothing is mounted")?;
    let (file, target) = mount.split_once(':').context("no mount")?;
    ensure!(target == "/etc/nginx/nginx.conf:ro", "{mount}");
    let settings = text(file)?;
    let policy = settings.lines().find(|line| line.contains("Content-Security-Policy"));
    let policy = policy.context("no policy")?;
    for part in ["default-src 'self' ", "connect-src 'self'\"", "always;"] {
        ensure!(policy.contains(part), "{part}: {policy}");
    }
    ensure!(!policy.contains('*') && !policy.contains("http"), "{policy}");
    ensure!(settings.contains("http://console:8080;"), "it is not in front of Console");
    Ok(())
}

/// The service's own command, on this machine's git.
#[test]
fn pages_of_topics_can_be_cloned_as_console_does() -> Result<()> {
    block_on(async {
        let (described, folder) = (&services()?["topic-pages"], TemporaryFolder::new("pages")?);
        let (port, place) = (free_port()?.to_string(), folder.path().display().to_string());
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let pages = root.join("docs/topics");
        ensure!(described["volumes"] == serde_json::json!(["./docs/topics:/pages:ro"]));
        let script = described["command"][0].as_str().context("no command")?;
        let script = script
            .replace("$$", "$")
            .replace("/tmp", &place)
            .replace("/pages", &pages.display().to_string())
            .replace("--listen=0.0.0.0", "--listen=127.0.0.1")
            .replace("9418", &port);
        let mut daemon = Command::new("/bin/sh");
        let _daemon = daemon.args(["-c", &script]).kill_on_drop(true).spawn()?;
        let console: Value = serde_saphyr::from_str(&text("redpanda/console.yaml")?)?;
        let repository = &console["console"]["topicDocumentation"]["git"]["repository"];
        let (url, branch) = (&repository["url"], &repository["branch"]);
        let url = url.as_str().context("no repository")?;
        let url = url.replace("//topic-pages/", &format!("//127.0.0.1:{port}/"));
        let branch = branch.as_str().context("no branch")?;
        let copy = folder.path().join("copy");
        until("the pages are cloned", async || {
            let mut clone = Command::new("git");
            clone.args(["clone", "--quiet", "--depth=1", "--branch", branch, &url]).arg(&copy);
            Ok(Said::by(clone).await?.code == Some(0))
        })
        .await?;
        for page in std::fs::read_dir(&pages)? {
            let page = page?;
            let copied = std::fs::read(copy.join(page.file_name()))?;
            ensure!(copied == std::fs::read(page.path())?, "{:?}", page.file_name());
        }
        Ok(())
    })
}
