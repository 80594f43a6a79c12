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
mod follow;
mod fork;
mod hub;
mod pool;
mod runner;
mod runtime;
mod setup;
mod views;

pub use follow::Follow;
pub use hub::Hub;
pub use pool::Pool;
pub use runner::Runner;
pub use runtime::Runtime;
pub use setup::{Agent, DeviceLimits, Setup, Workdir};

use duragent_core::event::Body;
use std::sync::atomic::{AtomicU64, Ordering};

/// What has happened since the runtime started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Commits to logs: one fdatasync each.
    pub commits: AtomicU64,
    /// Events in them.
    pub events: AtomicU64,
    /// Turns begun.
    pub turns_started: AtomicU64,
    /// Turns that came to rest.
    pub turns_finished: AtomicU64,
    /// Model calls made.
    pub model_calls: AtomicU64,
    /// Tool calls run.
    pub tool_calls: AtomicU64,
}

impl Counters {
    fn count(&self, body: &Body) {
        self.events.fetch_add(1, Ordering::Relaxed);
        match body {
            Body::TurnStarted { .. } => self.turns_started.fetch_add(1, Ordering::Relaxed),
            Body::TurnFinished { .. } => self.turns_finished.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}
