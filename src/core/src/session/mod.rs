//! The session machine: `decide` says what follows from an input, `apply` makes it so.
//!
//! Job: turns, steps, tool calls, approvals, retries, limits and what a crash leaves, as a pure function of the log.
//!
//! Invariants: `apply` is the only code that changes [`State`], the same for live and replay. `decide` changes nothing
//! and its effects are worth nothing until the events beside them are durable. Every call the model asks for gets exactly
//! one result before the model is asked again or the turn ends.
//!
//! Absent: clocks (time comes with the input), ids (derived from turn, step and position), I/O.

mod ask;
mod budget;
mod decide;
mod fail;
mod history;
mod input;
mod recover;
mod state;
mod step;
mod turn;

pub use ask::{Fit, messages, place};
pub use budget::{Budget, Budgets, DAY_MS, Meter, Price, Spent};
pub use decide::decide;
pub use history::{Cut, HISTORY_BYTES_MAX, History};
pub use input::{Accepted, Compaction, Decided, Effect, Input, InputKind, Limits, Model, Rejection, Rules, Timer};
pub use recover::CRASHES_MAX;
pub use state::{
    DISK_FULL, FINISHED_MAX, Finished, GRANTS_MAX, KEYS_MAX, Key, Learned, OFFLINE, Queued, State, digest,
};
pub use step::{Stepped, hold, step};
pub use turn::{Call, CallStatus, Phase, Repeat, Turn};

#[cfg(test)]
mod tests;
