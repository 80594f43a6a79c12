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
mod follow;
mod fork;
mod hub;
mod oneshot;
mod pages;
mod pool;
mod registry;
mod runner;
mod runtime;
mod setup;
mod views;

pub use api::{AgentInfo, Filter};
pub use follow::Follow;
pub use hub::Hub;
pub use pages::Pages;
pub use pool::Pool;
pub use runner::Runner;
pub use runtime::Runtime;
pub use setup::{About, Agent, Agents, DeviceLimits, Setup, Workdir};

use duragent_core::event::Body;
use std::sync::atomic::{AtomicU64, Ordering};

/// What has happened since the runtime started, and what is there now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sessions in memory.
    pub sessions_live: u64,
    /// Commits to logs: one fdatasync each.
    pub commits: u64,
    /// Events in them.
    pub events: u64,
    /// Turns begun.
    pub turns_started: u64,
    /// Turns that came to rest.
    pub turns_finished: u64,
    /// Model calls made.
    pub model_calls: u64,
    /// Tool calls run.
    pub tool_calls: u64,
}

/// The counters as they are counted.
#[derive(Debug, Default)]
struct Tally {
    commits: AtomicU64,
    events: AtomicU64,
    turns_started: AtomicU64,
    turns_finished: AtomicU64,
    model_calls: AtomicU64,
    tool_calls: AtomicU64,
}

impl Tally {
    fn read(&self, sessions_live: u64) -> Counters {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Counters {
            sessions_live,
            commits: get(&self.commits),
            events: get(&self.events),
            turns_started: get(&self.turns_started),
            turns_finished: get(&self.turns_finished),
            model_calls: get(&self.model_calls),
            tool_calls: get(&self.tool_calls),
        }
    }

    fn count(&self, body: &Body) {
        self.events.fetch_add(1, Ordering::Relaxed);
        match body {
            Body::TurnStarted { .. } => self.turns_started.fetch_add(1, Ordering::Relaxed),
            Body::TurnFinished { .. } => self.turns_finished.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

#[cfg(test)]
mod tests;
