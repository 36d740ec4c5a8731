//! The services: whether they live, are ready, and are the ones this tool knows.

use std::collections::BTreeSet;

use ordersaga_devstack::Service;
use serde_json::Value;

use super::finding::{Finding, or_ok};
use super::seen::{Asked, Seen, Surroundings};

/// The documents that this tool was built with.
const DOCUMENTS: [(Service, &str); 3] = [
    (Service::CreateOrder, include_str!("../../../../openapi/service-create-order.json")),
    (Service::Monitoring, include_str!("../../../../openapi/service-monitoring-order.json")),
    (Service::Store, include_str!("../../../../openapi/service-store.json")),
];

/// Each answers.
pub(super) fn health(seen: &Surroundings) -> Vec<Finding> {
    let of_one = |one: &Seen| {
        let mend = if seen.is_elsewhere {
            format!("start {} there, or see its log", one.service)
        } else if seen.running().is_some() {
            format!("ordersaga logs {}", one.service)
        } else {
            "ordersaga up, or name another system by --url".to_owned()
        };
        judge_health(one.service, &one.url, &one.health, &mend)
    };
    let found = seen.services.iter().filter_map(of_one).collect();
    or_ok(found, "all three answer")
}

fn judge_health(service: Service, url: &str, health: &Asked, mend: &str) -> Option<Finding> {
    let what = match health {
        Ok(answer) if answer.status == 200 => return None,
        Ok(answer) if matches!(answer.status, 401 | 403) => {
            let what = format!("{service} at {url} wants a token ({})", answer.status);
            return Some(Finding::unknown(what).mend("export ORDERSAGA_TOKEN=…"));
        }
        Ok(answer) => format!("{service} at {url} answers /health by {}", answer.status),
        Err(error) => format!("{service} does not answer: {error}"),
    };
    Some(Finding::problem(what).mend(mend).runbook("ServiceDown"))
}

/// Each dependency of each, with what it says itself.
pub(super) fn ready(seen: &Surroundings) -> Vec<Finding> {
    let answers = seen.services.iter().filter_map(|one| Some((one, one.ready.as_ref().ok()?)));
    let found: Vec<_> =
        answers.flat_map(|(one, ready)| judge_ready(one.service, &ready.body)).collect();
    if seen.services.iter().all(|one| one.ready.is_err()) {
        return vec![Finding::unknown("no service answers")];
    }
    or_ok(found, "every dependency of those that answer can be used")
}

/// `report` is the body of `/ready`.
fn judge_ready(service: Service, report: &Value) -> Vec<Finding> {
    let Some(dependencies) = report["dependencies"].as_array() else {
        return vec![Finding::unknown(format!("/ready of {service} is not as ordersaga has it"))];
    };
    let down = dependencies.iter().filter(|one| one["ready"] == false);
    down.map(|one| {
        let text = |name: &str| one[name].as_str().unwrap_or_default();
        let (name, detail, since) = (text("name"), text("detail"), text("since"));
        let what = format!("{service} is without {name} since {since}: {detail}");
        let finding =
            if one["required"] == true { Finding::problem(what) } else { Finding::warning(what) };
        let (mend, alert) = remedy(name);
        finding.mend(mend).runbook(alert)
    })
    .collect()
}

/// What brings a dependency back, and its entry of the runbook.
fn remedy(dependency: &str) -> (&'static str, &'static str) {
    match dependency {
        "postgres" => ("start its Postgres, then see: ordersaga status", "PostgresDown"),
        "redis" => ("start Redis, then see: ordersaga status", "CacheDown"),
        "kafka-processing" => ("see why a batch is retried: ordersaga logs", "BatchRetried"),
        "kafka-producer" | "kafka-consumer" => {
            ("start the broker, then see: ordersaga logs broker", "BrokerDown")
        }
        _ => ("start that shard, then see: ordersaga status", "ShardDown"),
    }
}

/// The services serve what this tool knows.
pub(super) fn version(seen: &Surroundings) -> Vec<Finding> {
    let answers = seen.services.iter().filter_map(|one| Some((one, one.document.as_ref().ok()?)));
    let found: Vec<_> = answers
        .filter_map(|(one, answer)| {
            let (_, known) = DOCUMENTS.iter().find(|(service, _)| *service == one.service)?;
            judge_version(one.service, &answer.body, &serde_json::from_str(known).ok()?)
        })
        .collect();
    if seen.services.iter().all(|one| one.document.is_err()) {
        return vec![Finding::unknown("no service answers")];
    }
    or_ok(found, format!("those that answer are of version {}", env!("CARGO_PKG_VERSION")))
}

fn judge_version(service: Service, served: &Value, known: &Value) -> Option<Finding> {
    let version = |document: &Value| document["info"]["version"].as_str().map(str::to_owned);
    let paths = |document: &Value| -> BTreeSet<String> {
        let paths = document["paths"].as_object().into_iter().flatten();
        paths.map(|(path, _)| path.clone()).collect()
    };
    let (served_version, own) = (version(served), version(known).unwrap_or_default());
    let Some(served_version) = served_version else {
        let what = format!("/openapi.json of {service} is not as ordersaga has it");
        return Some(Finding::unknown(what));
    };
    let (served, known) = (paths(served), paths(known));
    let lacks: Vec<_> = known.difference(&served).map(String::as_str).collect();
    let more: Vec<_> = served.difference(&known).map(String::as_str).collect();
    if served_version == own && lacks.is_empty() && more.is_empty() {
        return None;
    }
    let mut what = format!("{service} is of version {served_version}, this tool of {own}");
    for (word, paths) in [("lacks", lacks), ("also has", more)] {
        if !paths.is_empty() {
            what = format!("{what}; it {word} {}", paths.join(", "));
        }
    }
    Some(Finding::warning(what).mend("use tool and services of one version: build both anew"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_required_dependency_that_is_away_is_a_problem_and_an_optional_one_a_warning() {
        let report = json!({"ready": false, "dependencies": [
            {"name": "postgres", "ready": false, "required": true, "detail": "read-only", "since": "T"},
            {"name": "kafka-producer", "ready": true, "required": true, "since": "T"},
            {"name": "redis", "ready": false, "required": false, "detail": "refused", "since": "T"},
        ]});
        let found = judge_ready(Service::Store, &report);
        assert_eq!(
            found.iter().map(|one| one.level).collect::<Vec<_>>(),
            [Level::Problem, Level::Warning]
        );
        assert_eq!(found[0].what, "service-store is without postgres since T: read-only");
        assert_eq!(found[0].runbook, Some("PostgresDown"));
        assert_eq!(judge_ready(Service::Store, &Value::Null)[0].level, Level::Unknown);
    }

    #[test]
    fn a_service_that_does_not_answer_is_a_problem() {
        let silent = Err("no answer at http://x".to_owned());
        let found = judge_health(Service::Store, "http://x", &silent, "ordersaga up").unwrap();
        assert_eq!(found.level, Level::Problem);
        assert_eq!(found.mend.as_deref(), Some("ordersaga up"));
    }

    #[test]
    fn another_version_is_told_with_the_paths_that_differ() {
        let document = |version: &str, paths: &[&str]| {
            let paths: serde_json::Map<_, _> =
                paths.iter().map(|path| ((*path).to_owned(), json!({}))).collect();
            json!({"info": {"version": version}, "paths": paths})
        };
        let known = document("1.0.0", &["/a", "/b"]);
        assert_eq!(judge_version(Service::Store, &known, &known), None);
        let old = judge_version(Service::Store, &document("0.9.0", &["/a", "/c"]), &known).unwrap();
        assert_eq!(
            old.what,
            "service-store is of version 0.9.0, this tool of 1.0.0; it lacks /b; it also has /c"
        );
        let foreign = judge_version(Service::Store, &Value::Null, &known).unwrap();
        assert_eq!(foreign.level, Level::Unknown);
    }

    #[test]
    fn the_documents_of_this_tool_can_be_read() {
        for (service, text) in DOCUMENTS {
            let document: Value = serde_json::from_str(text).unwrap();
            assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"), "{service}");
        }
    }
}
