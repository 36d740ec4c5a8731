//! The rule BACKWARD without a registry: what a released version wrote, this version's schemas
//! accept.
//!
//! A registry's own comparison is not enough. Redpanda's, for one, lets a new required field pass:
//! it looks only at fields that both schemas have.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use jsoncompat::{Role, SchemaDocument, check_compat, explain_compat_failure};
use ordersaga_contract::schema;
use serde_json::{Value, json};

/// Fails with the first reason why a reader by `new` may refuse what a writer by `old` wrote.
fn backward(old: &Value, new: &Value) -> Result<()> {
    let (old, new) = (SchemaDocument::from_json(old)?, SchemaDocument::from_json(new)?);
    if check_compat(&old, &new, Role::Deserializer)? {
        return Ok(());
    }
    let reason = explain_compat_failure(&old, &new, Role::Deserializer)?;
    Err(anyhow!(reason.unwrap_or_else(|| "no proof that it is compatible".to_owned())))
}

fn read(file: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Ok(serde_json::from_str(&text)?)
}

#[test]
fn this_version_reads_what_released_versions_wrote() -> Result<()> {
    let released = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../redpanda/schemas/released");
    let mut compared = 0;
    for version in std::fs::read_dir(&released)? {
        let version = version?.path();
        for event in schema::all() {
            let file = version.join(format!("{}.json", event.name));
            // A type of event that is younger than that version.
            if !file.exists() {
                continue;
            }
            backward(&read(&file)?, &event.schema)
                .with_context(|| format!("{} breaks readers of {}", event.name, file.display()))?;
            compared += 1;
        }
    }
    ensure!(compared >= 4, "only {compared} schemas compared");
    Ok(())
}

#[test]
fn no_type_of_event_of_a_released_version_is_gone() -> Result<()> {
    let released = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../redpanda/schemas/released");
    let names: Vec<_> = schema::all().iter().map(|event| format!("{}.json", event.name)).collect();
    for version in std::fs::read_dir(&released)? {
        for file in std::fs::read_dir(version?.path())? {
            let name = file?.file_name().to_string_lossy().into_owned();
            ensure!(names.contains(&name), "{name} is no event any more");
        }
    }
    Ok(())
}

/// The schema of a reset, changed.
fn changed(change: impl FnOnce(&mut Value)) -> (Value, Value) {
    let all = schema::all();
    let reset = all.into_iter().find(|event| event.name == "OrderReset").expect("it is an event");
    let mut new = reset.schema.clone();
    change(&mut new);
    (reset.schema, new)
}

#[test]
fn what_would_break_readers_is_found() {
    type Change = fn(&mut Value);
    let breaking: [(&str, Change); 8] = [
        ("a new required field", |schema| {
            schema["properties"]["gift"] = json!({ "type": "boolean" });
            schema["required"].as_array_mut().unwrap().push("gift".into());
        }),
        ("a removed field", |schema| {
            schema["properties"].as_object_mut().unwrap().remove("quantity");
        }),
        ("another type", |schema| {
            schema["properties"]["order_id"] = json!({ "type": "string" });
        }),
        ("a lower limit", |schema| schema["properties"]["quantity"]["maximum"] = json!(999)),
        ("a higher limit", |schema| schema["properties"]["quantity"]["minimum"] = json!(2)),
        ("a new limit", |schema| schema["properties"]["item_id"]["maximum"] = json!(1_000_000)),
        ("a removed value", |schema| {
            schema["properties"]["reason"]["enum"].as_array_mut().unwrap().pop();
        }),
        ("another version", |schema| schema["properties"]["version"]["enum"] = json!([2])),
    ];
    for (what, change) in breaking {
        let (old, new) = changed(change);
        let error = backward(&old, &new).expect_err(what).to_string();
        assert!(!error.is_empty(), "{what}");
    }
}

#[test]
fn an_optional_field_can_neither_go_nor_become_required() {
    let (without, with) = changed(|schema| {
        schema["properties"]["gift"] = json!({ "type": "boolean" });
    });
    assert!(backward(&with, &without).is_err());
    let mut required = with.clone();
    required["required"].as_array_mut().unwrap().push("gift".into());
    assert!(backward(&with, &required).is_err());
}

#[test]
fn what_breaks_no_reader_passes() -> Result<()> {
    type Change = fn(&mut Value);
    let harmless: [(&str, Change); 5] = [
        ("a new optional field", |schema| {
            schema["properties"]["gift"] = json!({ "type": "boolean" });
        }),
        ("a field that became optional", |schema| {
            schema["required"].as_array_mut().unwrap().retain(|field| field != "quantity");
        }),
        ("a wider limit", |schema| schema["properties"]["quantity"]["maximum"] = json!(2_000)),
        ("a new value", |schema| {
            schema["properties"]["reason"]["enum"].as_array_mut().unwrap().push("FRAUD".into());
        }),
        ("another description", |schema| schema["description"] = json!("Over.")),
    ];
    for (what, change) in harmless {
        let (old, new) = changed(change);
        backward(&old, &new).context(what)?;
    }
    Ok(())
}
