//! The committed `OpenAPI` documents: whatever generators of clients, linters and readers need is in
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::{Service, programs};
use serde_json::{Value, json};

use crate::bed::skipped;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openapi")
}

fn documents() -> Result<BTreeMap<Service, Value>> {
    let read = |service: Service| {
        let text = std::fs::read_to_string(folder().join(format!("{service}.json")))?;
        Ok((service, serde_json::from_str(&text)?))
    };
    Service::ALL.into_iter().map(read).collect()
}

/// Every object in a document, with its place.
fn each_object(
    value: &Value,
    place: &str,
    look: &mut impl FnMut(&str, &Value) -> Result<()>,
) -> Result<()> {
    match value {
        Value::Object(fields) => {
            look(place, value)?;
            fields
                .iter()
                .try_for_each(|(name, value)| each_object(value, &format!("{place}/{name}"), look))
        }
        Value::Array(values) => values
            .iter()
            .enumerate()
            .try_for_each(|(at, value)| each_object(value, &format!("{place}/{at}"), look)),
        _ => Ok(()),
    }
}

/// What a reference stands for.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> Result<&'a Value> {
    match value.get("$ref").and_then(Value::as_str) {
        None => Ok(value),
        Some(reference) => {
            let pointer = reference.strip_prefix('#').context("a reference to elsewhere")?;
            document.pointer(pointer).with_context(|| format!("nothing is at {reference}"))
        }
    }
}

fn operations(document: &Value) -> impl Iterator<Item = &Value> {
    let paths = document["paths"].as_object().into_iter().flat_map(|paths| paths.values());
    paths.filter_map(Value::as_object).flat_map(|methods| methods.values())
}

#[test]
fn everything_is_described() -> Result<()> {
    for (service, document) in documents()? {
        each_object(&document, "", &mut |place, object| {
            let is_described = |value: &Value| {
                value.get("$ref").is_some()
                    || value["description"].as_str().is_some_and(|text| !text.is_empty())
            };
            let field = object["properties"].as_object().filter(|_| object["type"] == "object");
            for (name, field) in field.into_iter().flatten() {
                ensure!(is_described(field), "{service}: {place}: {name}");
            }
            if object.get("schema").is_some() && object.get("in").is_some() {
                ensure!(is_described(object), "{service}: {place}");
            }
            Ok(())
        })?;
        for operation in operations(&document) {
            let id = operation["operationId"].as_str().context("no operationId")?;
            for what in ["summary", "description"] {
                ensure!(
                    operation[what].as_str().is_some_and(|text| !text.is_empty()),
                    "{id}: no {what}"
                );
            }
            for (status, answer) in operation["responses"].as_object().context("no answers")? {
                let answer = resolved(&document, answer)?;
                ensure!(answer["headers"].get("X-Request-Id").is_some(), "{id}: {status}");
            }
        }
    }
    Ok(())
}

/// What some generator stumbles over.
#[test]
fn no_generator_stumbles() -> Result<()> {
    let mut constants = BTreeMap::new();
    for (service, document) in documents()? {
        ensure!(
            document["servers"][0]["url"].as_str().is_some_and(|url| url.starts_with("http://"))
        );
        ensure!(document["security"] == json!([{}, {"bearer": []}]), "{service}");
        each_object(&document, "", &mut |place, object| {
            // openapi-python-client drops types with it, oapi-codegen makes each enumeration twice.
            let parts = object.get("allOf").and_then(Value::as_array);
            ensure!(parts.is_none_or(|parts| parts.len() == 1), "{service}: {place}: allOf");
            // openapi-typescript makes such fields required.
            ensure!(object.get("default").is_none(), "{service}: {place}: default");
            for bound in ["minimum", "maximum"] {
                let bound = object.get(bound).filter(|bound| bound.is_number());
                ensure!(bound.is_none_or(Value::is_i64), "{service}: {place}: {bound:?}");
            }
            if let Some(pattern) = object.get("pattern").and_then(Value::as_str) {
                ensure!(!pattern.contains("\\u"), "{service}: {place}: RE2 does not know \\u");
            }
            Ok(())
        })?;
        for (name, schema) in document["components"]["schemas"].as_object().context("no types")? {
            let Some(variants) = schema["enum"].as_array() else { continue };
            let names = schema["x-enum-varnames"].as_array().unwrap_or(variants);
            ensure!(names.len() == variants.len(), "{service}: {name}");
            for constant in names {
                // In Go all are in one scope.
                let other = constants.insert((service, constant.to_string()), name.clone());
                ensure!(other.is_none(), "{service}: {constant} of {name} and {other:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn examples_are_what_they_are_examples_of() -> Result<()> {
    for (service, document) in documents()? {
        let mut count = 0;
        let mut check = |place: &str, schema: &Value, example: &Value| {
            count += 1;
            let mut schema = schema.clone();
            schema["components"] = document["components"].clone();
            let validator = jsonschema::validator_for(&schema)?;
            let wrong: Vec<_> =
                validator.iter_errors(example).map(|error| error.to_string()).collect();
            ensure!(wrong.is_empty(), "{service}: {place}: {wrong:?}");
            Ok(())
        };
        each_object(&document, "", &mut |place, object| {
            if let Some(example) = object.get("example") {
                // A parameter's, or a type's.
                check(place, object.get("schema").unwrap_or(object), example)?;
            }
            let examples = object.get("examples").filter(|_| object.get("schema").is_some());
            for (name, example) in examples.and_then(Value::as_object).into_iter().flatten() {
                let example = &resolved(&document, example)?["value"];
                check(&format!("{place}/{name}"), &object["schema"], example)?;
            }
            Ok(())
        })?;
        ensure!(count > 20, "{service}: {count} examples");
        for operation in operations(&document) {
            let required = operation["parameters"].as_array().into_iter().flatten();
            for parameter in required.filter(|parameter| parameter["required"] == true) {
                ensure!(parameter["schema"].get("example").is_some(), "{service}: {parameter}");
            }
            for (status, answer) in operation["responses"].as_object().context("no answers")? {
                let answer = resolved(&document, answer)?;
                let content =
                    answer["content"].as_object().into_iter().flat_map(|all| all.values());
                for content in content {
                    let has_own = resolved(&document, &content["schema"])?.get("example").is_some();
                    let has_some =
                        content["examples"].as_object().is_some_and(|all| !all.is_empty());
                    ensure!(has_own || has_some, "{service}: no example of {status}");
                }
            }
        }
    }
    Ok(())
}

/// What generated clients have names for, and in which order: oasdiff looks at neither.
fn offers(document: &Value) -> BTreeSet<String> {
    let fields = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let server = &document["servers"][0]["url"];
    let mut offers = BTreeSet::from([format!("the first server is {server}")]);
    for kind in ["schemas", "responses", "headers"] {
        for (name, component) in fields(&document["components"][kind]) {
            let values = items(&component["enum"]);
            for (value, constant) in values.iter().zip(items(&component["x-enum-varnames"])) {
                offers.insert(format!("{name}: {constant} is {value}"));
            }
            offers.insert(format!("{kind}: {name}"));
        }
    }
    for (path, methods) in fields(&document["paths"]) {
        for (method, operation) in fields(&methods) {
            let id = &operation["operationId"];
            offers.insert(format!("{id} is {method} {path} of {}", operation["tags"]));
            for (at, parameter) in items(&operation["parameters"]).iter().enumerate() {
                offers.insert(format!("{id}: parameter {at} is {}", parameter["name"]));
            }
            for (status, answer) in fields(&operation["responses"]) {
                for (link, _) in fields(&answer["links"]) {
                    offers.insert(format!("{id}: {status} links to {link}"));
                }
            }
        }
    }
    offers
}

/// The rest is what openapi/released/check is for.
#[test]
fn the_last_release_has_no_names_that_are_gone() -> Result<()> {
    let released = folder().join("released");
    let accepted = std::fs::read_to_string(released.join("accepted.txt"))?;
    let is_accepted = |offer: &str| {
        accepted.lines().any(|line| {
            line.trim_start().strip_prefix(offer).is_some_and(|reason| reason.starts_with(" - "))
        })
    };
    for (service, document) in documents()? {
        let old = std::fs::read_to_string(released.join(format!("{service}.json")))?;
        let mut gone = offers(&serde_json::from_str(&old)?);
        let kept = offers(&document);
        gone.retain(|offer| !kept.contains(offer) && !is_accepted(offer));
        ensure!(gone.is_empty(), "{service}: {gone:#?}");
    }
    Ok(())
}

/// The clients of the last release still work, by what oasdiff sees.
#[test]
fn clients_of_the_last_release_go_on_working() -> Result<()> {
    const CANNOT_BE_BUILT: Option<i32> = Some(77);
    let check = Command::new(folder().join("released/check")).output()?;
    let said = String::from_utf8_lossy(&check.stdout);
    if check.status.code() == CANNOT_BE_BUILT {
        skipped(said.trim());
        return Ok(());
    }
    ensure!(check.status.success(), "{said}{}", String::from_utf8_lossy(&check.stderr));
    Ok(())
}

#[test]
fn linters_find_nothing() -> Result<()> {
    if programs::find("npm").is_none() {
        skipped("there is no npm to get the linters with (apt-get install npm)");
        return Ok(());
    }
    ordersaga_devstack::run(&mut Command::new(folder().join("lint/run"))).map(drop)
}

/// In the same document, or in another by its usual place.
#[test]
fn links_lead_to_operations() -> Result<()> {
    let documents = documents()?;
    let described_at = |url: &str| {
        let (place, pointer) = url.split_once("/openapi.json#")?;
        let mut all = documents.values();
        all.find(|document| document["servers"][0]["url"] == place)?.pointer(pointer)
    };
    for (service, document) in &documents {
        let ids: Vec<_> = operations(document).map(|it| it["operationId"].clone()).collect();
        each_object(document, "", &mut |place, object| {
            let links = object.get("links").and_then(Value::as_object).into_iter().flatten();
            for (name, link) in links {
                let target = match link["operationRef"].as_str() {
                    None => &link["operationId"],
                    Some(url) => &described_at(url).context("nothing is there")?["operationId"],
                };
                let is_here = link.get("operationRef").is_some() || ids.contains(target);
                ensure!(is_here && target == name, "{service}: {place}: {name}");
            }
            Ok(())
        })?;
    }
    Ok(())
}
