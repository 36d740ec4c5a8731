//! The HTTP base of every service, on poem and poem-openapi: one error form (RFC 9457), strict
//! request bodies, limits, metrics, health, and the `OpenAPI` document with Swagger UI.
//!
//! The rules for bad input: what cannot be read as a request of the operation is 400 (malformed
//! JSON; a query or header parameter that is missing, unknown, repeated or wrong); JSON that can be
//! read but has wrong, missing, unknown or repeated fields is 422. Either says which.

pub(crate) mod auth;
mod body;
mod cancellation;
mod connections;
mod docs;
mod document;
mod events;
mod json;
mod legible;
mod limits;
mod list;
mod metrics;
mod operation;
mod origin;
mod problem;
mod problem_pages;
mod problem_type;
mod rate;
mod request_id;
mod server;
mod service;
mod site;
mod stream;
mod values;
mod wrong_fields;

#[cfg(test)]
mod tests;

pub use auth::{Access, Principal, Scope, Scopes};
pub use cancellation::{CancelInitiator, CancelReason};
pub use document::{About, Link, print_spec, spec};
pub use events::event;
pub use json::JsonBody;
pub use limits::RequestPlace;
pub use list::List;
pub use metrics::Shed;
pub use problem::{Failure, FieldError, IDEMPOTENCY_KEY, LookupFailure, Problem};
pub use problem_type::ProblemType;
pub use rate::{Client, RateLimit};
pub use server::{Listener, bind, serve, serve_admin};
pub use service::{AdminPages, HttpService};
pub use site::gzip;
pub use values::{AsciiText, Bounded, Id, Text, given};
