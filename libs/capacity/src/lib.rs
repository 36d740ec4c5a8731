//! What a load needs: requests, network, storage, caches, topics, nodes and money, from what one
//! order was measured to cost ([`Costs`]) and from what is assumed of the load and the machines
//! ([`Parameters`]). No I/O: `ordersaga capacity` shows a [`Plan`], documents embed its tables.

mod costs;
pub mod layout;
mod parameters;
mod plan;
mod relation;
mod sections;
pub mod zipf;

pub use costs::{Constant, Costs};
pub use parameters::{Overrides, Parameters};
pub use plan::{Limit, Plan, Tier};
pub use relation::{ALL as RELATIONS, Relation, Rows, Shape};
pub use sections::{block, growth, summary};
