//! Limits that calls share.

mod budget;

pub use budget::{Payment, RetryBudget};
