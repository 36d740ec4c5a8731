//! The promises of the whole system, kept on real parts: Postgres, Redis, the broker and the three
//! services as processes of their own. Each test has databases, topics and services to itself
//! ([`bed`]); the parts are shared by all, except in tests that stop one.

mod auth;
mod bad_input;
mod bed;
mod bulk;
mod cache;
mod capacity;
mod client;
mod collections;
mod compose;
mod crash;
mod defects;
mod degraded;
mod delivery;
mod desk;
mod dlq;
mod documents;
mod events;
mod evidence;
mod http;
mod invariants;
mod ipv6;
mod kubernetes;
mod library;
mod lists;
mod load;
mod migrations;
mod observability;
mod outage;
mod overload;
mod partitioner;
mod poison;
mod registry;
mod restored;
mod retention;
mod roles;
mod scaling;
mod sdk;
mod secure;
mod session;
mod stalled;
mod streams;
mod tool;
mod trace;
mod up;
