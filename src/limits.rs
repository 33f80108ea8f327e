//! Limits that calls share.

mod budget;
mod limiter;

pub use budget::{Payment, RetryBudget};
pub use limiter::{Look, Place, RateLimiter, Ticket, Waiter};
