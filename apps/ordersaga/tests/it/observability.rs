//! What dashboards and alerts name exists: metrics and labels in what the services export, foreign
//! ones in a list with the page that documents them, entries in the runbook, targets in the compose
//! file. Every `PromQL` expression is parsed on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Error, Result, bail, ensure};
use ordersaga_devstack::Service;
use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::bed::{Bed, saga, until};
use crate::client::order_for;

const FOLDER: &str = "docs/deploy/observability";
/// What Prometheus adds to every series it scrapes.
const SCRAPED: [&str; 2] = ["job", "instance"];

fn text(path: &str) -> Result<String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join(path)).with_context(|| path.to_owned())
}

fn yaml<T: DeserializeOwned>(path: &str) -> Result<T> {
    serde_saphyr::from_str(&text(path)?).with_context(|| path.to_owned())
}

#[derive(Deserialize)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    record: Option<String>,
    alert: Option<String>,
    expr: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

fn rules() -> Result<Vec<Rule>> {
    let file: RuleFile = yaml(&format!("{FOLDER}/alerts.yml"))?;
    Ok(file.groups.into_iter().flat_map(|group| group.rules).collect())
}

fn dashboards() -> Result<BTreeMap<String, Value>> {
    let folder = format!("{FOLDER}/grafana/dashboards");
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(&folder);
    let mut boards = BTreeMap::new();
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let board = serde_json::from_str(&text(&format!("{folder}/{name}"))?);
        boards.insert(name.clone(), board.context(name)?);
    }
    ensure!(!boards.is_empty(), "no dashboards");
    Ok(boards)
}

/// Every value under a key, at any depth.
fn all<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key));
            fields.values().for_each(|value| all(value, key, found));
        }
        Value::Array(items) => items.iter().for_each(|item| all(item, key, found)),
        _ => {}
    }
}

/// The expressions of all dashboards and rules, with where they stand.
fn expressions() -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for (name, board) in dashboards()? {
        let mut expressions = Vec::new();
        all(&board, "expr", &mut expressions);
        for expression in expressions {
            found.push((name.clone(), expression.as_str().context("no text")?.to_owned()));
        }
        let variables = board["templating"]["list"].as_array().into_iter().flatten();
        let queries = variables.filter_map(|variable| variable["definition"].as_str());
        for query in queries {
            let selector = query.strip_prefix("label_values(").and_then(|q| q.rsplit_once(", "));
            found.push((name.clone(), selector.context("no label_values")?.0.to_owned()));
        }
    }
    for rule in rules()? {
        let name = rule.alert.or(rule.record).context("a rule without a name")?;
        found.push((name, rule.expr));
    }
    Ok(found)
}

/// What Grafana fills in.
fn filled_in(expression: &str) -> String {
    expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
}

#[derive(Default)]
struct Named {
    selectors: Vec<VectorSelector>,
    /// The labels of each `by (…)`, with the selectors below it.
    grouped: Vec<(Vec<String>, Vec<VectorSelector>)>,
}

impl ExprVisitor for Named {
    type Error = Infallible;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Infallible> {
        match expression {
            Expr::VectorSelector(selector) => self.selectors.push(selector.clone()),
            Expr::MatrixSelector(matrix) => self.selectors.push(matrix.vs.clone()),
            Expr::Aggregate(aggregate) => {
                if let Some(LabelModifier::Include(labels)) = &aggregate.modifier {
                    let mut below = Named::default();
                    let Ok(_) = walk_expr(&mut below, &aggregate.expr);
                    self.grouped.push((labels.labels.clone(), below.selectors));
                }
            }
            _ => {}
        }
        Ok(true)
    }
}

fn named(expression: &str) -> Result<Named> {
    let expression = filled_in(expression);
    let parsed = parser::parse(&expression).map_err(Error::msg).context(expression)?;
    let mut named = Named::default();
    let Ok(_) = walk_expr(&mut named, &parsed);
    Ok(named)
}

type Labels = BTreeMap<String, String>;

/// What is exported, by whom; what else may be named.
struct Known {
    series: BTreeMap<String, Vec<Labels>>,
    recorded: BTreeSet<String>,
    foreign: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Deserialize)]
struct Foreign {
    source: Vec<Source>,
}

#[derive(Deserialize)]
struct Source {
    page: String,
    checked: String,
    metrics: BTreeMap<String, BTreeSet<String>>,
}

fn foreign() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let list: Foreign = toml::from_str(&text(&format!("{FOLDER}/foreign-metrics.toml"))?)?;
    for source in &list.source {
        ensure!(source.page.starts_with("https://"), "{}", source.page);
        ensure!(["run", "page"].contains(&source.checked.as_str()), "{}", source.checked);
    }
    Ok(list.source.into_iter().flat_map(|source| source.metrics).collect())
}

impl Known {
    async fn of(bed: &Bed) -> Result<Self> {
        let mut series: BTreeMap<String, Vec<Labels>> = BTreeMap::new();
        for service in Service::ALL {
            for line in bed.get(service, "/metrics").await?.text.lines() {
                let Some((written, _)) = line.rsplit_once(' ') else { continue };
                if line.starts_with('#') {
                    continue;
                }
                // A series is written as a selector of itself.
                let mut selector = named(written)?.selectors.remove(0);
                let name = selector.name.take().context("a series without a name")?;
                let labels = selector.matchers.matchers.into_iter().map(|m| (m.name, m.value));
                let scraped = [("job", service.name()), ("instance", "here")]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()));
                series.entry(name).or_default().push(labels.chain(scraped).collect());
            }
        }
        let recorded = rules()?.into_iter().filter_map(|rule| rule.record).collect();
        Ok(Self { series, recorded, foreign: foreign()? })
    }

    /// The labels that a metric's series may have.
    fn labels(&self, name: &str) -> Result<BTreeSet<String>> {
        let scraped = SCRAPED.map(str::to_owned);
        if let Some(series) = self.series.get(name) {
            return Ok(series.iter().flat_map(|labels| labels.keys().cloned()).collect());
        }
        if self.recorded.contains(name) {
            // level:metric:operations; the level names the labels.
            let level = name.split(':').next().unwrap_or_default();
            return Ok(level.split('_').map(str::to_owned).collect());
        }
        if let Some(labels) = self.foreign.get(name) {
            return Ok(labels.iter().cloned().chain(scraped).collect());
        }
        bail!("{name} is neither exported nor recorded nor in foreign-metrics.toml");
    }

    /// The metric exists with the labels that the selector asks for, and, if it is ours, with
    /// their values. (No request of this test is answered by 5xx.)
    fn check(&self, selector: &VectorSelector) -> Result<()> {
        let name = selector.name.as_deref().context("a selector without a name")?;
        let labels = self.labels(name)?;
        let wanted = &selector.matchers.matchers;
        for matcher in wanted {
            ensure!(labels.contains(&matcher.name), "{name} has no label {}", matcher.name);
        }
        if let Some(series) = self.series.get(name) {
            let matching = series.iter().any(|labels| {
                wanted.iter().filter(|matcher| matcher.name != "status").all(|matcher| {
                    matcher.is_match(labels.get(&matcher.name).map_or("", String::as_str))
                })
            });
            ensure!(matching, "no series of {name} is as asked for: {selector}");
        }
        Ok(())
    }
}

/// An order that is reserved, one that is cancelled, one that the store refuses, and somebody who
/// looks at the item and at the status.
async fn use_everything(bed: &Bed) -> Result<()> {
    let item = bed.add_item(1).await?;
    let order = bed.place(&order_for(item)).await?;
    bed.reaches(order, "SHIPPING").await?;
    let refused = bed.place(&json!({"item_id": item, "seller_id": 2, "client_id": 1})).await?;
    bed.reaches(refused, "CANCELLED").await?;
    bed.item(item).await?;
    bed.cancel(order).await?;
    bed.reaches(order, "CANCELLED").await?;
    // The lag is told once a second, by librdkafka's statistics.
    for service in Service::ALL {
        until("the lag is known", async || {
            Ok(bed.get(service, "/metrics").await?.text.contains("\nconsumer_lag_records{"))
        })
        .await?;
    }
    Ok(())
}

#[test]
fn dashboards_and_rules_name_only_what_is_exported() -> Result<()> {
    saga(async |bed| {
        use_everything(bed).await?;
        let known = Known::of(bed).await?;
        for (place, expression) in expressions()? {
            let context = || format!("{place}: {expression}");
            let named = named(&expression).with_context(context)?;
            for selector in &named.selectors {
                known.check(selector).with_context(context)?;
            }
            for (labels, below) in named.grouped {
                let mut had = BTreeSet::from(["le".to_owned()]);
                for selector in below {
                    had.extend(known.labels(selector.name.as_deref().unwrap_or_default())?);
                }
                for label in labels {
                    ensure!(had.contains(&label), "nothing has the label {label}: {}", context());
                }
            }
        }
        Ok(())
    })
}

#[test]
fn every_metric_of_ours_is_documented() -> Result<()> {
    saga(async |bed| {
        use_everything(bed).await?;
        let page = text("docs/operations.md")?;
        for service in Service::ALL {
            let metrics = bed.get(service, "/metrics").await?.text;
            let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
            for name in types.filter_map(|line| line.split(' ').next()) {
                let written =
                    page.contains(&format!("`{name}`")) || page.contains(&format!("`{name}{{"));
                ensure!(name.starts_with("process_") || written, "operations.md lacks {name}");
            }
        }
        Ok(())
    })
}

/// The name of a heading as browsers link to it.
fn anchor(heading: &str) -> String {
    heading.to_lowercase().replace(' ', "-")
}

fn headings(level: &str) -> Result<BTreeSet<String>> {
    let page = text("docs/runbook.md")?;
    let headings = page.lines().filter_map(|line| line.strip_prefix(level));
    Ok(headings.map(str::to_owned).collect())
}

#[test]
fn every_alert_has_an_entry_in_the_runbook_and_every_entry_an_alert() -> Result<()> {
    let mut alerts = BTreeSet::new();
    for rule in rules()? {
        let Some(alert) = rule.alert else { continue };
        let severity = rule.labels.get("severity").map(String::as_str);
        ensure!(matches!(severity, Some("critical" | "warning")), "{alert}: {severity:?}");
        for annotation in ["summary", "description"] {
            ensure!(rule.annotations.contains_key(annotation), "{alert} has no {annotation}");
        }
        let entry = format!("{{{{ $externalURL }}}}/user/runbook.md#{}", anchor(&alert));
        ensure!(rule.annotations.get("runbook_url") == Some(&entry), "{alert}: runbook_url");
        ensure!(alerts.insert(alert.clone()), "{alert} twice");
    }
    ensure!(alerts == headings("### ")?, "the alerts are not the entries of the runbook");
    Ok(())
}

#[test]
fn links_in_the_runbook_and_to_it_lead_somewhere() -> Result<()> {
    let anchors: BTreeSet<_> = headings("### ")?.iter().map(|heading| anchor(heading)).collect();
    let mut links = Vec::new();
    for (name, board) in dashboards()? {
        let mut urls = Vec::new();
        all(&board, "url", &mut urls);
        let urls = urls.into_iter().filter_map(Value::as_str);
        let urls = urls.filter_map(|url| url.split_once("/user/runbook.md#"));
        links.extend(urls.map(|(_, anchor)| (name.clone(), anchor.to_owned())));
    }
    let page = text("docs/runbook.md")?;
    for link in page.split("](#").skip(1) {
        let link = link.split(')').next().unwrap_or_default();
        links.push(("runbook.md".to_owned(), link.to_owned()));
    }
    for (place, link) in links {
        // The table of alerts fills in the name.
        ensure!(link == "${__value.text}" || anchors.contains(&link), "{place}: {link}");
    }
    Ok(())
}

#[test]
fn dashboards_fit_what_provisions_them() -> Result<()> {
    let sources: Value =
        yaml(&format!("{FOLDER}/grafana/provisioning/datasources/datasources.yml"))?;
    let provider: Value =
        yaml(&format!("{FOLDER}/grafana/provisioning/dashboards/dashboards.yml"))?;
    let compose = text("docker-compose.yml")?;
    let path = provider["providers"][0]["options"]["path"].as_str().context("no path")?;
    ensure!(compose.contains(&format!("/grafana/dashboards:{path}:ro")), "{path} is not mounted");
    let mut source_uids = Vec::new();
    all(&sources["datasources"], "uid", &mut source_uids);

    let mut uids = BTreeSet::new();
    let boards = dashboards()?;
    for (name, board) in &boards {
        let uid = board["uid"].as_str().context("no uid")?;
        ensure!(name == &format!("{uid}.json") && uids.insert(uid), "{name}: {uid}");
        let variables = board["templating"]["list"].as_array().context("no variables")?;
        let data = variables.iter().find(|variable| variable["name"] == "datasource");
        let default = &data.context("no data source")?["current"]["value"];
        ensure!(source_uids.contains(&default), "{name}: {default} is not provisioned");
        let mut ids = BTreeSet::new();
        for panel in board["panels"].as_array().context("no panels")? {
            ensure!(ids.insert(panel["id"].as_i64()), "{name}: an id twice");
            if panel["type"] == "row" {
                continue;
            }
            let title = &panel["title"];
            ensure!(
                panel["description"].as_str().is_some_and(|d| !d.is_empty()),
                "{name}: {title}"
            );
            ensure!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{name}: {title}: unit");
            let mut used = Vec::new();
            all(panel, "datasource", &mut used);
            ensure!(!used.is_empty() && used.iter().all(|used| used["uid"] == "${datasource}"));
        }
    }
    for board in boards.values() {
        let links = board["links"].as_array().into_iter().flatten();
        for link in links.filter_map(|link| link["url"].as_str()?.strip_prefix("/d/")) {
            ensure!(uids.contains(link), "no dashboard {link}");
        }
    }
    Ok(())
}

#[test]
fn prometheus_scrapes_what_the_compose_file_runs() -> Result<()> {
    let prometheus: Value = yaml(&format!("{FOLDER}/prometheus.yml"))?;
    let compose: Value = yaml("docker-compose.yml")?;
    let mut targets = Vec::new();
    all(&prometheus["scrape_configs"], "targets", &mut targets);
    let targets = targets.into_iter().filter_map(Value::as_array).flatten();
    let targets: Vec<_> = targets.filter_map(Value::as_str).collect();
    ensure!(targets.len() >= 9, "{targets:?}");
    for target in targets {
        let (host, place) = target.split_once(':').context("no port")?;
        let service = &compose["services"][host];
        ensure!(host == "localhost" || service.is_object(), "no service {host}");
        if let Some((_, database)) = place.split_once('/') {
            ensure!(service["environment"]["POSTGRES_DB"] == database, "{target}");
        }
        if host.starts_with("service-") {
            let listen = &service["environment"]["ADMIN_LISTEN"];
            ensure!(listen == &format!("0.0.0.0:{place}"), "{target}: {listen}");
        }
    }
    Ok(())
}
