//! A document's operations, each as a request with the document's own examples.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Field, Folder, IDS, Request, UNIQUE, plain, variable};

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
const JSON: &str = "application/json";
/// A request under a key of the example would be a new request under an old key in the second run.
const KEY: &str = "Idempotency-Key";
/// What these look for is there only when something went wrong.
const ABSENT: [&str; 1] = ["dry_run_replay"];
const KEY_IN_BODY: &str = "idempotency_key";

/// The variable that says where the service is, and its value.
pub(super) fn place(document: &Value) -> Result<(String, String)> {
    let url = document.pointer("/servers/0/url").and_then(Value::as_str);
    Ok((plain(title(document)?), url.context("a document without a server")?.to_owned()))
}

pub(super) fn folder(document: &Value) -> Result<Folder> {
    let name = title(document)?.to_owned();
    let description = document.pointer("/info/description").and_then(Value::as_str);
    let mut requests = Vec::new();
    for (path, item) in document["paths"].as_object().context("a document without paths")? {
        for (method, operation) in item.as_object().into_iter().flatten() {
            if METHODS.contains(&method.as_str()) {
                let parameters = list(&item["parameters"]).chain(list(&operation["parameters"]));
                let request = Reader { document, path, method, operation }.request(parameters);
                requests.push(request.with_context(|| format!("{method} {path}"))?);
            }
        }
    }
    Ok(Folder { name, description: description.unwrap_or_default().to_owned(), requests })
}

struct Reader<'a> {
    document: &'a Value,
    path: &'a str,
    method: &'a str,
    operation: &'a Value,
}

impl<'a> Reader<'a> {
    fn request(&self, parameters: impl Iterator<Item = &'a Value>) -> Result<Request> {
        let (status, remembered) = self.success()?;
        let summary = text(self.operation, "summary")?;
        let operation = text(self.operation, "operationId")?;
        let status = if ABSENT.contains(&operation) { 404 } else { status };
        let mut request = Request {
            operation: operation.to_owned(),
            name: summary.to_owned(),
            description: format!("{summary}.\n\n{}", text(self.operation, "description")?),
            method: self.method.to_uppercase(),
            url: variable(&place(self.document)?.0) + self.path,
            query: Vec::new(),
            headers: Vec::new(),
            body: self.body()?,
            status,
            expected: Vec::new(),
            remembered,
        };
        if request.body.is_some() {
            let (name, value) = ("Content-Type".to_owned(), JSON.to_owned());
            request.headers.push(Field { name, value, is_sent: true });
        }
        for parameter in parameters {
            self.add(&mut request, self.resolved(parameter)?)?;
        }
        Ok(request)
    }

    fn add(&self, request: &mut Request, parameter: &Value) -> Result<()> {
        let field = self.field(parameter)?;
        match text(parameter, "in")? {
            "query" => request.query.push(field),
            "header" => request.headers.push(field),
            "path" => {
                request.url = request.url.replace(&format!("{{{}}}", field.name), &field.value);
            }
            place => bail!("the parameter {} is in the {place}", field.name),
        }
        Ok(())
    }

    /// An optional parameter is sent if the document has an example of it, and shown anyway.
    fn field(&self, parameter: &Value) -> Result<Field> {
        let name = text(parameter, "name")?.to_owned();
        let is_required = parameter["required"] == true;
        let id = name.trim_end_matches('s');
        if IDS.contains(&id) {
            return Ok(Field { value: variable(id), name, is_sent: is_required });
        }
        if name.eq_ignore_ascii_case(KEY) {
            return Ok(Field { value: variable(UNIQUE), name, is_sent: true });
        }
        let schema = self.resolved(&parameter["schema"])?;
        let example = parameter.get("example");
        let value = example.or(schema.get("example")).or(schema.pointer("/enum/0"));
        ensure!(value.is_some() || !is_required, "no example of the parameter {name}");
        let value = match value {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        Ok(Field { name, value, is_sent: is_required || example.is_some() })
    }

    fn body(&self) -> Result<Option<Value>> {
        let Some(body) = self.operation.get("requestBody") else { return Ok(None) };
        let example = self.example(self.resolved(body)?)?.context("no example of the body")?;
        let mut body = example.clone();
        chain("", &mut body);
        Ok(Some(body))
    }

    /// The status that says it worked, and the ids of what was made.
    fn success(&self) -> Result<(u16, Vec<&'static str>)> {
        let mut responses = self.operation["responses"].as_object().into_iter().flatten();
        let (status, response) =
            responses.find(|(status, _)| status.starts_with('2')).context("it never succeeds")?;
        let example = self.example(self.resolved(response)?)?;
        let is_made = |id: &&str| status == "201" && example.is_some_and(|it| it[*id].is_number());
        Ok((status.parse()?, IDS.into_iter().filter(is_made).collect()))
    }

    /// The example of a body or of an answer.
    fn example(&self, of: &'a Value) -> Result<Option<&'a Value>> {
        let media = &of["content"][JSON];
        if let Some(named) = media["examples"].as_object().and_then(|named| named.values().next()) {
            return Ok(self.resolved(named)?.get("value"));
        }
        let schema = self.resolved(&media["schema"])?;
        Ok(media.get("example").or(schema.get("example")))
    }

    fn resolved(&self, mut value: &'a Value) -> Result<&'a Value> {
        while let Some(reference) = value["$ref"].as_str() {
            let found = self.document.pointer(reference.trim_start_matches('#'));
            value = found.with_context(|| format!("{reference} is not there"))?;
        }
        Ok(value)
    }
}

/// Puts variables in the place of the example's ids, in lists (`order_ids`), too, and of its keys.
fn chain(name: &str, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                chain(name, value);
            }
        }
        Value::Array(values) => {
            for value in values {
                chain(name.trim_end_matches('s'), value);
            }
        }
        value if name == KEY_IN_BODY => *value = variable(UNIQUE).into(),
        Value::Number(_) if IDS.contains(&name) => *value = variable(name).into(),
        _ => {}
    }
}

fn title(document: &Value) -> Result<&str> {
    text(&document["info"], "title")
}

fn text<'a>(of: &'a Value, name: &str) -> Result<&'a str> {
    of[name].as_str().with_context(|| format!("there is no {name}"))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
