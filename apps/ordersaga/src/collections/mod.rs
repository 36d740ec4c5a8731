//! Collections of requests for Insomnia, Postman and Bruno, made of the services' documents.
//!
//! The documents and the session become one neutral description, which three writers put down.
//! A collection may be run any number of times: it works on an item and orders of its own, whose
//! ids it takes from the answers.

mod bruno;
mod document;
mod insomnia;
mod postman;
mod session;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use anyhow::Result;
use serde_json::Value;

const NAME: &str = "ordersaga";
const DESCRIPTION: &str = "Made from the OpenAPI documents by `cargo ordersaga openapi export`. \
    Run the folder Session first: the other folders use its item and its order. Everything may be \
    run any number of times and leaves the items and orders of others alone. The variables say \
    where the services are.";

/// What one request makes and later ones speak of. The examples in the documents are somebody's.
const IDS: [&str; 2] = ["order_id", "item_id"];
/// Filled in anew by every client each time a request is sent.
const UNIQUE: &str = "$guid";

/// Clients write a variable in their own ways; here it is `{{name}}`.
struct Collection {
    /// Where each service is: a variable's name and value.
    places: Vec<(String, String)>,
    folders: Vec<Folder>,
}

struct Folder {
    name: String,
    description: String,
    requests: Vec<Request>,
}

#[derive(Clone)]
struct Request {
    /// The operation's id.
    operation: String,
    name: String,
    description: String,
    /// In capitals.
    method: String,
    /// Without the query.
    url: String,
    query: Vec<Field>,
    headers: Vec<Field>,
    body: Option<Value>,
    status: u16,
    /// Fields of the answer and what they must be, as JSON.
    expected: Vec<(String, String)>,
    /// Ids in the answer that are variables from then on.
    remembered: Vec<&'static str>,
}

#[derive(Clone)]
struct Field {
    name: String,
    value: String,
    /// Clients show the others, and do not send them.
    is_sent: bool,
}

/// The files of all collections, by their paths below openapi/collections.
pub(crate) fn files(documents: &[Value]) -> Result<Vec<(PathBuf, String)>> {
    let collection = collection(documents)?;
    let mut files = bruno::files(&collection)?;
    files.push(("insomnia.json".into(), pretty(&insomnia::export(&collection)?)?));
    files.push(("postman.json".into(), pretty(&postman::collection(&collection)?)?));
    Ok(files)
}

fn collection(documents: &[Value]) -> Result<Collection> {
    let mut places = Vec::new();
    let mut folders = Vec::new();
    for document in documents {
        places.push(document::place(document)?);
        folders.push(document::folder(document)?);
    }
    folders.insert(0, session::folder(&folders)?);
    Ok(Collection { places, folders })
}

impl Collection {
    /// All variables and what they are at first. Nothing, for an id: a request that is sent too
    /// early is refused then, and does not reach the order of somebody else.
    fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let places = self.places.iter().map(|(name, url)| (name.as_str(), url.as_str()));
        places.chain(IDS.map(|id| (id, "")))
    }
}

impl Request {
    fn body(&self) -> Result<Option<String>> {
        self.body.as_ref().map(body_text).transpose()
    }

    /// The query as it stands in a URL, or nothing. Clients encode it themselves.
    fn query_text(&self) -> String {
        let sent = self.query.iter().filter(|field| field.is_sent);
        let pairs: Vec<_> = sent.map(|field| format!("{}={}", field.name, field.value)).collect();
        if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
    }

    /// The lines of `JavaScript` to be run on the answer. Insomnia's are Postman's but for the
    /// name of the object.
    fn script(&self, client: &str, variables: &str) -> Vec<String> {
        let field = |name: &str| format!("{client}.response.json().{name}");
        let test = |name: &str, value: &str, json: &str| {
            let name = format!("{name} is {}", json.trim_matches('"'));
            format!("{client}.test(\"{name}\", () => {client}.expect({value}).to.eql({json}));")
        };
        let code = format!("{client}.response.code");
        let mut lines = vec![test("the HTTP status", &code, &self.status.to_string())];
        lines.extend(self.expected.iter().map(|(name, json)| test(name, &field(name), json)));
        let remember =
            |name: &&str| format!("{client}.{variables}.set(\"{name}\", {});", field(name));
        lines.extend(self.remembered.iter().map(remember));
        lines
    }
}

/// `{{name}}`.
fn variable(name: &str) -> String {
    format!("{{{{{name}}}}}")
}

/// An id is a number: its variable stands without the quotes of a text.
fn body_text(body: &Value) -> Result<String> {
    let mut text = serde_json::to_string_pretty(body)?;
    for variable in IDS.map(variable) {
        text = text.replace(&format!("\"{variable}\""), &variable);
    }
    Ok(text)
}

/// A name for files, variables and ids: `Create order` is `create_order`.
fn plain(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("_").to_lowercase()
}

fn pretty(value: &Value) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}
