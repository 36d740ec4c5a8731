//! Postman's collection, version 2.1.

use anyhow::Result;
use serde_json::{Value, json};

use super::{Collection, DESCRIPTION, Field, Folder, NAME, Request};

const SCHEMA: &str = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json";

pub(super) fn collection(collection: &Collection) -> Result<Value> {
    let folders = collection.folders.iter().map(folder).collect::<Result<Vec<_>>>()?;
    let variable = |(name, value): (&str, &str)| json!({"key": name, "value": value});
    let variables: Value = collection.variables().map(variable).collect();
    Ok(json!({"info": {"name": NAME, "description": DESCRIPTION, "schema": SCHEMA},
        "item": folders, "variable": variables}))
}

fn folder(folder: &Folder) -> Result<Value> {
    let items = folder.requests.iter().map(item).collect::<Result<Vec<_>>>()?;
    Ok(json!({"name": folder.name, "description": folder.description, "item": items}))
}

fn item(request: &Request) -> Result<Value> {
    let (host, path) = request.url.split_once('/').unwrap_or((&request.url, ""));
    let mut sent = json!({"method": request.method, "description": request.description,
        "header": fields(&request.headers),
        "url": {"raw": format!("{}{}", request.url, request.query_text()), "host": [host],
            "path": path.split('/').collect::<Vec<_>>(), "query": fields(&request.query)}});
    if let Some(text) = request.body()? {
        let options = json!({"raw": {"language": "json"}});
        sent["body"] = json!({"mode": "raw", "raw": text, "options": options});
    }
    let script = json!({"type": "text/javascript",
        "exec": request.script("pm", "collectionVariables")});
    Ok(json!({"name": request.name, "event": [{"listen": "test", "script": script}],
        "request": sent}))
}

fn fields(fields: &[Field]) -> Value {
    let field = |field: &Field| {
        json!({"key": field.name, "value": field.value,
            "disabled": !field.is_sent})
    };
    fields.iter().map(field).collect()
}
