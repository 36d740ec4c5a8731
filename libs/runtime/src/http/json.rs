//! JSON bodies, from bytes straight to the type and back.

use std::{fmt, marker::PhantomData};

use poem::{
    IntoResponse, Request, RequestBody, Response, Result,
    http::{HeaderValue, header},
};
use poem_openapi::{
    ApiResponse, impl_apirequest_for_payload,
    payload::{ParsePayload, Payload},
    registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchemaRef, Registry},
    types::{Example, IsObjectType, Type},
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::error::Category;

use super::{problem::Failure, problem_type::ProblemType, wrong_fields};

/// A JSON body of a request or a response, decoded and encoded by serde. The type's own validators
/// of poem-openapi do not run: let the types of its fields keep the rules ([`super::Bounded`],
/// [`super::Text`]), and put `#[serde(deny_unknown_fields)]` on it.
#[derive(Debug, Clone)]
pub struct JsonBody<T>(pub T);

impl<T: Type> Payload for JsonBody<T> {
    const CONTENT_TYPE: &'static str = "application/json";

    fn check_content_type(content_type: &str) -> bool {
        let (media_type, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
        media_type.trim().eq_ignore_ascii_case(Self::CONTENT_TYPE) && is_utf8(parameters)
    }

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

/// JSON is UTF-8; a client that says it sends something else would be misread.
fn is_utf8(parameters: &str) -> bool {
    parameters.split(';').all(|parameter| match parameter.trim().split_once('=') {
        Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
            value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    })
}

/// The type of a request's body. Its example is one that is right.
pub trait Body: IsObjectType + DeserializeOwned + Serialize + Example {}

impl<T: IsObjectType + DeserializeOwned + Serialize + Example> Body for T {}

impl<T: Body> ParsePayload for JsonBody<T> {
    const IS_REQUIRED: bool = true;

    async fn from_request(_: &Request, body: &mut RequestBody) -> Result<Self> {
        // It has been received as a whole: `super::body`.
        let bytes = body.take()?.into_bytes().await?;
        Ok(decode(&bytes).map(Self)?)
    }
}

fn decode<T: Body>(bytes: &[u8]) -> Result<T, Failure> {
    let value: Result<Object<T>, _> = serde_json::from_slice(bytes);
    value.map(|object| object.0).map_err(|_| explain::<T>(bytes))
}

/// Decodes once more, this time watching where: only bad requests pay for knowing the place.
fn explain<T: Body>(bytes: &[u8]) -> Failure {
    if bytes.is_empty() {
        return Failure::new(ProblemType::BadRequest, "malformed JSON: a body is expected");
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    match serde_path_to_error::deserialize::<_, Object<T>>(&mut deserializer) {
        Ok(_) => {
            let detail = "there is something after the JSON value";
            Failure::new(ProblemType::BadRequest, detail)
        }
        Err(error) if error.inner().classify() == Category::Data => {
            wrong_fields::explain::<T>(bytes, &error)
        }
        Err(error) => {
            let detail = format!("malformed JSON: {}", error.inner());
            Failure::new(ProblemType::BadRequest, detail)
        }
    }
}

/// A value from a JSON object. What serde derives takes an array for one, its elements for the
/// fields in order, which nobody could reorder then.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
    }
}

impl<T: Serialize + Send> IntoResponse for JsonBody<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(json) => {
                let mut response = Response::from(poem::Body::from_vec(json));
                response
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            Err(error) => Failure::internal(error).into_response(),
        }
    }
}

impl<T: Type + Serialize> ApiResponse for JsonBody<T> {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "Success",
                status: Some(200),
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: Self::CONTENT_TYPE,
                    schema: Self::schema_ref(),
                }],
                headers: vec![],
            }],
        }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl_apirequest_for_payload!(JsonBody<T>, T: Body);

#[cfg(test)]
mod tests {
    use poem::IntoResponse;
    use poem_openapi::{Object, types::Example};
    use serde::{Deserialize, Serialize};

    use super::{JsonBody, Payload, ProblemType, decode};
    use crate::http::{Bounded, Failure, Id, List, Problem, Text};

    #[derive(Object, Serialize, Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Line {
        quantity: Bounded<1, 1000>,
    }

    #[derive(Object, Serialize, Deserialize, Debug)]
    #[oai(example)]
    #[serde(deny_unknown_fields)]
    struct Basket {
        client_id: Id,
        name: Text<1, 10>,
        lines: List<Line, 0, 600>,
    }

    impl Example for Basket {
        fn example() -> Self {
            let line = Line { quantity: Bounded::new(1).unwrap() };
            let client_id = Id::new(1).unwrap();
            Self { client_id, name: Text::new("a").unwrap(), lines: List::new(vec![line]).unwrap() }
        }
    }

    fn problem(json: &str) -> Problem {
        let failure = decode::<Basket>(json.as_bytes()).expect_err(json);
        serde_json::from_str(&failure_json(failure)).unwrap()
    }

    #[track_caller]
    fn fails(json: &str, kind: ProblemType, field: Option<&str>) {
        let problem = problem(json);
        assert_eq!(problem.kind, kind.uri(), "{json}: {}", problem.detail);
        assert_eq!(problem.field.as_deref(), field, "{json}: {}", problem.detail);
    }

    fn failure_json(failure: Failure) -> String {
        let body = failure.into_response().into_body().into_string();
        futures_util::FutureExt::now_or_never(body).unwrap().unwrap()
    }

    #[test]
    fn wrong_fields_are_named() {
        let invalid = |json, field| fails(json, ProblemType::InvalidField, field);
        invalid(r#"{"client_id":0,"name":"a","lines":[]}"#, Some("client_id"));
        invalid(r#"{"client_id":"1","name":"a","lines":[]}"#, Some("client_id"));
        invalid(r#"{"client_id":9223372036854775808,"name":"a","lines":[]}"#, Some("client_id"));
        invalid(r#"{"client_id":1.0,"name":"a","lines":[]}"#, Some("client_id"));
        invalid(r#"{"client_id":null,"name":"a","lines":[]}"#, Some("client_id"));
        invalid(r#"{"client_id":1,"name":"","lines":[]}"#, Some("name"));
        invalid(r#"{"client_id":1,"name":"a"}"#, Some("lines"));
        invalid(r#"{"client_id":1,"name":"a","lines":[],"x":1}"#, Some("x"));
        invalid(r#"{"client_id":1,"client_id":1}"#, Some("client_id"));
        invalid(
            r#"{"client_id":1,"name":"a","lines":[{"quantity":0}]}"#,
            Some("lines[0].quantity"),
        );
        invalid(r#"{"client_id":1,"name":"a","lines":[{}]}"#, Some("lines[0].quantity"));
        invalid(r#"{"client_id":1,"name":"a","lines":[{"y":1}]}"#, Some("lines[0].y"));
        invalid("[]", None);
        invalid(r#"[0,"a",[]]"#, None);
        invalid(r#"[1,"a",[]]"#, None);
        invalid(r#"{"client_id":1,"name":"a","lines":[[1]]}"#, Some("lines[0]"));
        invalid("null", None);
    }

    #[test]
    fn all_wrong_fields_are_named() {
        for (json, fields) in [
            (r#"{"client_id":0,"name":"","lines":7}"#, "client_id name lines"),
            (r#"{"x":1,"y":1}"#, "x y client_id name lines"),
            (
                r#"{"lines":[{"quantity":0},{"quantity":1},{"z":1},7,[1]],"client_id":1}"#,
                "lines[0].quantity lines[2].z lines[2].quantity lines[3] lines[4] name",
            ),
            // In the body's order.
            (r#"{"x":1,"client_id":0,"name":"","lines":7}"#, "x client_id name lines"),
            (r#"{"a`b":1,".name":1,"":1,"lines":[],"name":""}"#, "a`b .name  name client_id"),
            (r#"{"client_id":1,"client_id":1,"name":""}"#, "client_id name lines"),
            ("[]", ""),
        ] {
            let problem = problem(json);
            let errors = problem.errors.unwrap_or_default();
            let named: Vec<_> = errors.iter().map(|error| &*error.field).collect();
            assert_eq!(named.join(" "), fields, "{json}");
            let first = errors.first().map(|error| (&error.field, &error.detail));
            assert_eq!(first, problem.field.as_ref().map(|field| (field, &problem.detail)));
        }
        let lines = r#"{"quantity":0},"#.repeat(500) + r#"{"quantity":1}"#;
        let many = problem(&format!(r#"{{"client_id":1,"name":"a","lines":[{lines}]}}"#));
        assert_eq!(many.errors.unwrap().len(), 20);
        let lines = r#"{"quantity":1},"#.repeat(600) + r#"{"quantity":0}"#;
        let long = problem(&format!(r#"{{"client_id":0,"name":"a","lines":[{lines}]}}"#));
        let errors = long.errors.unwrap();
        assert_eq!(errors.iter().map(|it| &*it.field).collect::<Vec<_>>(), ["client_id", "lines"]);
        assert_eq!(errors[1].detail, "0 to 600 of them are expected");
        let long = problem(&format!(r#"{{"{}":1}}"#, "x".repeat(9_000)));
        assert!(serde_json::to_string(&long).unwrap().len() < 3_000);
        let text = problem(&format!("\"{}\"", "x".repeat(9_000)));
        assert!(serde_json::to_string(&text).unwrap().len() < 3_000);
    }

    #[test]
    fn what_is_expected_is_said_in_words_of_json() {
        for (json, detail) in [
            ("[]", "invalid type: array, expected an object"),
            ("null", "invalid type: null, expected an object"),
            (r#"{"client_id":{}}"#, "invalid type: object, expected a whole number from 1 to"),
            (r#"{"lines":{}}"#, "invalid type: object, expected an array of 0 to 600"),
            (r#"{"lines":[true]}"#, "invalid type: boolean `true`, expected an object"),
            (
                r#"{"client_id":"at line 3"}"#,
                "invalid type: string \"at line 3\", expected a whole",
            ),
            (
                r#"{"x at line 1 column 2":1}"#,
                "unknown field `x at line 1 column 2`, expected one of",
            ),
        ] {
            let found = problem(json).detail;
            assert!(found.starts_with(detail), "{json}: {found}");
        }
    }

    #[test]
    fn what_is_not_json_is_a_bad_request() {
        let good = r#"{"client_id":1,"name":"a","lines":[]}"#;
        assert!(decode::<Basket>(good.as_bytes()).is_ok());
        for bad in ["", " ", "{", "{\"client_id\":", "abc", "{'client_id':1}", "\u{feff}{}"] {
            fails(bad, ProblemType::BadRequest, None);
        }
        fails(&format!("{good}x"), ProblemType::BadRequest, None);
        fails(&format!("{good}{good}"), ProblemType::BadRequest, None);
    }

    #[test]
    fn content_types() {
        let accepts = <JsonBody<Line> as Payload>::check_content_type;
        for accepted in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
        ] {
            assert!(accepts(accepted), "{accepted}");
        }
        for refused in [
            "",
            "text/plain",
            "application/jsonx",
            "application/json, text/plain",
            "application/problem+json",
            "application/json; charset=latin1",
            "application/x-www-form-urlencoded",
        ] {
            assert!(!accepts(refused), "{refused}");
        }
    }
}
