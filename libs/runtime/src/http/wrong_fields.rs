//! What is wrong with a body, all of it: serde ends at the first error. So what is wrong is put
//! right, as the type's example has it, and the body decoded again.

use serde_json::Value;
use serde_path_to_error::{Error, Path, Segment};

use super::{
    json::Body,
    problem::{Failure, FieldError},
    problem_type::ProblemType,
};

/// Fields named at the most. Each costs one more look at the whole body.
const MOST: usize = 20;
/// Characters that are told of what a client made up.
const LONGEST: usize = 300;

/// A field, or a place in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Place(usize),
}

/// The failure of a body that is JSON and not of the type, which decoding it has ended with.
pub(super) fn explain<T: Body>(bytes: &[u8], error: &Error<serde_json::Error>) -> Failure {
    let mut errors = Vec::new();
    let Some(first) = FieldError::of(error) else {
        return Failure::new(ProblemType::InvalidField, detail(error));
    };
    // A value has each field once: it does not show which was repeated.
    let is_repeated = first.detail.starts_with("duplicate field");
    if is_repeated {
        errors.push(first.clone());
    }
    let body = serde_json::from_slice(bytes).ok();
    let example = serde_json::to_value(T::example()).ok();
    if let Some((mut body, example)) = body.zip(example) {
        while errors.len() < MOST
            && let Err(error) = serde_path_to_error::deserialize::<_, T>(&body)
            && let Some(wrong) = FieldError::of(&error)
            && !errors.contains(&wrong)
        {
            errors.push(wrong);
            if !put_right(&mut body, &example, &place(&error)) {
                break;
            }
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
        let field = text(&place(error));
        let shortened = |text: String| text.chars().take(LONGEST).collect();
        (!field.is_empty())
            .then(|| Self { field: shortened(field), detail: shortened(detail(error)) })
    }
}

fn detail(error: &Error<serde_json::Error>) -> String {
    let text = error.inner().to_string();
    text.rsplit_once(" at line ").map_or(&*text, |(detail, _)| detail).to_owned()
}

/// Where it is: serde names a missing, unknown or repeated field in its text, as `name`, and has
/// the path of what that is missing in, or the field's own.
fn place(error: &Error<serde_json::Error>) -> Vec<Step> {
    let mut steps = steps(error.path());
    let detail = detail(error);
    let named = ["missing field `", "unknown field `", "duplicate field `"]
        .iter()
        .find_map(|start| detail.strip_prefix(start)?.split_once('`'))
        .map(|(name, _)| Step::Field(name.to_owned()));
    if let Some(named) = named
        && steps.last() != Some(&named)
    {
        steps.push(named);
    }
    steps
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
    let parts = steps.iter().map(|step| match step {
        Step::Field(name) => format!(".{name}"),
        Step::Place(index) => format!("[{index}]"),
    });
    parts.collect::<String>().trim_start_matches('.').to_owned()
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
            None => fields.remove(name).is_some(),
        },
        ([Step::Place(index), rest @ ..], Value::Array(values)) => {
            let one = values.get_mut(*index).zip(example.get(0));
            one.is_some_and(|(one, right)| put_right(one, right, rest))
        }
        _ => false,
    }
}
