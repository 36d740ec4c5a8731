//! Insomnia's export of version 4: old and new Insomnia and its `inso` read it.

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::{Collection, DESCRIPTION, Field, NAME, Request, UNIQUE, plain, variable};

pub(super) fn export(collection: &Collection) -> Result<Value> {
    let (workspace, environment) = (format!("wrk_{NAME}"), format!("env_{NAME}"));
    let variables: Map<_, _> =
        collection.variables().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let mut resources = vec![
        json!({"_id": workspace, "_type": "workspace", "parentId": null, "name": NAME,
            "description": DESCRIPTION, "scope": "collection"}),
        json!({"_id": environment, "_type": "environment", "parentId": workspace,
            "name": "Base Environment", "data": variables}),
    ];
    for folder in &collection.folders {
        let parent = format!("fld_{}", plain(&folder.name));
        // The key is the place in the list: Insomnia shows and runs it in this order.
        resources.push(json!({"_id": parent, "_type": "request_group", "parentId": workspace,
            "name": folder.name, "description": folder.description,
            "metaSortKey": resources.len()}));
        for request in &folder.requests {
            let place = resources.len();
            resources.push(resource(collection, request, &parent, place)?);
        }
    }
    Ok(json!({"_type": "export", "__export_format": 4, "__export_source": NAME,
        "resources": resources}))
}

fn resource(
    collection: &Collection,
    request: &Request,
    parent: &str,
    place: usize,
) -> Result<Value> {
    let fields = |fields: &[Field]| -> Value {
        let field = |field: &Field| {
            json!({"name": field.name, "value": rendered(collection, &field.value),
                "disabled": !field.is_sent})
        };
        fields.iter().map(field).collect()
    };
    let body = match request.body()? {
        Some(text) => {
            json!({"mimeType": "application/json", "text": rendered(collection, &text)})
        }
        None => json!({}),
    };
    Ok(json!({"_id": format!("req_{place:03}_{}", request.operation), "_type": "request",
        "parentId": parent, "name": request.name, "description": request.description,
        "method": request.method, "url": rendered(collection, &request.url),
        "parameters": fields(&request.query), "headers": fields(&request.headers),
        "body": body, "metaSortKey": place,
        "afterResponseScript": request.script("insomnia", "baseEnvironment").join("\n")}))
}

/// With the variables as Insomnia's templates write them.
fn rendered(collection: &Collection, text: &str) -> String {
    let text = text.replace(&variable(UNIQUE), "{% uuid 'v4' %}");
    collection
        .variables()
        .fold(text, |text, (name, _)| text.replace(&variable(name), &format!("{{{{ _.{name} }}}}")))
}
