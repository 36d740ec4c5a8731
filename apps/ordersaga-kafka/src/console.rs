//! `redpanda/console.yaml`, and the pages of topics that Console shows, against what they speak of.
//! Console itself is not at hand here: its keys are checked by its documentation, which the file
//! names.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ordersaga_contract::schema;
use sagabus::dead_letters::LARGEST;
use serde_json::Value;

const FILE: &str = include_str!("../../../redpanda/console.yaml");

fn file() -> Result<Value> {
    Ok(serde_saphyr::from_str(FILE)?)
}

#[test]
fn has_only_keys_that_console_knows() -> Result<()> {
    let file = file()?;
    let keys: BTreeSet<_> = file.as_object().context("it is a mapping")?.keys().collect();
    let known = ["analytics", "console", "kafka", "redpanda", "schemaRegistry", "serde"];
    assert!(keys.iter().copied().eq(known), "{keys:?}");
    Ok(())
}

#[test]
fn logs_in_as_the_user_that_only_looks_and_has_no_password_in_the_file() -> Result<()> {
    let file = file()?;
    let of_kafka = &file["kafka"]["sasl"];
    let of_registry = &file["schemaRegistry"]["authentication"]["basic"];
    for login in [of_kafka, of_registry] {
        assert_eq!(login["username"].as_str(), Some("console"));
        assert!(login.get("password").is_none());
    }
    assert_eq!(of_kafka["enabled"].as_bool(), Some(true));
    Ok(())
}

#[test]
fn shows_dead_letters_of_any_size() -> Result<()> {
    let most = file()?["serde"]["maxDeserializationPayloadSize"].as_u64();
    assert!(most.is_some_and(|most| most >= LARGEST as u64), "{most:?}");
    Ok(())
}

/// What a page's table says under this heading.
fn row<'a>(page: &'a str, name: &str) -> Result<&'a str> {
    let begin = format!("| {name} | ");
    let row = page.lines().find_map(|line| line.strip_prefix(begin.as_str()));
    row.with_context(|| format!("no row {name}"))
}

fn says(row: &str, word: &str) -> Result<()> {
    ensure!(row.contains(word), "no {word}: {row}");
    Ok(())
}

/// Console shows the page whose name is the topic's.
#[test]
fn each_topic_has_a_page_that_says_what_is_set() -> Result<()> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/topics"));
    let topics: toml::Table = toml::from_str(include_str!("../../../redpanda/topics.toml"))?;
    let access: toml::Table = toml::from_str(include_str!("../../../redpanda/access.toml"))?;
    let topics = topics["topics"].as_table().context("no topics")?;
    let users = access["users"].as_table().context("no users")?;
    let pages = std::fs::read_dir(folder)?.map(|file| Ok(file?.path()));
    let pages = pages.collect::<Result<BTreeSet<_>>>()?;
    let expected = topics.keys().map(|name| folder.join(format!("{name}.md"))).collect();
    ensure!(pages == expected, "{pages:?}");
    for (name, topic) in topics {
        let page = std::fs::read_to_string(folder.join(format!("{name}.md")))?;
        ensure!(page.starts_with(&format!("# {name}\n")), "{name}");
        says(row(&page, "partitions")?, &topic["partitions"].to_string())?;
        let kept = topic["config"]["retention.ms"].as_integer().context("no retention")?;
        says(row(&page, "kept")?, &format!("{} days", kept / 86_400_000))?;
        for event in schema::all().iter().filter(|event| event.topic.to_string() == *name) {
            let events = row(&page, "events")?;
            says(events, &format!("(../../redpanda/schemas/{}.json)", event.name))?;
            says(events, &format!("`{name}-{}`", event.name))?;
        }
        for (right, heading) in [("write", "written by"), ("read", "read by")] {
            let has = |user: &toml::Value| {
                let topics = user.get(right).and_then(toml::Value::as_array);
                topics.is_some_and(|topics| topics.iter().any(|topic| topic.as_str() == Some(name)))
            };
            let services = users.iter().filter(|(user, _)| user.starts_with("service-"));
            for (service, user) in services {
                let row = row(&page, heading)?;
                let is_said = row.contains(service.as_str()) || row.contains("three services");
                ensure!(is_said == has(user), "{name}, {service}: {row}");
            }
        }
    }
    Ok(())
}

/// Console takes pages from a git repository only, which the compose file makes of that folder.
#[test]
fn topic_pages_come_from_the_compose_file() -> Result<()> {
    let git = &file()?["console"]["topicDocumentation"]["git"];
    assert_eq!(git["enabled"].as_bool(), Some(true));
    assert_eq!(git["repository"]["url"].as_str(), Some("git://topic-pages/topics"));
    Ok(())
}
