//! The real parts of ordersaga on loopback: five Postgres clusters, Redis, a Kafka-protocol broker
//! and the services themselves, for `ordersaga up` and for the tests.
//!
//! Every child process is started with a parent-death signal, so that none outlives the process
//! that started it, however that one ends. Nothing here is bound to one tokio runtime: handles may
//! sit in statics and be used from every test.

mod broker;
mod companion;
mod databases;
mod digest;
mod folder;
mod identity;
mod jars;
mod logs;
mod member;
mod names;
mod part;
mod parts;
mod ports;
mod postgres;
mod private;
mod process;
pub mod programs;
mod redis;
mod report;
mod runner;
mod security;
mod service;
mod shared;
mod stack;
pub mod state;

pub use broker::{Listener, VERSION as KAFKA_VERSION, prepare as prepare_broker};
pub use companion::Companion;
pub use databases::{Database, Databases, Server};
pub use folder::{TemporaryFolder, cache_folder};
pub use identity::{Condition, Identity};
pub use logs::{shorten_logs, tail};
pub use member::Member;
pub use names::{Cluster, Service};
pub use part::Part;
pub use parts::{Parts, Passwords};
pub use ports::{free_port, is_free};
pub use private::{open_to_append, own_folder, private_folder, write_private};
pub use process::{is_alive, resident_bytes, run};
pub use report::{Report, Step};
pub use security::Security;
pub use service::{ServiceProcess, binary, is_ready, service_env};
pub use shared::{PARTS_VARIABLE, shared};
pub use stack::Stack;
