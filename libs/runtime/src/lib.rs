//! What every service needs around its own logic: configuration, logs, life and death, HTTP, the
//! database, the broker. Deep modules with small interfaces; nothing here knows what an order is.

pub mod backoff;
pub mod clock;
pub mod config;
pub mod consumer;
pub mod crash;
pub mod dead_letters;
mod files;
pub mod group_commit;
pub mod halves;
pub mod health;
pub mod http;
pub mod idempotency;
mod kafka;
pub mod lifecycle;
pub mod outbox;
pub mod pace;
pub mod postgres;
mod producer;
pub mod raw_record;
pub mod relay;
pub mod rows;
pub mod service;
pub mod telemetry;
pub mod topics;
mod trace;

/// Requests and records are many small allocations that one thread makes and another frees; with
/// mimalloc's feature `override` librdkafka's as well.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
