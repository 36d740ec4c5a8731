//! The decisions of the saga as pure functions: no I/O, no clocks. The services call them inside
//! their transactions; property tests and the model checker call the very same code.
//!
//! * [`order`]: what service-create-order makes of a cancel, a deadline or the store's answer,
//! * [`stock`]: what service-store makes of a placed or a reset order (the pivot),
//! * [`status`]: what service-monitoring-order says of an order, given the facts it has heard.

pub mod order;
pub mod status;
pub mod stock;
