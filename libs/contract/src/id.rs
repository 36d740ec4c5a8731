//! Ids and amounts as types of their own: a seller's id cannot be passed for an item's, and a
//! value that exists is a valid one.
//!
//! In JSON they are integers in any spelling: `1`, `1.0` and `1e0` are the same number.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A number outside the range its type allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an integer from {min} to {max}")]
pub struct OutOfRange {
    /// Smallest value allowed.
    pub min: i64,
    /// Largest value allowed.
    pub max: i64,
}

/// The schema of an integer from `min` to `max`. A limit that a 64-bit float cannot hold exactly is
/// left to the format: a registry that compares schemas by such floats refuses the schema.
fn integer(min: i64, max: i64) -> Schema {
    let mut schema = json_schema!({ "type": "integer", "format": "int64", "minimum": min });
    if max <= LARGEST_EXACT {
        schema.insert("maximum".to_owned(), max.into());
    }
    schema
}

/// The largest integer below which a 64-bit float skips none.
const LARGEST_EXACT: i64 = 1 << 53;

/// An integer as JSON may spell it. JSON knows no difference between `1` and `1.0`, and some writers
/// spell every number as a fraction.
pub(crate) struct Integer(pub(crate) i64);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not `deserialize_any`: serde_json may be built to give numbers to that as maps.
        deserializer.deserialize_i64(IntegerVisitor)
    }
}

struct IntegerVisitor;

impl Visitor<'_> for IntegerVisitor {
    type Value = Integer;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an integer")
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Integer, E> {
        Ok(Integer(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Integer, E> {
        let unexpected = Unexpected::Unsigned(value);
        value.try_into().map(Integer).map_err(|_| E::invalid_value(unexpected, &self))
    }

    #[expect(clippy::cast_possible_truncation, reason = "a whole number within 2^53 is exact")]
    fn visit_f64<E: Error>(self, value: f64) -> Result<Integer, E> {
        // Beyond, the number that was written may be another one.
        let is_exact = value.fract() == 0.0 && value.abs() <= LARGEST_EXACT as f64;
        if is_exact {
            Ok(Integer(value as i64))
        } else {
            Err(E::invalid_value(Unexpected::Float(value), &self))
        }
    }
}

macro_rules! ranged_integer {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "Integer", into = "i64")]
        pub struct $name(i64);

        impl $name {
            /// Smallest value allowed.
            pub const MIN: i64 = 1;
            /// Largest value allowed.
            pub const MAX: i64 = $max;

            /// The plain number.
            pub const fn get(self) -> i64 {
                self.0
            }
        }

        impl TryFrom<i64> for $name {
            type Error = OutOfRange;

            fn try_from(value: i64) -> Result<Self, OutOfRange> {
                if (Self::MIN..=Self::MAX).contains(&value) {
                    Ok(Self(value))
                } else {
                    Err(OutOfRange { min: Self::MIN, max: Self::MAX })
                }
            }
        }

        impl TryFrom<Integer> for $name {
            type Error = OutOfRange;

            fn try_from(value: Integer) -> Result<Self, OutOfRange> {
                value.0.try_into()
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                integer(Self::MIN, Self::MAX)
            }
        }

        impl From<$name> for i64 {
            fn from(value: $name) -> i64 {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

ranged_integer!(
    /// An order. Counted from 1 by service-create-order.
    OrderId,
    i64::MAX
);
ranged_integer!(
    /// An item of the catalogue. Counted from 1 by service-store.
    ItemId,
    i64::MAX
);
ranged_integer!(
    /// A seller.
    SellerId,
    i64::MAX
);
ranged_integer!(
    /// A client who orders.
    ClientId,
    i64::MAX
);
ranged_integer!(
    /// Units of one item, in an order or in stock.
    Quantity,
    1_000
);

impl Default for Quantity {
    /// One unit: what the seed's contract, which knows no quantity, means.
    fn default() -> Self {
        Self(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_start_at_one_and_quantities_end_at_a_thousand() {
        assert!(OrderId::try_from(0).is_err());
        assert!(OrderId::try_from(-1).is_err());
        assert_eq!(OrderId::try_from(i64::MAX).map(OrderId::get), Ok(i64::MAX));
        assert!(Quantity::try_from(1_001).is_err());
        assert_eq!(Quantity::try_from(1_000).map(Quantity::get), Ok(1_000));
    }

    #[test]
    fn json_carries_plain_numbers_and_refuses_what_the_type_refuses() {
        assert_eq!(serde_json::from_str::<ItemId>("7").unwrap().get(), 7);
        let error = serde_json::from_str::<ItemId>("0").unwrap_err().to_string();
        assert!(error.contains("must be an integer from 1 to"), "{error}");
        assert!(serde_json::from_str::<ItemId>("9223372036854775808").is_err());
    }

    #[test]
    fn an_integer_may_be_spelt_as_json_allows_and_is_never_rounded() {
        for spelling in ["7", "7.0", "7e0", "0.7e1", "70E-1", "7.000"] {
            assert_eq!(serde_json::from_str::<ItemId>(spelling).unwrap().get(), 7, "{spelling}");
        }
        for other in ["7.5", "1e300", "9007199254740994.0", "-7.0", "\"7\"", "true", "null", "[7]"]
        {
            assert!(serde_json::from_str::<ItemId>(other).is_err(), "{other}");
        }
        assert_eq!(serde_json::from_str::<ItemId>("9223372036854775807").unwrap().get(), i64::MAX);
    }
}
