//! What is wrong with a body, all of it: serde ends at the first error. So what is wrong is put
//! right, as the type's example has it, and the body decoded again.

use serde_json::Value;
use serde_path_to_error::{Error, Path, Segment};

use super::{
    json::{Body, Object},
    problem::{Failure, FieldError},
    problem_type::ProblemType,
};

/// Fields named at the most. Each costs one more look at the whole body.
const MOST: usize = 20;
/// Characters that are told of what a client made up, of its begin and of its end.
const BEGIN: usize = 200;
const END: usize = 100;

/// A field, or a place in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Place(usize),
}

/// The failure of a body that is not of the type, which decoding it has ended with.
pub(super) fn explain<T: Body>(bytes: &[u8], error: &Error<serde_json::Error>) -> Failure {
    let Some(first) = FieldError::of(error) else {
        return Failure::new(ProblemType::InvalidField, detail(error));
    };
    // Behind the first error it may be no JSON, or too deep.
    let Ok(mut body) = serde_json::from_slice(bytes) else {
        return Failure::invalid_fields(vec![first]);
    };
    let mut errors = Vec::new();
    // A value has each field once: it does not show which was repeated.
    if first.detail.starts_with("duplicate field") {
        errors.push(first.clone());
    }
    let example = serde_json::to_value(T::example()).unwrap_or_default();
    while errors.len() < MOST
        && let Err(error) = serde_path_to_error::deserialize::<_, Object<T>>(&body)
        && let Some(wrong) = FieldError::of(&error)
        && !errors.contains(&wrong)
    {
        errors.push(wrong);
        if !put_right(&mut body, &example, &place(&error)) {
            break;
        }
    }
    if errors.is_empty() {
        errors.push(first);
    }
    Failure::invalid_fields(errors)
}

impl FieldError {
    /// What serde has to say of a field, if it is a field that is wrong.
    fn of(error: &Error<serde_json::Error>) -> Option<Self> {
        let place = place(error);
        (!place.is_empty()).then(|| Self { field: shortened(&text(&place)), detail: detail(error) })
    }
}

/// What serde says is wrong, in JSON's words.
fn detail(error: &Error<serde_json::Error>) -> String {
    let text = said(error);
    let words = [("invalid type: map,", "object"), ("invalid type: sequence,", "array")];
    let translated = words.iter().find_map(|(said, word)| {
        text.strip_prefix(said).map(|rest| format!("invalid type: {word},{rest}"))
    });
    shortened(&translated.unwrap_or(text))
}

/// Without the place in the text, which serde has at the end.
fn said(error: &Error<serde_json::Error>) -> String {
    let text = error.inner().to_string();
    let is_place = |place: &str| {
        let numbers = place.split_once(" column ");
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        numbers.is_some_and(|(line, column)| is_number(line) && is_number(column))
    };
    match text.rsplit_once(" at line ") {
        Some((said, place)) if is_place(place) => said.to_owned(),
        _ => text,
    }
}

fn shortened(text: &str) -> String {
    let characters: Vec<_> = text.chars().collect();
    if characters.len() <= BEGIN + END {
        return text.to_owned();
    }
    let (begin, end) = (&characters[..BEGIN], &characters[characters.len() - END..]);
    begin.iter().chain(&['…']).chain(end).collect()
}

/// Where it is: of a missing, unknown or repeated field serde has the name in its text, as `name`,
/// and the path of what it is in, or its own.
fn place(error: &Error<serde_json::Error>) -> Vec<Step> {
    let mut steps = steps(error.path());
    if let Some(name) = name_in(&said(error)).map(|name| Step::Field(name.to_owned()))
        && steps.last() != Some(&name)
    {
        steps.push(name);
    }
    steps
}

fn name_in(said: &str) -> Option<&str> {
    let named = |start| said.strip_prefix(start)?.strip_suffix('`');
    named("missing field `").or_else(|| named("duplicate field `")).or_else(|| {
        // A name may have such marks itself; those of the type have not.
        let unknown = said.strip_prefix("unknown field `")?;
        let end = unknown.rfind("`, expected ").or_else(|| unknown.rfind("`, there are no "));
        end.map(|end| &unknown[..end])
    })
}

fn steps(path: &Path) -> Vec<Step> {
    let steps = path.iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some(Step::Place(*index)),
        Segment::Map { key } => Some(Step::Field(key.clone())),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    steps.collect()
}

fn text(steps: &[Step]) -> String {
    let parts = steps.iter().enumerate().map(|(at, step)| match step {
        Step::Field(name) if at == 0 => name.clone(),
        Step::Field(name) => format!(".{name}"),
        Step::Place(index) => format!("[{index}]"),
    });
    parts.collect()
}

/// Puts what the example has in a place there, or takes away what it does not have. False if that
/// is not possible.
fn put_right(body: &mut Value, example: &Value, place: &[Step]) -> bool {
    match (place, body) {
        ([], body) => {
            *body = example.clone();
            true
        }
        ([Step::Field(name), rest @ ..], Value::Object(fields)) => match example.get(name) {
            Some(right) => {
                put_right(fields.entry(name.clone()).or_insert(Value::Null), right, rest)
            }
            None => fields.shift_remove(name).is_some(),
        },
        ([Step::Place(index), rest @ ..], Value::Array(values)) => {
            let one = values.get_mut(*index).zip(example.get(0));
            one.is_some_and(|(one, right)| put_right(one, right, rest))
        }
        _ => false,
    }
}
