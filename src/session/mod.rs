//! Live sessions: the actor that runs effects, the registry that opens and closes them, and recovery at boot.
//!
//! [`Runtime`] is the one thing front ends talk to.
//!
//! Invariants: one actor a session, and it holds the session's lease. The runner takes durable effects only, the hub
//! durable events only. Sessions at rest leave memory.
//!
//! Absent: configuration (a [`Setup`] comes in as plain values), sockets, terminals.

pub mod api;

mod actor;
mod approve;
mod circuit;
mod follow;
mod fork;
mod hub;
mod ledger;
pub mod meter;
mod oneshot;
mod pages;
mod pool;
mod prompt;
mod registry;
pub mod retention;
mod runner;
mod runtime;
mod setup;
mod space;
mod stall;
mod tally;
mod views;

pub use api::{AgentInfo, Filter};
pub use circuit::Circuit;
pub use follow::Follow;
pub use hub::Hub;
pub use ledger::{Entry, OfModel, Sum, Today};
pub use pages::Pages;
pub use pool::{Depth, Pool};
pub use runner::Runner;
pub use runtime::Runtime;
pub use setup::{About, Agent, Agents, DeviceLimits, Endpoint, Setup, Workdir};
pub use tally::{Operation, Slow, Tally};

/// What is there now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Sessions in memory.
    pub sessions_live: u64,
    /// The same by what they do, as far as they can do it in memory.
    pub sessions: [(&'static str, u64); 5],
    /// Commands that wait in the mailboxes of sessions.
    pub commands: u64,
    /// Jobs that wait and threads there are, by pool.
    pub pools: [(&'static str, Depth); 3],
}

#[cfg(test)]
mod tests;
