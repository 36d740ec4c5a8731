//! The manifests of docs/deploy/kubernetes against the programs they start: names of variables,
//! Secrets, ports and metrics. No cluster is needed; whether the objects are valid is asked by the
//! script `validate` beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ordersaga_contract::PARTITIONS;
use serde_json::Value;

use crate::dlq::program;

/// Our image, as the base names it.
const IMAGE: &str = "ordersaga";
/// Where metrics that autoscalers may name are registered.
const REGISTERED: [&str; 2] = [
    include_str!("../../../../libs/sagabus/src/metrics.rs"),
    include_str!("../../../../libs/runtime/src/http/metrics.rs"),
];
/// The ports of README.md.
const PORTS: [(&str, u64); 3] =
    [("service-create-order", 8000), ("service-monitoring-order", 8001), ("service-store", 8002)];

type Names = BTreeSet<String>;

fn file(name: &str) -> Result<String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    fs::read_to_string(folder.join(name)).with_context(|| name.to_owned())
}

fn yaml(text: &str) -> Result<Vec<Value>> {
    Ok(serde_saphyr::from_multiple(text)?)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The base as kustomize would build it, as far as it matters here.
struct Base {
    kustomization: Value,
    objects: Vec<Value>,
    settings: BTreeMap<String, BTreeMap<String, String>>,
}

impl Base {
    fn read() -> Result<Self> {
        let read = |name: &str| file(&format!("deploy/kubernetes/base/{name}"));
        let kustomization = yaml(&read("kustomization.yaml")?)?.remove(0);
        let mut objects = Vec::new();
        for resource in list(&kustomization["resources"]) {
            objects.extend(yaml(&read(text(resource))?)?);
        }
        let common = yaml(&read("service-common.patch.yaml")?)?.remove(0);
        for object in objects.iter_mut().filter(|object| is_service(object)) {
            merge(&mut object["spec"], &common["spec"]);
        }
        let mut settings = BTreeMap::new();
        for map in list(&kustomization["configMapGenerator"]) {
            let lines = read(text(&map["envs"][0]))?;
            let pairs = lines.lines().filter(|line| !line.starts_with('#'));
            let pairs = pairs.filter_map(|line| line.split_once('='));
            let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
            settings.insert(text(&map["name"]).to_owned(), pairs.collect());
        }
        Ok(Self { kustomization, objects, settings })
    }

    fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    fn named<'a>(&'a self, kind: &'a str, name: &str) -> Result<&'a Value> {
        let found = self.of_kind(kind).find(|object| object["metadata"]["name"] == name);
        found.with_context(|| format!("no {kind} {name}"))
    }

    /// The pods of workloads.
    fn pods(&self) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter_map(|object| match text(&object["kind"]) {
            "Deployment" | "Job" => Some(&object["spec"]["template"]["spec"]),
            "CronJob" => Some(&object["spec"]["jobTemplate"]["spec"]["template"]["spec"]),
            _ => None,
        })
    }

    /// The containers of our image.
    fn containers(&self) -> impl Iterator<Item = &Value> {
        let kinds = ["initContainers", "containers"];
        let containers = self.pods().flat_map(move |pod| kinds.map(|kind| list(&pod[kind])));
        let containers = containers.flatten();
        containers.filter(|container| container["image"] == IMAGE)
    }

    /// The variables that a container's program gets; of those from Secrets, the name only.
    fn environment(&self, container: &Value) -> Result<BTreeMap<String, String>> {
        let mut all = BTreeMap::new();
        for source in list(&container["envFrom"]) {
            let name = text(&source["configMapRef"]["name"]);
            let settings =
                self.settings.get(name).with_context(|| format!("no settings {name}"))?;
            all.extend(settings.clone());
        }
        for variable in list(&container["env"]) {
            let value = text(&variable["value"]).to_owned();
            all.insert(text(&variable["name"]).to_owned(), value);
        }
        Ok(all)
    }
}

fn is_service(object: &Value) -> bool {
    object["metadata"]["labels"]["app.kubernetes.io/component"] == "service"
}

/// A strategic merge: lists of named things are merged by name.
fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(patch)) => {
            for value in patch {
                match into
                    .iter_mut()
                    .find(|old| value["name"].is_string() && old["name"] == value["name"])
                {
                    Some(old) => merge(old, value),
                    None => into.push(value.clone()),
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

/// What a program's `--help` says of its variables.
struct Help {
    known: Names,
    required: Names,
}

impl Help {
    fn of(command: &[&str]) -> Result<Self> {
        let output = Command::new(program(command[0])?)
            .args(&command[1..])
            .arg("--help")
            .env_clear()
            .output()?;
        ensure!(output.status.success(), "{command:?}: {output:?}");
        // Lines are broken to fit a width.
        let help = String::from_utf8(output.stdout)?;
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let known = help.split("[env: ").skip(1).map(variable).collect();
        let (usage, options) = help.split_once("Options:").context("no options")?;
        let usage = usage.split_once("Usage:").context("no usage")?.1;
        let flags = usage.split(' ').filter(|word| word.starts_with("--"));
        let required = flags.map(|flag| {
            let (_, option) =
                options.split_once(&format!("{flag} <")).with_context(|| format!("no {flag}"))?;
            let (_, name) = option.split_once("[env: ").context("no variable")?;
            Ok(variable(name))
        });
        Ok(Self { known, required: required.collect::<Result<_>>()? })
    }
}

fn variable(text: &str) -> String {
    text.chars().take_while(|c| !matches!(c, '=' | ']')).collect()
}

#[test]
fn every_variable_is_one_of_its_program_and_none_is_missing() -> Result<()> {
    let base = Base::read()?;
    let mut programs = Names::new();
    for container in base.containers() {
        let command = ["command", "args"].into_iter().flat_map(|part| list(&container[part]));
        let command: Vec<_> = command.map(text).collect();
        let mut help = Help::of(&command)?;
        if command[0] == "ordersaga-kafka" {
            // Which variable has a user's password is data of that file.
            let users = file("../redpanda/access.toml").unwrap_or_default();
            help.known.extend(users.split('"').map(str::to_owned));
        }
        let environment = base.environment(container)?;
        for required in &help.required {
            ensure!(environment.contains_key(required), "{command:?} lacks {required}");
        }
        for name in environment.keys() {
            // A password that stands in a URL is no setting of the program.
            let part = format!("$({name})");
            let is_part = environment.values().any(|value| value.contains(&part));
            ensure!(is_part || help.known.contains(name), "{command:?} knows no {name}");
        }
        programs.insert(command[0].to_owned());
    }
    let all = PORTS.map(|(name, _)| name);
    let all = all.into_iter().chain(["ordersaga-kafka", "ordersaga-retention"]);
    ensure!(programs == all.map(str::to_owned).collect(), "{programs:?}");
    Ok(())
}

#[test]
fn services_listen_and_stop_as_kubernetes_expects() -> Result<()> {
    let base = Base::read()?;
    for (name, port) in PORTS {
        let pod = &base.named("Deployment", name)?["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let environment = base.environment(container)?;
        ensure!(environment["HTTP_LISTEN"] == format!("0.0.0.0:{port}"), "{name}");
        ensure!(container["ports"][0]["containerPort"] == port, "{name}");
        ensure!(base.named("Service", name)?["spec"]["ports"][0]["port"] == port, "{name}");
        for (probe, path) in [
            ("startupProbe", "/ready"),
            ("readinessProbe", "/health"),
            ("livenessProbe", "/health"),
        ] {
            let get = &container[probe]["httpGet"];
            ensure!(get["path"] == path && get["port"] == "admin", "{name}: {probe} {get}");
        }
        let admin = &container["ports"][1];
        ensure!(admin["name"] == "admin", "{name}: {admin}");
        let port = &admin["containerPort"];
        ensure!(environment["ADMIN_LISTEN"] == format!("0.0.0.0:{port}"), "{name}: {port}");
        // As other pods call it, and clients of the gateway.
        let hosts: Vec<_> = environment["HTTP_HOSTS"].split(',').collect();
        let inside = format!("{name}.ordersaga.svc");
        ensure!([name, &inside, "ordersaga.example"].iter().all(|host| hosts.contains(host)));
        let seconds = |value: &Value| value.as_u64().with_context(|| format!("{name}: {value}"));
        let pause = seconds(&container["lifecycle"]["preStop"]["sleep"]["seconds"])?;
        let stop: u64 = environment["SHUTDOWN_TIMEOUT_SECONDS"].parse()?;
        let grace = seconds(&pod["terminationGracePeriodSeconds"])?;
        ensure!(grace >= pause + stop + 5, "{name}: {grace} s are short");
    }
    let image = &base.kustomization["images"][0];
    ensure!(image["name"] == IMAGE && image["newTag"] == env!("CARGO_PKG_VERSION"), "{image}");
    Ok(())
}

/// Every `(name, key)` of a Secret that a value refers to, at any depth; without a key, `*`.
fn references(value: &Value, found: &mut BTreeSet<(String, String)>) {
    let mut add = |name: &Value, key: &str| {
        if let Some(name) = name.as_str() {
            found.insert((name.to_owned(), key.to_owned()));
        }
    };
    for (kind, reference) in value.as_object().into_iter().flatten() {
        match kind.as_str() {
            "secretKeyRef" => add(&reference["name"], text(&reference["key"])),
            "passwordSecret" => add(&reference["name"], "password"),
            "secretRef" => add(reference, "*"),
            "secret" => {
                let name = if reference["secretName"].is_string() { "secretName" } else { "name" };
                let items = list(&reference["items"]);
                for item in items {
                    add(&reference[name], text(&item["key"]));
                }
                if items.is_empty() {
                    add(&reference[name], "password");
                }
            }
            _ => {}
        }
    }
    match value {
        Value::Object(fields) => fields.values().for_each(|field| references(field, found)),
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// The rows of README.md that name Secrets: a name and its keys.
fn documented() -> Result<BTreeMap<String, Names>> {
    let readme = file("deploy/kubernetes/README.md")?;
    let (_, section) = readme.split_once("## Secrets").context("no section of Secrets")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let quoted = |cell: &str| -> Vec<String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let mut secrets = BTreeMap::new();
    for row in rows {
        let cells: Vec<_> = row.split('|').collect();
        for name in quoted(cells[1]) {
            secrets.insert(name, quoted(cells[2]).into_iter().collect());
        }
    }
    Ok(secrets)
}

#[test]
fn every_secret_is_documented_and_made() -> Result<()> {
    let base = Base::read()?;
    let documented = documented()?;
    let mut found = BTreeSet::new();
    base.objects.iter().for_each(|object| references(object, &mut found));
    ensure!(found.len() > 20, "{found:?}");
    for (name, key) in &found {
        let keys = documented.get(name).with_context(|| format!("{name} is not documented"))?;
        ensure!(key == "*" || keys.contains(key), "{name} has no documented key {key}");
    }
    let script =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/deploy/kubernetes/make-secrets");
    let output = Command::new("bash").arg(script).output()?;
    ensure!(output.status.success(), "{output:?}");
    let made: BTreeMap<_, _> = yaml(&String::from_utf8(output.stdout)?)?
        .into_iter()
        .map(|secret| {
            let keys = secret["stringData"].as_object().into_iter().flatten();
            let keys: Names = keys.map(|(key, _)| key.clone()).collect();
            (text(&secret["metadata"]["name"]).to_owned(), keys)
        })
        .collect();
    for (name, keys) in &documented {
        // These are made by operators.
        let by_others = name.ends_with("-ca") || name == "redpanda-default-cert";
        ensure!(by_others != (made.get(name) == Some(keys)), "{name} {keys:?}");
    }
    ensure!(made.keys().all(|name| documented.contains_key(name)), "{made:?}");
    Ok(())
}

#[test]
fn only_what_migrates_or_removes_has_an_owners_password() -> Result<()> {
    let base = Base::read()?;
    let mut migrations = 0;
    for container in base.containers() {
        let mut secrets = BTreeSet::new();
        references(container, &mut secrets);
        let is_owner = secrets.iter().any(|(name, _)| name.ends_with("-owner"));
        let migrates = container["name"] == "migrate";
        ensure!(is_owner == (migrates || container["name"] == "retention"), "{container}");
        migrations += usize::from(migrates);
    }
    ensure!(migrations == PORTS.len(), "{migrations} migrations");
    Ok(())
}

#[test]
fn urls_name_databases_and_roles_that_exist() -> Result<()> {
    let base = Base::read()?;
    let mut seen = 0;
    for container in base.containers() {
        for (name, value) in base.environment(container)? {
            for url in value.split("postgres://").skip(1) {
                let (login, place) = url.split_once('@').with_context(|| name.clone())?;
                let (host, rest) = place.split_once("-rw:5432/").with_context(|| name.clone())?;
                let database = rest.split('?').next().unwrap_or_default();
                let role = login.split(':').next().unwrap_or_default();
                let spec = &base.named("Cluster", host)?["spec"];
                let init = &spec["bootstrap"]["initdb"];
                let managed = &spec["managed"]["roles"][0]["name"];
                ensure!(init["database"] == database, "{name}: {host} has no {database}");
                ensure!(init["owner"] == role || managed == role, "{name}: {host} has no {role}");
                seen += 1;
            }
        }
    }
    ensure!(seen == 14, "{seen} URLs");
    Ok(())
}

#[test]
fn autoscalers_ask_for_metrics_that_are_exported() -> Result<()> {
    let base = Base::read()?;
    let operations = file("operations.md")?;
    let mut scaled = Names::new();
    for scaler in base.of_kind("ScaledObject") {
        let spec = &scaler["spec"];
        let name = text(&spec["scaleTargetRef"]["name"]);
        base.named("Deployment", name)?;
        let most = spec["maxReplicaCount"].as_u64();
        ensure!(most.is_some_and(|most| most <= u64::from(PARTITIONS)), "{name}: {most:?}");
        let mut metrics = Names::new();
        for trigger in list(&spec["triggers"]).iter().filter(|t| t["type"] == "prometheus") {
            let query = text(&trigger["metadata"]["query"]);
            let metric = query.strip_prefix("sum(").and_then(|query| query.split_once('{'));
            let (metric, labels) = metric.with_context(|| format!("{name}: {query}"))?;
            ensure!(labels.contains(&format!(r#"job="{name}""#)), "{name}: {query}");
            ensure!(operations.contains(&format!("`{metric}")), "{metric} is not documented");
            let literal = format!(r#""{metric}""#);
            ensure!(REGISTERED.iter().any(|s| s.contains(&literal)), "{metric} is not exported");
            metrics.insert(metric.to_owned());
        }
        ensure!(metrics.contains("consumer_lag_records"), "{name}: {metrics:?}");
        scaled.insert(name.to_owned());
    }
    ensure!(scaled == PORTS.map(|(name, _)| name.to_owned()).into(), "{scaled:?}");
    Ok(())
}

fn redpanda(base: &Base) -> Result<&Value> {
    Ok(&base.named("Redpanda", "redpanda")?["spec"]["clusterSpec"])
}

/// What runs on a machine is what runs in a cluster.
#[test]
fn redpanda_has_one_version() -> Result<()> {
    let base = Base::read()?;
    let compose = yaml(&file("../docker-compose.yml")?)?.remove(0);
    let services = compose["services"].as_object().context("no services")?;
    let images = services.values().map(|service| text(&service["image"]));
    let tags: Names = images
        .filter_map(|image| image.split_once("/redpandadata/redpanda:"))
        .map(|(_, tag)| tag.to_owned())
        .collect();
    let tag = text(&redpanda(&base)?["image"]["tag"]).to_owned();
    ensure!(tags == Names::from([tag.clone()]), "compose: {tags:?}, Kubernetes: {tag}");
    let number = tag.trim_start_matches('v');
    ensure!(file("containers.md")?.contains(&format!("Redpanda {number} ")), "docs/containers.md");
    Ok(())
}

/// Otherwise a pod that reaches the admin API could make itself a superuser.
#[test]
fn every_way_into_redpanda_asks_who_comes() -> Result<()> {
    let base = Base::read()?;
    let spec = redpanda(&base)?;
    ensure!(spec["config"]["cluster"]["admin_api_require_auth"] == true, "{}", spec["config"]);
    ensure!(spec["auth"]["sasl"]["enabled"] == true && spec["tls"]["enabled"] == true, "{spec}");
    let listeners = &spec["listeners"];
    ensure!(listeners["kafka"]["authenticationMethod"] == "sasl", "{listeners}");
    ensure!(listeners["schemaRegistry"]["authenticationMethod"] == "http_basic", "{listeners}");
    Ok(())
}

/// The ports that a policy opens between our pods: from whom, to whom, where.
fn opened(base: &Base) -> BTreeSet<(String, String, u64)> {
    let name =
        |selector: &Value| text(&selector["matchLabels"]["app.kubernetes.io/name"]).to_owned();
    let mut opened = BTreeSet::new();
    for policy in base.of_kind("NetworkPolicy") {
        let own = name(&policy["spec"]["podSelector"]);
        for rule in list(&policy["spec"]["ingress"]) {
            for peer in list(&rule["from"]) {
                for port in list(&rule["ports"]).iter().filter_map(|port| port["port"].as_u64()) {
                    opened.insert((name(&peer["podSelector"]), own.clone(), port));
                }
            }
        }
    }
    opened
}

#[test]
fn the_topics_job_reaches_the_broker_and_its_registry_and_alone_the_registry() -> Result<()> {
    let base = Base::read()?;
    let pod = &base.named("Job", "ordersaga-topics")?["spec"]["template"]["spec"];
    let environment = base.environment(&pod["containers"][0])?;
    let port = |variable: &str| -> Result<u64> {
        let value = environment.get(variable).with_context(|| format!("no {variable}"))?;
        Ok(value.rsplit(':').next().unwrap_or_default().parse()?)
    };
    ensure!(environment["SCHEMA_REGISTRY_URL"].starts_with("https://redpanda."));
    ensure!(environment["SCHEMA_REGISTRY_CA_FILE"] == environment["KAFKA_CA_FILE"]);
    let (kafka, registry) = (port("KAFKA_BROKERS")?, port("SCHEMA_REGISTRY_URL")?);
    let policy = base.named("NetworkPolicy", "ordersaga-topics")?;
    let ports = list(&policy["spec"]["egress"][0]["ports"]);
    let ports: BTreeSet<_> = ports.iter().filter_map(|port| port["port"].as_u64()).collect();
    ensure!(ports == BTreeSet::from([kafka, registry]), "{ports:?}");
    let opened = opened(&base);
    let job = ("ordersaga-topics".to_owned(), "redpanda".to_owned(), kafka);
    ensure!(opened.contains(&job), "{opened:?}");
    let of_registry = opened.iter().filter(|(_, to, port)| to == "redpanda" && *port == registry);
    let of_registry: Vec<_> = of_registry.map(|(from, ..)| from.as_str()).collect();
    ensure!(of_registry == ["ordersaga-topics"], "{of_registry:?}");
    Ok(())
}
