//! The operation on dead letters.

use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ordersaga_runtime::http::{Failure, JsonBody, Text};
use poem_openapi::param::Query;
use poem_openapi::registry::{MetaSchema, MetaSchemaRef};
use poem_openapi::types::{Example, ParseError, ParseFromParameter, ParseResult, ToJSON, Type};
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Serialize;
use serde_json::Value;

use super::Tag;
use super::lists::{PAGE, PageSize, a_page};
use crate::cursor::Cursor;
use crate::letters::{Filter, Letters, OpenLetter};
use crate::shown::Shown;

/// The operation.
pub(crate) struct LetterApi(Arc<Letters>);

/// Dead letters, newest first.
#[derive(Object, Serialize)]
#[oai(example)]
struct DeadLetterPage {
    /// The letters, newest first.
    items: Vec<DeadLetter>,
    /// What `after` is to be for the letters that follow. Left out if there are none.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// Whether the pages have all open letters. If not, there are very many, and the pages end with
    /// the newest 5,000.
    is_complete: bool,
    /// When the letters were read. They are read anew every few seconds at the most.
    as_of: DateTime<Utc>,
}

impl Example for DeadLetterPage {
    fn example() -> Self {
        let letter = DeadLetter::example();
        let as_of = letter.refusals[0].time;
        let next = Some(A_CURSOR.to_owned());
        Self { items: vec![letter], next, is_complete: true, as_of }
    }
}

/// A record that a consumer could not read or apply, and that nobody has dealt with.
#[derive(Object, Serialize)]
#[oai(example)]
struct DeadLetter {
    /// The topic that the record stands in, without the prefix that an environment may have.
    topic: String,
    /// Its partition there.
    partition: i32,
    /// Its offset there.
    offset: i64,
    /// Its key, if that is text; of a long one the first 500 characters. Left out if it has none.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Its key in hexadecimal, if that is not UTF-8; of a long one the first 500 bytes.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
    /// How often it has been put back already.
    attempts: i64,
    /// Whether only a part of the record may have been kept, since it is very long. Such a letter
    /// cannot be put back.
    is_cut: bool,
    /// The consumers that refused it, earliest first.
    refusals: Vec<Refusal>,
}

impl Example for DeadLetter {
    fn example() -> Self {
        Self {
            topic: "reset".to_owned(),
            partition: 8,
            offset: 12,
            key: Some("1".to_owned()),
            key_hex: None,
            attempts: 0,
            is_cut: false,
            refusals: vec![Refusal::example()],
        }
    }
}

/// When and why a consumer refused a record, at first.
#[derive(Object, Serialize)]
#[oai(example)]
struct Refusal {
    /// The consumer's service.
    consumer: String,
    /// Why.
    error: String,
    /// When.
    time: DateTime<Utc>,
}

impl Example for Refusal {
    fn example() -> Self {
        Self {
            consumer: "/service-store".to_owned(),
            error: "version 2 is not understood (this reader knows version 1)".to_owned(),
            time: DateTime::from_timestamp(1_798_000_000, 0).unwrap_or_default(),
        }
    }
}

#[derive(ApiResponse)]
enum LettersFound {
    /// The letters.
    #[oai(status = 200)]
    Found(JsonBody<DeadLetterPage>),
}

const A_CURSOR: &str = "1798000000000000-8-3";

fn a_cursor() -> Option<Cursor> {
    A_CURSOR.parse().ok()
}

/// A topic's name: none is longer.
pub(super) type TopicText = Text<1, 249>;

pub(super) fn a_topic() -> Option<TopicText> {
    Text::new("reset")
}

fn a_consumer() -> Option<Text<1, 200>> {
    Text::new("service-store")
}

fn a_key() -> Option<Text<1, 200>> {
    Text::new("1")
}

impl LetterApi {
    pub(crate) fn new(letters: Arc<Letters>) -> Self {
        Self(letters)
    }
}

#[OpenApi(tag = "Tag::DeadLetters")]
impl LetterApi {
    /// Dead letters that are open, newest first
    ///
    /// A record that a consumer cannot read or apply becomes a dead letter, and the consumer goes
    /// on. It is open until somebody puts it back or discards it, which `ordersaga dlq` does. A
    /// letter is known by where the record stands: topic, partition and offset. Letters are listed
    /// without their payload.
    #[oai(path = "/api/v1/dead-letters", method = "get", operation_id = "list_dead_letters")]
    async fn letters(
        &self,
        /// Only those whose record stands in this topic.
        #[oai(example = "a_topic")]
        topic: Query<Option<TopicText>>,
        /// Only those that this service refused.
        #[oai(example = "a_consumer")]
        consumer: Query<Option<Text<1, 200>>>,
        /// Only those of this order: with this key.
        #[oai(example = "a_key")]
        key: Query<Option<Text<1, 200>>>,
        /// Only those behind this place in the list: the `next` of the page before.
        #[oai(example = "a_cursor")]
        after: Query<Option<Cursor>>,
        /// How many at the most; 50 unless said.
        #[oai(example = "a_page")]
        limit: Query<Option<PageSize>>,
    ) -> Result<LettersFound, Failure> {
        let open = self.0.open().await.map_err(Failure::unavailable)?;
        let filter = Filter {
            topic: topic.0.map(Text::into_string),
            consumer: consumer.0.map(Text::into_string),
            key: key.0.map(Text::into_string),
        };
        let (letters, next) = open.page(&filter, after.0, PageSize::or(limit.0, PAGE));
        Ok(LettersFound::Found(JsonBody(DeadLetterPage {
            items: letters.into_iter().cloned().map(DeadLetter::from).collect(),
            next: next.map(|next| next.to_string()),
            is_complete: open.is_complete,
            as_of: open.as_of,
        })))
    }
}

impl From<OpenLetter> for DeadLetter {
    fn from(letter: OpenLetter) -> Self {
        let (key, key_hex) = letter.key.map(Shown::parts).unwrap_or_default();
        let refusals = letter.refusals.into_iter();
        let mut refusals: Vec<_> =
            refusals.map(|(consumer, (time, error))| Refusal { consumer, error, time }).collect();
        refusals.sort_by_key(|refusal| refusal.time);
        Self {
            topic: letter.origin.topic,
            partition: letter.origin.partition,
            offset: letter.origin.offset,
            key,
            key_hex,
            attempts: letter.attempts.into(),
            is_cut: letter.may_be_cut,
            refusals,
        }
    }
}

impl Type for Cursor {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "string".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            pattern: Some(Self::PATTERN.to_owned()),
            ..MetaSchema::new("string")
        }))
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl ParseFromParameter for Cursor {
    fn parse_from_parameter(value: &str) -> ParseResult<Self> {
        value.parse().map_err(ParseError::custom)
    }
}

impl ToJSON for Cursor {
    fn to_json(&self) -> Option<Value> {
        Some(self.to_string().into())
    }
}
