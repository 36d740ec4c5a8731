//! Whether a whole system kept its promises, judged from outside: topics read from their beginning,
//! all databases by SQL, Redis, the answers over HTTP, and what clients were told. Nothing here uses
//! the services' code, so that an error there cannot hide itself.
//!
//! [`Onlooker::at_rest`] waits until nothing is on its way any more; [`Evidence::gather`] then reads
//! everything, and [`Evidence::violations`] compares. Of a system that goes on taking orders
//! [`Evidence::newest`] reads the newest of them.

mod check;
mod history;
mod onlooker;
mod records;
mod said;
mod sizes;
mod snapshot;
mod verdict;
mod window;

pub use check::{Evidence, Violation};
pub use history::{History, Wish};
pub use onlooker::{Onlooker, consumed};
pub use records::{EVENTS, Log, Place, Record};
pub use said::{Said, Told};
pub use sizes::{Cached, Segments};
pub use snapshot::{ItemRow, OrderRow, ReservationRow, Snapshot};
pub use verdict::{INVARIANTS, Invariant, Outcome, Unchecked, Verdict};
pub use window::Window;
