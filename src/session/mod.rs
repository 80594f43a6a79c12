//! Live sessions: the actor that runs effects, the registry that opens and closes them, and recovery at boot.
//!
//! [`Runtime`] is the one thing front ends talk to.

pub mod api;
pub mod runtime;

pub use runtime::{AgentInfo, Counters, Filter, Follow, Runtime};
