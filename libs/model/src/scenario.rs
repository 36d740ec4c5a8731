//! What is checked: how many orders for how much stock, how many faults, and which guards are there.

use std::fmt;

use clap::ValueEnum;
use ordersaga_contract::{Initiator, Reason};

use crate::property::{I1, I2, I3, I5, I6, I7, I10};
use crate::system::System;

/// Orders for one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// One order, one unit: small enough for many faults
    OneOrder,
    /// Two orders for the last unit
    TwoOrders,
    /// Three orders for two units
    ThreeOrders,
    /// An order for two units and two for one, of two
    MixedOrders,
}

impl Scenario {
    /// How many units each order wants.
    pub const fn orders(self) -> &'static [u8] {
        match self {
            Self::OneOrder => &[1],
            Self::TwoOrders => &[1, 1],
            Self::ThreeOrders => &[1, 1, 1],
            Self::MixedOrders => &[2, 1, 1],
        }
    }

    /// How many units there are.
    pub const fn stock(self) -> u8 {
        match self {
            Self::OneOrder | Self::TwoOrders => 1,
            Self::ThreeOrders | Self::MixedOrders => 2,
        }
    }
}

/// How many faults may happen in one run, each at any moment. Finite, so that the check ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Budget {
    /// Crashes of a service (any of the three), or of its relay alone.
    pub crashes: u8,
    /// Records written to their topic again, and answers to a create lost on their way.
    pub duplicates: u8,
    /// Attempts by an instance that lost its partition and does not know it.
    pub zombies: u8,
    /// Records put aside unread, as letters are, which come back at the end of their topic.
    pub late: u8,
}

impl Budget {
    /// The most of each that the model's fixed sizes have room for.
    pub const MAX: u8 = 3;

    /// So many of each, and nothing late.
    pub const fn new(crashes: u8, duplicates: u8, zombies: u8) -> Self {
        Self { crashes, duplicates, zombies, late: 0 }
    }

    /// The same with so many records late.
    #[must_use]
    pub const fn and_late(self, late: u8) -> Self {
        Self { late, ..self }
    }

    /// How many faults are left.
    pub const fn left(self) -> u8 {
        self.crashes + self.duplicates + self.zombies + self.late
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { crashes, duplicates, zombies, late } = self;
        write!(f, "crashes {crashes}, duplicates {duplicates}, zombies {zombies}, late {late}")
    }
}

/// What is checked when nothing else is said: as much as takes less than a minute.
pub const STANDARD: [(Scenario, Budget); 4] = [
    (Scenario::OneOrder, Budget::new(2, 2, 2).and_late(2)),
    (Scenario::TwoOrders, Budget::new(1, 1, 1).and_late(1)),
    (Scenario::ThreeOrders, Budget::new(1, 1, 1)),
    (Scenario::MixedOrders, Budget::new(0, 0, 1)),
];

/// What holds the protocol together. Each can be taken away around the unchanged decisions, to see
/// that the check then fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Guard {
    /// A reset that overtakes its placement leaves a row behind
    Tombstone,
    /// A consumer moves its offset by compare-and-set
    Fence,
    /// The store ignores resets of its own
    OwnReset,
    /// A placement whose order the store has a row for is not decided again
    Dedupe,
    /// Events are published after the commit, from the outbox; without it, before the commit
    Outbox,
    /// An offset is moved in the transaction of the effects; without it, in one before
    AtomicOffset,
    /// Rows that a process leaves behind are published by another
    Takeover,
    /// Stock is read under the lock under which it is written
    StockLock,
    /// A request that comes again under its key gets the order of the first
    IdempotencyKey,
    /// A status is a fold over all facts; without it, the last fact heard
    Fold,
}

impl Guard {
    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// The guards that are missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Without(u16);

/// A system without some guards, and what the check makes of it.
#[derive(Debug, Clone, Copy)]
pub struct Mutant {
    /// The guards it lacks.
    pub without: &'static [Guard],
    /// Where that shows.
    pub scenario: Scenario,
    /// The faults it takes.
    pub budget: Budget,
    /// The property that is violated; without one, none is.
    pub breaks: Option<&'static str>,
}

/// Each guard taken away, and the fence together with what stands behind it.
pub const MUTANTS: [Mutant; 11] = [
    Mutant::new(&[Guard::Tombstone], Scenario::OneOrder, (0, 0, 0), Some(I3)),
    Mutant::new(&[Guard::Dedupe], Scenario::OneOrder, (1, 0, 0), Some(I2)),
    Mutant::new(&[Guard::Fence], Scenario::OneOrder, (0, 0, 1), Some(I10)),
    Mutant::new(&[Guard::Fence, Guard::Dedupe], Scenario::OneOrder, (0, 0, 1), Some(I2)),
    Mutant::new(&[Guard::Outbox], Scenario::OneOrder, (1, 0, 0), Some(I1)),
    Mutant::new(&[Guard::AtomicOffset], Scenario::OneOrder, (1, 0, 0), Some(I3)),
    Mutant::new(&[Guard::Takeover], Scenario::OneOrder, (1, 0, 0), Some(I6)),
    Mutant::new(&[Guard::StockLock], Scenario::TwoOrders, (0, 0, 0), Some(I2)),
    Mutant::new(&[Guard::IdempotencyKey], Scenario::OneOrder, (0, 1, 0), Some(I5)),
    Mutant::new(&[Guard::Fold], Scenario::OneOrder, (0, 0, 0), Some(I7)),
    // Where the store has told of a refusal it has a row for the order, and a reset of an order that
    // holds nothing changes nothing: the check for its own resets only saves it the look.
    Mutant::new(&[Guard::OwnReset], Scenario::TwoOrders, (1, 1, 1), None),
];

impl Mutant {
    const fn new(
        without: &'static [Guard],
        scenario: Scenario,
        (crashes, duplicates, zombies): (u8, u8, u8),
        breaks: Option<&'static str>,
    ) -> Self {
        let budget = Budget::new(crashes, duplicates, zombies);
        Self { without, scenario, budget, breaks }
    }

    /// The system.
    pub fn system(&self) -> System {
        System::without(self.scenario, self.budget, self.without.iter().copied().collect())
    }
}

impl Without {
    /// Nothing is missing.
    pub const NOTHING: Self = Self(0);

    /// Whether `guard` is missing.
    pub const fn lacks(self, guard: Guard) -> bool {
        self.0 & guard.bit() != 0
    }

    /// Whether something is missing on which the module `reduction` relies.
    pub(crate) const fn is_irreducible(self) -> bool {
        self.0 & !Guard::OwnReset.bit() != 0
    }

    /// Whether `guard` is there.
    pub const fn has(self, guard: Guard) -> bool {
        !self.lacks(guard)
    }
}

impl FromIterator<Guard> for Without {
    fn from_iter<I: IntoIterator<Item = Guard>>(guards: I) -> Self {
        Self(guards.into_iter().fold(0, |bits, guard| bits | guard.bit()))
    }
}

/// The reason that goes with each way for an order to end in these scenarios.
pub(crate) const fn reason_of(initiator: Initiator) -> Reason {
    match initiator {
        Initiator::Client => Reason::CancelledByClient,
        Initiator::Store => Reason::OutOfStock,
        Initiator::Deadline => Reason::DeadlineExceeded,
    }
}
