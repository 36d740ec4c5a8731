//! The `OpenAPI` document: what poem-openapi says of an API, in the form that people, Swagger UI and
//! generators of clients read best. What poem-openapi cannot say is said here.

use std::marker::PhantomData;

use poem_openapi::{
    ContactObject, LicenseObject, OpenApi, OpenApiService, ServerObject,
    registry::{MetaApi, MetaOperation, Registry},
};
use serde_json::{Map, Value, json};

use super::{
    auth::{Access, Scope},
    problem::{CONTENT_TYPE, IDEMPOTENCY_KEY, example},
    problem_type::ProblemType,
    service::Table,
};

/// What the `OpenAPI` document says about the service as a whole.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// The service's name in logs, as `service-store`.
    pub name: &'static str,
    /// The document's title.
    pub title: &'static str,
    /// The API's version.
    pub version: &'static str,
    /// What the service does, in Markdown.
    pub description: &'static str,
    /// Where it is usually served, as `http://localhost:8000`.
    pub server: &'static str,
    /// A `Location` as its answers have it.
    pub location: &'static str,
    /// What operations ask of their clients, by their names; those that are not named need `admin`.
    pub access: &'static [(&'static str, Access)],
    /// What can be done next with what an operation has made.
    pub links: &'static [Link],
    /// Names for the variants of an enumeration, where the variants of another are called the same:
    /// some languages have one scope for all.
    pub variants: &'static [(&'static str, &'static [&'static str])],
}

impl About {
    /// What an operation asks of its clients. One that nobody has thought of is for administrators.
    pub(super) fn access_of(&self, operation: Option<&str>) -> Access {
        let known = self.access.iter().find(|(name, _)| Some(*name) == operation);
        known.map_or(Access::Needs(Scope::Admin), |(_, access)| *access)
    }
}

/// A field of an operation's answer is a parameter of another operation.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// The operation that answers, and the status of its answer.
    pub from: (&'static str, u16),
    /// The operation that may come next.
    pub to: &'static str,
    /// Where it is described, if that is in another service's document: the URL of its description.
    pub elsewhere: Option<&'static str>,
    /// The field, and the parameter of that name.
    pub field: &'static str,
    /// What the other operation does.
    pub description: &'static str,
}

/// Prints the specification if the process was started as `service --openapi`: needs no setting
/// and no dependency. True if it did.
#[expect(clippy::print_stdout)]
pub fn print_spec<A: OpenApi>(about: &About) -> bool {
    let asked = std::env::args().nth(1).is_some_and(|argument| argument == "--openapi");
    if asked {
        print!("{}", spec::<A>(about));
    }
    asked
}

/// The `OpenAPI` document of an API: indented JSON with a newline at its end, always the same.
/// Generated clients ask the first server: here the usual place.
pub fn spec<A: OpenApi>(about: &About) -> String {
    document::<A>(about, ServerObject::new(about.server).description("The usual place"))
}

/// The same as the service serves it: clients made from it ask the service it came from.
pub(super) fn served<A: OpenApi>(about: &About) -> String {
    let own = ServerObject::new("/").description("The service this document comes from");
    document::<A>(about, own)
}

fn document<A: OpenApi>(about: &About, server: ServerObject) -> String {
    let contact = ContactObject::new().name("The ordersaga maintainers");
    let license =
        LicenseObject::new("Apache-2.0").url("https://www.apache.org/licenses/LICENSE-2.0.html");
    let service = OpenApiService::new(Documented::<A>(PhantomData), about.title, about.version)
        .description(format!("{}{IDS}", about.description))
        .contact(contact)
        .license(license)
        .server(server);
    let mut document: Value = serde_json::from_str(&service.spec()).expect("it is JSON");
    refine(&mut document, about);
    format!("{document:#}\n")
}

/// The API as the document is to show it: without the failures an operation cannot have.
struct Documented<A>(PhantomData<A>);

impl<A: OpenApi> OpenApi for Documented<A> {
    fn meta() -> Vec<MetaApi> {
        let mut apis = A::meta();
        let paths = apis.iter_mut().flat_map(|api| &mut api.paths);
        paths.flat_map(|path| &mut path.operations).for_each(leave_out_impossible);
        apis
    }

    fn register(registry: &mut Registry) {
        A::register(registry);
    }

    fn add_routes(self, _: &mut Table) {}
}

fn leave_out_impossible(operation: &mut MetaOperation) {
    let has_body = operation.request.is_some();
    let idempotent =
        operation.params.iter().any(|param| param.name.eq_ignore_ascii_case(IDEMPOTENCY_KEY));
    operation.responses.responses.retain(|response| match response.status {
        Some(408 | 413 | 415) => has_body,
        Some(422) => has_body || idempotent,
        _ => true,
    });
}

type Object = Map<String, Value>;

/// A request's id, as examples show it.
pub(super) const REQUEST_ID: &str = "f72b043c47232a68f3a6ef393deab82b";

/// What `JavaScript` needs to know, whose numbers are exact below 2^53 only.
const IDS: &str = "\n\nIds are integers from 1 to 2^63-1. `order_id` and `item_id` are counted from 1 and \
                   stay below 2^53, where the numbers of JavaScript are exact. `seller_id` and \
                   `client_id` are the client's own: a client in JavaScript keeps them below 2^53, or \
                   reads and writes JSON with a parser that keeps integers of 64 bits.";

fn refine(document: &mut Value, about: &About) {
    // poem-openapi keeps to what has been so since 3.0.0.
    document["openapi"] = json!("3.0.3");
    // A service may ask who its client is, or not. Of all operations at once: where an operation says
    // so itself, some generators make clients that cannot do without.
    document["security"] = json!([{}, {"bearer": []}]);
    document["components"]["securitySchemes"] = json!({"bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key or a JSON Web Token, where the service asks for one (AUTH). Each \
                        operation names the scope that it needs.",
    }});
    each_object(document, &mut |object| {
        refer_plainly(object);
        join_lines(object);
        write_whole_numbers(object);
        leave_out_defaults(object);
        show_parameter(object);
        end_times_in_z(object);
    });
    close_requests(document);
    name_kinds_of_problems(document);
    each_schema(document, refine_schema);
    for (name, variants) in about.variants {
        document["components"]["schemas"][name]["x-enum-varnames"] = json!(variants);
    }
    describe_access(document, about);
    describe_answers(document, about);
    for link in about.links {
        add_link(document, link);
    }
}

/// A field with a description of its own is a type beside a description, both below `allOf`, of which
/// some generators make a type of its own, and some nothing: only the type stays there.
fn refer_plainly(object: &mut Object) {
    if let Some(Value::Array(all)) = object.get_mut("allOf") {
        all.retain(|one| one.get("$ref").is_some());
    }
}

/// Lines are where they end in the program's text.
fn join_lines(object: &mut Object) {
    if let Some(Value::String(text)) = object.get_mut("description") {
        let paragraphs = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
        *text = paragraphs.collect::<Vec<_>>().join("\n\n");
    }
}

/// poem-openapi has all bounds in floating point: `1.0`, which some generators copy.
fn write_whole_numbers(object: &mut Object) {
    for bound in ["minimum", "maximum"] {
        // Those there are need fewer than 53 bits.
        #[expect(clippy::cast_possible_truncation)]
        let whole = object.get(bound).and_then(Value::as_f64).map(|bound| bound as i64);
        if let Some(whole) = whole {
            object.insert(bound.to_owned(), whole.into());
        }
    }
    // It is no format of OpenAPI.
    if object.get("format") == Some(&json!("uint32")) {
        object.insert("format".to_owned(), "int32".into());
        object.insert("minimum".to_owned(), 0.into());
    }
}

/// What parameters and headers say is what would be so anyway.
fn leave_out_defaults(object: &mut Object) {
    if object.contains_key("schema") {
        object.remove("explode");
        object.retain(|name, value| name != "deprecated" || value == &json!(true));
    }
}

/// Swagger UI fills in what a parameter itself has as its example, linters look there, too. With an
/// example beside it, a reference to a type is no reference any more to some generators.
fn show_parameter(object: &mut Object) {
    if object.contains_key("in")
        && let Some(Value::Object(schema)) = object.get_mut("schema")
        && let Some(example) = schema.get("example").cloned()
    {
        if let Some(reference) = schema.get_mut("allOf").map(|all| all[0].take()) {
            object.insert("schema".to_owned(), reference);
        }
        object.insert("example".to_owned(), example);
    }
}

/// As answers have them; and the plus sign of `+00:00` in a URL would be read as a blank.
fn end_times_in_z(object: &mut Object) {
    for value in object.values_mut() {
        if let Value::String(text) = value
            && let Some(time) = text.strip_suffix("+00:00")
        {
            *text = format!("{time}Z");
        }
    }
}

/// No field that is not documented may be sent. A body is what its type is.
fn close_requests(document: &mut Value) {
    let mut schemas = document["components"]["schemas"].take();
    each_object(document, &mut |object| {
        let Some(body) = object.get_mut("requestBody") else { return };
        let schema = &body["content"]["application/json"]["schema"];
        if let Some(name) = name_of_type(schema).map(str::to_owned) {
            body["description"] = schemas[&name]["description"].clone();
            close(&mut schemas, &name);
        }
    });
    document["components"]["schemas"] = schemas;
}

/// Closes a type and those of its lists.
fn close(schemas: &mut Value, name: &str) {
    schemas[name]["additionalProperties"] = json!(false);
    let fields = schemas[name]["properties"].as_object().into_iter().flat_map(Map::values);
    let parts: Vec<_> =
        fields.filter_map(|field| name_of_type(&field["items"])).map(str::to_owned).collect();
    for part in parts {
        close(schemas, &part);
    }
}

fn name_of_type(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.rsplit('/').next()
}

fn name_kinds_of_problems(document: &mut Value) {
    let schemas = &mut document["components"]["schemas"];
    if schemas.get("Problem").is_some() {
        schemas["Problem"]["properties"]["type"] =
            json!({"$ref": "#/components/schemas/ProblemType"});
        schemas["Problem"]["example"] = json!(example(ProblemType::InvalidField));
        schemas["ProblemType"] = json!({
            "type": "string",
            "description": "What kind of problem it is. A kind never changes its meaning; there may \
                            be more of them. The service describes each at /problems/ and the last \
                            part of its name, as /problems/not-found.",
            "enum": ProblemType::ALL.map(ProblemType::uri),
            "x-enum-varnames":
                ProblemType::ALL.map(|kind| kind.slug().replace('-', "_").to_uppercase()),
        });
    }
}

fn refine_schema(schema: &mut Object) {
    // The name said again.
    schema.remove("title");
    if let Some(first) = schema.get("enum").map(|variants| variants[0].clone()) {
        schema.insert("example".to_owned(), first);
    }
    let example = schema.get("example").cloned().unwrap_or_default();
    let fields = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (name, field) in fields.into_iter().flatten() {
        let Some(field) = field.as_object_mut().filter(|field| !field.contains_key("$ref")) else {
            continue;
        };
        // Some generators make a field required that has a default.
        if let Some(default) = field.remove("default") {
            let description = field.get("description").and_then(Value::as_str).unwrap_or_default();
            let description = format!("{description} {default} if it is left out.");
            field.insert("description".to_owned(), description.into());
        }
        // An id in an answer is one that a request may have.
        if name.ends_with("_id") && field.get("format") == Some(&json!("int64")) {
            field.insert("minimum".to_owned(), 1.into());
        }
        if let Some(example) = example.get(name) {
            field.insert("example".to_owned(), example.clone());
            if let Some(items) = field.get_mut("items").and_then(Value::as_object_mut)
                && let Some(first) = example.get(0)
                && !items.contains_key("$ref")
            {
                items.insert("example".to_owned(), first.clone());
            }
        }
    }
}

/// Says which scope an operation needs. Whoever needs none is not refused for the lack of one.
fn describe_access(document: &mut Value, about: &About) {
    each_object(document, &mut |object| {
        let Some(name) = object.get("operationId").and_then(Value::as_str) else { return };
        match about.access_of(Some(name)) {
            Access::Needs(scope) => {
                let description = object.get("description").and_then(Value::as_str);
                let before = description.map(|text| format!("{text}\n\n")).unwrap_or_default();
                let text = format!("{before}Where the service asks for it: scope `{scope}`.");
                object.insert("description".to_owned(), text.into());
            }
            Access::Public | Access::Open => {
                let answers = object.get_mut("responses").and_then(Value::as_object_mut);
                answers.map(|answers| answers.shift_remove("403"));
            }
        }
    });
    // A page of another origin may read, if it could read the answer.
    each_object(document, &mut |path| {
        if let Some(Value::Object(read)) = path.get_mut("get") {
            read.insert(READS.to_owned(), true.into());
        }
    });
}

/// Marks operations that change nothing, while the document is made.
const READS: &str = "x-reads";

/// Gives every answer its headers, and describes those of failures once, with an example of each
/// kind.
fn describe_answers(document: &mut Value, about: &About) {
    let (mut shared, mut examples) = (Object::new(), Object::new());
    let types = document["components"]["schemas"].clone();
    each_object(document, &mut |operation| {
        let wrong = what_can_be_wrong(operation);
        let reads = operation.shift_remove(READS).is_some();
        let answers = operation.get_mut("responses").and_then(Value::as_object_mut);
        for (status, answer) in answers.into_iter().flatten() {
            let Some(answer) = answer.as_object_mut() else { continue };
            describe_headers(answer, about);
            let Some(status) = status.parse::<u16>().ok().filter(|status| *status >= 400) else {
                show_body(answer, &types);
                continue;
            };
            let may_be = |kind: &ProblemType| match kind {
                ProblemType::InvalidField | ProblemType::IdempotencyKeyReused => {
                    wrong.contains(kind)
                }
                ProblemType::ForeignOrigin => !reads,
                _ => true,
            };
            let kinds = ProblemType::ALL.into_iter().filter(|kind| kind.status() == status);
            let kinds: Vec<_> = kinds.filter(may_be).collect();
            let name = name_of_failure(&kinds);
            describe_failure(answer, &kinds, &mut examples);
            let reference = format!("#/components/responses/{name}");
            shared.insert(name, std::mem::take(answer).into());
            answer.insert("$ref".to_owned(), reference.into());
        }
    });
    let components = &mut document["components"];
    components["responses"] = shared.into();
    components["examples"] = examples.into();
    components["headers"] = json!({"X-Request-Id": {
        "description": "The request's id: the one it came with, or a new one. To be quoted to support.",
        "required": true,
        "schema": {"type": "string", "minLength": 1, "maxLength": 128, "example": REQUEST_ID},
    }});
}

/// What can be wrong with a request that was read.
fn what_can_be_wrong(operation: &Object) -> Vec<ProblemType> {
    let parameters = operation.get("parameters").and_then(Value::as_array);
    let idempotent = parameters.is_some_and(|parameters| {
        parameters.iter().any(|parameter| parameter["name"] == IDEMPOTENCY_KEY)
    });
    let field = operation.contains_key("requestBody").then_some(ProblemType::InvalidField);
    let key = idempotent.then_some(ProblemType::IdempotencyKeyReused);
    field.into_iter().chain(key).collect()
}

/// The name under which an answer is described once for all operations that may give it. Generated
/// clients have types of these names.
fn name_of_failure(kinds: &[ProblemType]) -> String {
    match kinds {
        [ProblemType::InvalidField, ProblemType::IdempotencyKeyReused] => {
            "Unprocessable".to_owned()
        }
        [ProblemType::IdempotencyKeyReused] => "KeyReused".to_owned(),
        // The name that it had before there was a second kind.
        [ProblemType::ForeignOrigin, ..] => "ForeignOrigin".to_owned(),
        [ProblemType::Internal] => "InternalError".to_owned(),
        [ProblemType::Overloaded, ProblemType::Unavailable] => "Unavailable".to_owned(),
        [first, ..] => format!("{first:?}"),
        [] => String::new(),
    }
}

/// Says of a failure which kinds it may be, each with an example.
fn describe_failure(answer: &mut Object, kinds: &[ProblemType], examples: &mut Object) {
    let meanings = kinds.iter().map(|kind| format!("`{}`: {}", kind.slug(), kind.meaning()));
    let description = meanings.collect::<Vec<_>>().join(" ");
    answer.insert("description".to_owned(), description.into());
    let references = kinds.iter().map(|kind| {
        let slug = kind.slug();
        let example = json!({
            "summary": kind.title(),
            "description": format!("A problem of the kind {slug}."),
            "value": example(*kind),
        });
        examples.insert(slug.to_owned(), example);
        (slug.to_owned(), json!({"$ref": format!("#/components/examples/{slug}")}))
    });
    let references: Object = references.collect();
    if let Some(content) = answer.get_mut("content") {
        content[CONTENT_TYPE]["examples"] = references.into();
    }
}

/// Shows the example of an answer's type with the answer, where linters look for it.
fn show_body(answer: &mut Object, types: &Value) {
    let Some(content) = answer.get_mut("content") else { return };
    let body = &mut content["application/json"];
    if let Some(name) = name_of_type(&body["schema"]) {
        body["example"] = types[name]["example"].clone();
    }
}

fn describe_headers(answer: &mut Object, about: &About) {
    let mut headers = Object::new();
    if let Some(Value::Object(own)) = answer.remove("headers") {
        for (name, mut header) in own {
            header["schema"]["example"] = match header["schema"]["type"].as_str() {
                Some("integer") => json!(1),
                Some("boolean") => json!(true),
                // Of texts there is only Location.
                _ => json!(about.location),
            };
            headers.insert(in_title_case(&name), header);
        }
    }
    let reference = json!({"$ref": "#/components/headers/X-Request-Id"});
    headers.insert("X-Request-Id".to_owned(), reference);
    answer.insert("headers".to_owned(), headers.into());
}

/// poem-openapi writes headers in capitals.
fn in_title_case(name: &str) -> String {
    let parts = name.split('-').map(|part| {
        let (first, rest) = part.split_at(part.len().min(1));
        format!("{}{}", first.to_uppercase(), rest.to_lowercase())
    });
    parts.collect::<Vec<_>>().join("-")
}

fn add_link(document: &mut Value, link: &Link) {
    let Link { from: (operation, status), to, elsewhere, field, description } = *link;
    let (way, target) = elsewhere.map_or(("operationId", to), |url| ("operationRef", url));
    each_object(document, &mut |object| {
        if object.get("operationId") == Some(&json!(operation))
            && let Some(answer) = object["responses"].get_mut(status.to_string())
        {
            answer["links"][to] = json!({
                way: target,
                "description": description,
                "parameters": {field: format!("$response.body#/{field}")},
            });
        }
    });
}

fn each_object(value: &mut Value, change: &mut impl FnMut(&mut Object)) {
    match value {
        Value::Object(object) => {
            change(object);
            object.values_mut().for_each(|value| each_object(value, change));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| each_object(value, change)),
        _ => {}
    }
}

fn each_schema(document: &mut Value, change: fn(&mut Object)) {
    let schemas = document["components"]["schemas"].as_object_mut();
    let schemas = schemas.into_iter().flat_map(Map::values_mut);
    schemas.filter_map(Value::as_object_mut).for_each(change);
}
