//! An exhaustive check of the saga's protocol: every order of events, every loss of memory, every
//! race that a bounded number of orders and faults allows.
//!
//! The model is the protocol around the decisions: databases, outboxes, relays, topics, consumers,
//! clients and faults. The decisions are the very functions that the services call
//! (`ordersaga_saga`). [`System`] is that model; [`check()`] walks through all its states.
//!
//! A [`Guard`] can be taken away around the unchanged decisions; [`shortest`] then shows what it was
//! for.

pub mod cache;
mod check;
mod consumer;
mod create_order;
mod describe;
mod fault;
mod monitoring;
mod outbox;
mod property;
mod reduction;
mod scenario;
mod sequence;
mod state;
mod step;
mod store;
mod system;

pub use check::{Checked, Counterexample, Effort, Outcome, Progress, check, explore, shortest};
pub use property::{I1, I2, I3, I4, I5, I6, I7, I10, I11, INVARIANTS};
pub use scenario::{Budget, Guard, MUTANTS, Mutant, STANDARD, Scenario, Without};
pub use state::State;
pub use step::Step;
pub use system::System;
