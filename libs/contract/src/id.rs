//! Ids and amounts as types of their own: a seller's id cannot be passed for an item's, and a
//! value that exists is a valid one.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

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

macro_rules! ranged_integer {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "i64", into = "i64")]
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
}
