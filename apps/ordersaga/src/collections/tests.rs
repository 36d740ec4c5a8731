use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use super::files;

/// An id in an example is somebody's.
const SOMEBODYS: u64 = 4242;

/// A service with the operations of the session and two more: one of a list, one with an id in its
/// path.
fn document() -> Value {
    let id = |name: &str| {
        json!({"name": name, "in": "query", "required": true, "example": SOMEBODYS,
            "schema": {"type": "integer"}})
    };
    let wait = json!([id("order_id"),
        {"name": "wait_ms", "in": "query", "example": 7, "schema": {}},
        {"name": "wait_for", "in": "query", "schema": {"$ref": "#/components/schemas/Step"}}]);
    let order = json!({"item_id": SOMEBODYS, "quantity": 3, "idempotency_key": null});
    let made = json!({"order_id": SOMEBODYS});
    let in_path = json!([{"name": "item_id", "in": "path", "required": true, "schema": {}}]);
    json!({
        "info": {"title": "All of it", "description": "One\n}\nservice"},
        "servers": [{"url": "http://127.0.0.1:1"}],
        "paths": {
            "/add": {"post": operation("add_item", &json!([{"name": "Idempotency-Key",
                "in": "header", "schema": {}}]), &json!({"price": 1}), "201",
                &json!({"item_id": SOMEBODYS}))},
            "/create": {"post": operation("create_order", &json!([]), &order, "201", &made)},
            "/many": {"post": operation("create_orders", &json!([id("order_ids")]),
                &json!({"orders": [order], "order_ids": [SOMEBODYS]}), "201",
                &json!({"orders": [made]}))},
            "/status": {"get": operation("get_order_status", &wait, &Value::Null, "200", &made)},
            "/find": {"get": operation("find_item", &json!([id("item_id")]), &Value::Null, "200",
                &json!({}))},
            "/cancel": {"post": operation("cancel_order", &json!([id("order_id")]), &Value::Null,
                "202", &made)},
            "/items/{item_id}": {"parameters": in_path, "delete": operation("remove_item",
                &json!([]), &Value::Null, "204", &Value::Null)},
        },
        "components": {"schemas": {"Step": {"enum": ["SHIPPING"]}}},
    })
}

fn operation(id: &str, parameters: &Value, body: &Value, status: &str, answer: &Value) -> Value {
    let content = |example: &Value| json!({"application/json": {"schema": {"example": example}}});
    let mut operation = json!({"operationId": id, "summary": id, "description": "It does.\n}",
        "parameters": parameters, "responses": {status: {"content": content(answer)}, "404": {}}});
    if !body.is_null() {
        operation["requestBody"] = json!({"content": content(body)});
    }
    operation
}

fn made() -> Vec<(PathBuf, String)> {
    files(&[document()]).unwrap()
}

fn file(path: &str) -> String {
    made().into_iter().find(|(at, _)| at.as_os_str() == path).unwrap().1
}

fn json_file(path: &str) -> Value {
    serde_json::from_str(&file(path)).unwrap()
}

fn error(document: Value) -> String {
    let result: Result<_> = files(&[document]);
    format!("{:#}", result.unwrap_err())
}

#[test]
fn the_session_and_every_operation_are_in_each_collection() {
    let postman = json_file("postman.json");
    let folders = postman["item"].as_array().unwrap();
    let counts: Vec<_> = folders.iter().map(|it| it["item"].as_array().unwrap().len()).collect();
    assert_eq!(counts, [8, 7]);
    let insomnia = json_file("insomnia.json");
    let resources = insomnia["resources"].as_array().unwrap();
    assert_eq!(resources.iter().filter(|it| it["_type"] == "request").count(), 15);
    let requests = made().into_iter().filter(|(_, text)| text.contains("type: http"));
    assert_eq!(requests.count(), 15);
}

#[test]
fn files_and_ids_are_distinct() {
    let paths: Vec<_> = made().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths.iter().collect::<HashSet<_>>().len(), paths.len(), "{paths:?}");
    let insomnia = json_file("insomnia.json");
    let resources = insomnia["resources"].as_array().unwrap();
    let ids: HashSet<_> = resources.iter().map(|it| it["_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), resources.len(), "{ids:?}");
}

#[test]
fn nothing_is_sent_to_what_the_examples_name() {
    for (path, text) in made() {
        assert!(!text.contains(&SOMEBODYS.to_string()), "{}: {text}", path.display());
    }
    let list = file("bruno/all_of_it/03_create_orders.bru");
    assert!(list.contains("\"item_id\": {{item_id}},"), "{list}");
    assert!(list.contains("\"idempotency_key\": \"{{$guid}}\""), "{list}");
    let removal = file("bruno/all_of_it/07_remove_item.bru");
    assert!(removal.contains("url: {{all_of_it}}/items/{{item_id}}\n"), "{removal}");
}

#[test]
fn only_what_a_request_made_is_remembered() {
    let (made, asked) = ("02_create_order.bru", "03_get_order_status.bru");
    assert!(file(&format!("bruno/session/{made}")).contains("order_id: res.body.order_id"));
    assert!(!file(&format!("bruno/session/{asked}")).contains("res.body.order_id"));
    assert!(!file("bruno/session/08_create_order.bru").contains("res.body.order_id"));
}

#[test]
fn variables_are_written_as_each_client_reads_them() {
    let insomnia = json_file("insomnia.json")["resources"].to_string();
    assert!(insomnia.contains("{{ _.all_of_it }}/create") && insomnia.contains("{% uuid 'v4' %}"));
    assert!(!insomnia.contains("{{order_id}}") && !insomnia.contains("$guid"), "{insomnia}");
    let postman = file("postman.json");
    assert!(postman.contains("{{all_of_it}}/status?order_id={{order_id}}&wait_ms=5000"));
    assert!(postman.contains("{{$guid}}"));
}

#[test]
fn an_optional_parameter_without_an_example_is_shown_and_not_sent() {
    let status = file("bruno/all_of_it/04_get_order_status.bru");
    assert!(status.contains("/status?order_id={{order_id}}&wait_ms=7\n"), "{status}");
    assert!(status.contains("\n  ~wait_for: SHIPPING\n"), "{status}");
}

#[test]
fn a_description_does_not_end_a_block_of_bruno() {
    let text = file("bruno/all_of_it/folder.bru");
    assert!(text.ends_with("docs {\n  One\n  }\n  service\n}\n"), "{text}");
}

#[test]
fn what_the_documents_lack_is_named() {
    let mut document = document();
    document["paths"]["/find"]["get"]["parameters"][0] =
        json!({"name": "page", "in": "query", "required": true, "schema": {}});
    assert_eq!(error(document), "get /find: no example of the parameter page");
}

#[test]
fn a_session_that_the_documents_do_not_have_is_refused() {
    let mut without = document();
    without["paths"]["/cancel"] = json!({});
    assert_eq!(error(without), "there is no operation cancel_order");
    let mut other = document();
    let order = other.pointer_mut("/paths/~1create/post/requestBody/content");
    *order.unwrap() = json!({"application/json": {"example": {"amount": 3}}});
    assert_eq!(error(other), "create_order takes no quantity");
}
