//! What keeps a letter from being put back where it came from.

use std::fmt;

use super::Place;

/// How often a letter is put back and comes again before it stays, unless somebody says otherwise.
pub const MAX_ATTEMPTS: u32 = 3;

/// Why a letter is not put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hindrance {
    /// Something was done about it already.
    Resolved(&'static str),
    /// It came back too often.
    Attempts(u32),
    /// A part of it may be missing.
    Cut,
    /// It comes from a topic that carries no events.
    Topic,
    /// An earlier one of its order stays where it is.
    Behind(Place),
}

impl Hindrance {
    /// What keeps a letter by itself from being put back, whatever others there are. `has_events`
    /// says whether the topic it comes from carries any.
    pub fn of(
        has_events: bool,
        resolved: Option<&'static str>,
        may_be_cut: bool,
        attempts: u32,
        max_attempts: u32,
    ) -> Option<Self> {
        if !has_events {
            Some(Self::Topic)
        } else if let Some(how) = resolved {
            Some(Self::Resolved(how))
        } else if may_be_cut {
            Some(Self::Cut)
        } else if attempts >= max_attempts {
            Some(Self::Attempts(attempts))
        } else {
            None
        }
    }
}

impl fmt::Display for Hindrance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolved(how) => write!(formatter, "it was {how} already (--all takes it again)"),
            Self::Attempts(count) => {
                write!(formatter, "it was put back {count} times and came back (--max-attempts)")
            }
            Self::Cut => write!(formatter, "it was too long for dead-letter, a part is missing"),
            Self::Topic => write!(formatter, "it comes from no topic of events"),
            Self::Behind(earlier) => {
                write!(formatter, "{earlier}, earlier and of the same key, is open and stays")
            }
        }
    }
}
