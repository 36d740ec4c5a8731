//! The promises of the whole system, kept on real parts: Postgres, Redis, the broker and the three
//! services as processes of their own. Each test has databases, topics and services to itself
//! ([`bed`]); the parts are shared by all, except in tests that stop one.

mod bad_input;
mod bed;
mod cache;
mod capacity;
mod client;
mod compose;
mod crash;
mod defects;
mod delivery;
mod dlq;
mod events;
mod http;
mod invariants;
mod kubernetes;
mod load;
mod observability;
mod outage;
mod overload;
mod partitioner;
mod poison;
mod registry;
mod retention;
mod roles;
mod scaling;
mod secure;
mod session;
mod trace;
