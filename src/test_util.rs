//! Tools for the tests of code that calls models: a clock in which an hour takes no
//! time, and a provider that follows a script.

mod scripted;
mod virtual_timer;

pub use scripted::{Scripted, ScriptedAttempt, Step};
pub use virtual_timer::{VirtualSleep, VirtualTask, VirtualTimer};
