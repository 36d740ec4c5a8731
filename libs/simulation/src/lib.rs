//! The pipeline as a discrete-event simulation: what queues do past one machine. [`fit`] takes the
//! costs from the benchmark's figures, [`pipeline`] makes a [`network`] of machines and stages of
//! them, [`engine`] runs it, [`validation`] holds it against the benchmark, [`experiment`] asks
//! what cannot be tried here. No I/O, no clocks; the same seed gives the same report.

pub mod engine;
pub mod experiment;
pub mod fit;
pub mod network;
pub mod pipeline;
pub mod validation;
