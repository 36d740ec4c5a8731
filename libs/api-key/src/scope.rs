//! What a principal may do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A right to use some of the operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Scope {
    /// `orders:read`: see orders: their status, evidence, lists and streams, and what is reserved
    /// for them.
    OrdersRead,
    /// `orders:write`: place and cancel orders.
    OrdersWrite,
    /// `items:write`: add items.
    ItemsWrite,
    /// `admin`: everything, also dead letters and `/metrics`.
    Admin,
}

impl Scope {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::OrdersRead, Self::OrdersWrite, Self::ItemsWrite, Self::Admin];

    /// Its name in tokens, in key files and in the documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OrdersRead => "orders:read",
            Self::OrdersWrite => "orders:write",
            Self::ItemsWrite => "items:write",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Scope> for &'static str {
    fn from(scope: Scope) -> Self {
        scope.name()
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|scope| scope.name() == name);
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("there is no scope {name:?}; there are {names}")
        })
    }
}

impl TryFrom<String> for Scope {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for scope in Scope::ALL {
            assert_eq!(scope.name().parse(), Ok(scope));
        }
        let message = "orders".parse::<Scope>().unwrap_err();
        assert!(message.contains("orders:read"), "{message}");
    }
}
