//! What `ordersaga bench` measures, as data (`docs/performance.json`), and what follows from it for
//! larger loads. No I/O: the benchmark writes the figures, `ordersaga capacity` reads them.

pub mod document;
mod figures;
pub mod number;
mod spread;
mod table;

pub use figures::{
    Cache, Database, Figures, Kind, Latency, Log, Machine, Process, Run, Second, Series, VERSION,
};
pub use spread::Spread;
pub use table::Table;
