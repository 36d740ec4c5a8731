//! What every service needs around its own logic: configuration, logs, life and death, HTTP, the
//! database, and the events of the saga as messages of the bus (`sagabus`). Deep modules with small
//! interfaces.

pub mod clock;
pub mod config;
pub mod cpu;
pub mod event;
mod files;
mod former_outbox;
pub mod health;
pub mod http;
pub mod idempotency;
pub mod lifecycle;
pub mod postgres;
pub mod rows;
pub mod service;
pub mod telemetry;
pub mod topics;
mod trace;

/// Requests and records are many small allocations that one thread makes and another frees; with
/// mimalloc's feature `override` librdkafka's as well.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
