//! Clients of the three services of ordersaga.

pub use ordersaga_orders as orders;
pub use ordersaga_status as status;
pub use ordersaga_store as store;
