//! Tools for the tests of code that calls models: a clock in which an hour takes no
//! time, and, with any release of crabllm-core, a provider that follows a script.

#[cfg(feature = "_provider")]
mod scripted;
mod virtual_timer;

#[cfg(feature = "_provider")]
pub(crate) use scripted::{Reply, ScriptedError};
#[cfg(feature = "_provider")]
pub use scripted::{Scripted, ScriptedAttempt, Step};
pub use virtual_timer::{VirtualSleep, VirtualTask, VirtualTimer};
