//! Bruno's folder of files, one a request, in its language Bru.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;

use super::{Collection, DESCRIPTION, Field, Folder, NAME, Request, plain, pretty};

pub(super) fn files(collection: &Collection) -> Result<Vec<(PathBuf, String)>> {
    let about = json!({"version": "1", "name": NAME, "type": "collection"});
    let places = lines(collection.places.iter().map(|(name, url)| (name.as_str(), url.as_str())));
    let root = [block("vars:pre-request", &places), block("docs", DESCRIPTION)];
    let mut files =
        vec![("bruno.json".into(), pretty(&about)?), ("collection.bru".into(), root.join("\n"))];
    for (index, folder) in collection.folders.iter().enumerate() {
        files.extend(folder_files(folder, index + 1)?);
    }
    Ok(files.into_iter().map(|(path, text)| (Path::new("bruno").join(path), text)).collect())
}

fn folder_files(folder: &Folder, place: usize) -> Result<Vec<(PathBuf, String)>> {
    let path = PathBuf::from(plain(&folder.name));
    let about = [meta(&folder.name, None, place), block("docs", &folder.description)];
    let mut files = vec![(path.join("folder.bru"), about.join("\n"))];
    for (index, request) in folder.requests.iter().enumerate() {
        let file = format!("{:02}_{}.bru", index + 1, request.operation);
        files.push((path.join(file), text(request, index + 1)?));
    }
    Ok(files)
}

fn text(request: &Request, place: usize) -> Result<String> {
    let body = request.body()?;
    let url = format!("{}{}", request.url, request.query_text());
    let kind = if body.is_some() { "json" } else { "none" };
    let sent = lines([("url", url.as_str()), ("body", kind), ("auth", "none")]);
    let mut blocks = vec![
        meta(&request.name, Some("http"), place),
        block(&request.method.to_lowercase(), &sent),
        block("params:query", &fields(&request.query)),
        block("headers", &fields(&request.headers)),
        block("body:json", &body.unwrap_or_default()),
        block("vars:post-response", &remembered(request)),
        block("assert", &assertions(request)),
        block("docs", &request.description),
    ];
    blocks.retain(|block| !block.is_empty());
    Ok(blocks.join("\n"))
}

fn meta(name: &str, kind: Option<&str>, place: usize) -> String {
    let place = place.to_string();
    let kind = kind.map(|kind| ("type", kind));
    block("meta", &lines([("name", name)].into_iter().chain(kind).chain([("seq", &*place)])))
}

fn remembered(request: &Request) -> String {
    let line = |name: &&str| format!("{name}: res.body.{name}");
    request.remembered.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Bruno's texts stand without quotes.
fn assertions(request: &Request) -> String {
    let status = format!("res.status: eq {}", request.status);
    let line =
        |(name, json): &(String, String)| format!("res.body.{name}: eq {}", json.trim_matches('"'));
    [status].into_iter().chain(request.expected.iter().map(line)).collect::<Vec<_>>().join("\n")
}

fn fields(fields: &[Field]) -> String {
    let line = |field: &Field| {
        let mark = if field.is_sent { "" } else { "~" };
        format!("{mark}{}: {}", field.name, field.value).trim_end().to_owned()
    };
    fields.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn lines<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let line = |(name, value): (&str, &str)| format!("{name}: {value}");
    pairs.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Indented, so that no line of the content ends the block. Nothing, of nothing.
fn block(name: &str, content: &str) -> String {
    let indented = |line: &str| if line.is_empty() { String::new() } else { format!("  {line}") };
    let content: Vec<_> = content.lines().map(indented).collect();
    if content.is_empty() {
        return String::new();
    }
    format!("{name} {{\n{}\n}}\n", content.join("\n"))
}
