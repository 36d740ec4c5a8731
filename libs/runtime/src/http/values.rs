//! Values of requests that carry their own limits: the schema, the decoding from JSON and the
//! decoding from a parameter all follow from the type, so that they cannot disagree.

use std::{borrow::Cow, fmt};

use ordersaga_contract::{ClientId, ItemId, OrderId, Quantity, SellerId};
use poem_openapi::{
    registry::{MetaSchema, MetaSchemaRef},
    types::{ParseError, ParseFromJSON, ParseFromParameter, ParseResult, ToJSON, Type},
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, Unexpected, Visitor},
};
use serde_json::Value;

use super::legible::{REFUSED, is_legible};

/// A 64-bit integer from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Bounded<const MIN: i64, const MAX: i64>(i64);

/// What may be left out, but is no null: for `#[serde(default, deserialize_with = "given")]`.
///
/// # Errors
///
/// Those of the value itself.
pub fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// The id of anything: a positive 64-bit integer.
pub type Id = Bounded<1, { i64::MAX }>;

impl<const MIN: i64, const MAX: i64> Bounded<MIN, MAX> {
    /// The value, if it is within the bounds.
    pub const fn new(value: i64) -> Option<Self> {
        if MIN <= value && value <= MAX { Some(Self(value)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl<const MAX: i64> Bounded<1, MAX> {
    /// How many things are asked for, or `default` where nobody says.
    pub fn or(asked: Option<Self>, default: usize) -> usize {
        asked.and_then(|asked| asked.0.try_into().ok()).unwrap_or(default)
    }
}

impl<const MIN: i64, const MAX: i64> From<Bounded<MIN, MAX>> for i64 {
    fn from(value: Bounded<MIN, MAX>) -> Self {
        value.0
    }
}

/// What the contract's types are at the edge of a service: the bounds are the same.
macro_rules! into_contract {
    ($($bounded:ty => $name:ident),*) => {
        $(
            impl From<$bounded> for $name {
                fn from(value: $bounded) -> Self {
                    Self::try_from(value.0).expect("the bounds are the same")
                }
            }
        )*
    };
}
into_contract!(Id => OrderId, Id => ItemId, Id => SellerId, Id => ClientId, Bounded<1, 1_000> => Quantity);

impl<const MIN: i64, const MAX: i64> fmt::Display for Bounded<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de, const MIN: i64, const MAX: i64> Deserialize<'de> for Bounded<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_i64(BoundedVisitor)
    }
}

struct BoundedVisitor<const MIN: i64, const MAX: i64>;

impl<const MIN: i64, const MAX: i64> Visitor<'_> for BoundedVisitor<MIN, MAX> {
    type Value = Bounded<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        Bounded::new(number).ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        let fitting = i64::try_from(number).ok().and_then(Bounded::new);
        fitting.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }
}

impl<const MIN: i64, const MAX: i64> Type for Bounded<MIN, MAX> {
    const IS_REQUIRED: bool = true;
    type RawValueType = i64;
    type RawElementValueType = i64;

    fn name() -> Cow<'static, str> {
        "integer_int64".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            minimum: (MIN > i64::MIN).then_some(MIN as f64),
            // As a float the largest int64 is one too large; the format says it already.
            maximum: (MAX < i64::MAX).then_some(MAX as f64),
            ..MetaSchema::new_with_format("integer", "int64")
        }))
    }

    fn as_raw_value(&self) -> Option<&i64> {
        Some(&self.0)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a i64> + 'a> {
        Box::new(std::iter::once(&self.0))
    }
}

impl<const MIN: i64, const MAX: i64> ParseFromParameter for Bounded<MIN, MAX> {
    fn parse_from_parameter(value: &str) -> ParseResult<Self> {
        // `parse` alone would take "+1", which is " 1" by the rules of query strings.
        let digits = value.strip_prefix('-').unwrap_or(value);
        let plain = digits.bytes().all(|c| c.is_ascii_digit());
        let number = value.parse().ok().filter(|_| plain);
        number.and_then(Self::new).ok_or_else(|| {
            ParseError::custom(format_args!("a whole number from {MIN} to {MAX} is expected"))
        })
    }
}

impl<const MIN: i64, const MAX: i64> ParseFromJSON for Bounded<MIN, MAX> {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        serde_json::from_value(value.unwrap_or_default()).map_err(ParseError::custom)
    }
}

impl<const MIN: i64, const MAX: i64> ToJSON for Bounded<MIN, MAX> {
    fn to_json(&self) -> Option<Value> {
        Some(self.0.into())
    }
}

/// A text of `MIN` to `MAX` characters, at least one of them visible, and none that hides or turns
/// others or ends a line. `ASCII`: of visible ASCII, with blanks only within, as a header can carry
/// it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Text<const MIN: usize, const MAX: usize, const ASCII: bool = false>(String);

/// A [`Text`] that a header can carry.
pub type AsciiText<const MIN: usize, const MAX: usize> = Text<MIN, MAX, true>;

impl<const MIN: usize, const MAX: usize, const ASCII: bool> Text<MIN, MAX, ASCII> {
    /// The text, if it keeps the rules.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let fits = (MIN..=MAX).contains(&text.chars().count());
        let good = if ASCII { is_visible_ascii } else { is_legible };
        (fits && good(&text)).then_some(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, owned.
    pub fn into_string(self) -> String {
        self.0
    }

    fn expectation() -> String {
        if ASCII {
            return format!("{MIN} to {MAX} visible ASCII characters are expected");
        }
        format!(
            "{MIN} to {MAX} printable characters, at least one of them visible, are expected; \
             no control or format characters, and joiners only between two others"
        )
    }

    /// The rules of [`Text::new`] as far as a pattern can say them.
    fn pattern() -> String {
        if ASCII {
            return "^[!-~]([ -~]*[!-~])?$".to_owned();
        }
        format!(r"^[^{REFUSED}]*[^\s{REFUSED}][^{REFUSED}]*$")
    }
}

fn is_visible_ascii(text: &str) -> bool {
    let printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    printable && !text.is_empty() && text.trim().len() == text.len()
}

impl<'de, const MIN: usize, const MAX: usize, const ASCII: bool> Deserialize<'de>
    for Text<MIN, MAX, ASCII>
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(text).ok_or_else(|| de::Error::custom(Self::expectation()))
    }
}

impl<const MIN: usize, const MAX: usize, const ASCII: bool> Type for Text<MIN, MAX, ASCII> {
    const IS_REQUIRED: bool = true;
    type RawValueType = String;
    type RawElementValueType = String;

    fn name() -> Cow<'static, str> {
        "string".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            min_length: Some(MIN),
            max_length: Some(MAX),
            pattern: Some(Self::pattern()),
            ..MetaSchema::new("string")
        }))
    }

    fn as_raw_value(&self) -> Option<&String> {
        Some(&self.0)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a String> + 'a> {
        Box::new(std::iter::once(&self.0))
    }
}

impl<const MIN: usize, const MAX: usize, const ASCII: bool> ParseFromParameter
    for Text<MIN, MAX, ASCII>
{
    fn parse_from_parameter(value: &str) -> ParseResult<Self> {
        Self::new(value).ok_or_else(|| ParseError::custom(Self::expectation()))
    }
}

impl<const MIN: usize, const MAX: usize, const ASCII: bool> ParseFromJSON
    for Text<MIN, MAX, ASCII>
{
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        serde_json::from_value(value.unwrap_or_default()).map_err(ParseError::custom)
    }
}

impl<const MIN: usize, const MAX: usize, const ASCII: bool> ToJSON for Text<MIN, MAX, ASCII> {
    fn to_json(&self) -> Option<Value> {
        Some(self.0.clone().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_a_plain_decimal_number_within_the_bounds() {
        for (text, expected) in [
            ("1", Some(1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("0", None),
            ("-1", None),
            ("+1", None),
            (" 1", None),
            ("1.0", None),
            ("1e3", None),
            ("abc", None),
            ("", None),
        ] {
            assert_eq!(Id::parse_from_parameter(text).ok().map(Id::get), expected, "{text:?}");
        }
        assert_eq!(Bounded::<-5, 5>::parse_from_parameter("-5").ok().map(Bounded::get), Some(-5));
    }

    #[test]
    fn how_many_are_asked_for_has_a_default() {
        type Limit = Bounded<1, 200>;
        assert_eq!([Limit::new(200), None].map(|asked| Limit::or(asked, 50)), [200, 50]);
    }

    #[test]
    fn json_numbers_keep_the_same_bounds() {
        type Quantity = Bounded<1, 1000>;
        for (json, fits) in [("1", true), ("1000", true), ("1001", false), ("0", false)] {
            assert_eq!(serde_json::from_str::<Quantity>(json).is_ok(), fits, "{json}");
        }
        for json in ["1.5", "\"1\"", "null", "true", "[1]", "18446744073709551615"] {
            let error = serde_json::from_str::<Quantity>(json).unwrap_err().to_string();
            assert!(error.contains("from 1 to 1000"), "{json}: {error}");
        }
    }

    #[test]
    fn a_text_is_counted_in_characters() {
        type Name = Text<1, 6>;
        for (text, fits) in
            [("Банан", true), ("Бананы!", false), ("", false), ("  ", false), ("\u{202e}", false)]
        {
            assert_eq!(Name::new(text).is_some(), fits, "{text:?}");
        }
        assert!(serde_json::from_str::<Name>("7").is_err());
    }

    #[test]
    fn a_text_for_a_header_is_visible_ascii() {
        for (text, fits) in [
            ("a", true),
            ("\"a b\"", true),
            ("a ", false),
            (" a", false),
            ("a\tb", false),
            ("\u{e4}", false),
            ("", false),
            ("a\u{7f}b", false),
        ] {
            assert_eq!(AsciiText::<1, 9>::new(text).is_some(), fits, "{text:?}");
        }
    }

    #[test]
    fn the_schema_states_the_bounds_that_a_float_can_hold() {
        let schema = |reference: MetaSchemaRef| serde_json::to_value(&reference).unwrap();
        let id = schema(Id::schema_ref());
        assert_eq!(id["minimum"], 1.0);
        assert_eq!(id["format"], "int64");
        assert_eq!(id.get("maximum"), None);
        assert_eq!(schema(Bounded::<0, 9>::schema_ref())["maximum"], 9.0);
        assert_eq!(schema(Text::<1, 200>::schema_ref())["maxLength"], 200);
    }
}
