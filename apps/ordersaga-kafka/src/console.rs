//! `redpanda/console.yaml` against what it speaks of. Console itself is not at hand here: its keys are
//! checked by its documentation, which the file names.

use anyhow::{Context, Result};
use ordersaga_runtime::dead_letters::LARGEST;
use serde_json::Value;

const FILE: &str = include_str!("../../../redpanda/console.yaml");

fn file() -> Result<Value> {
    Ok(serde_saphyr::from_str(FILE)?)
}

#[test]
fn has_only_keys_that_console_knows() -> Result<()> {
    let file = file()?;
    let keys: Vec<_> = file.as_object().context("it is a mapping")?.keys().collect();
    assert_eq!(keys, ["analytics", "kafka", "redpanda", "schemaRegistry", "serde"]);
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
