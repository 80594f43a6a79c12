//! The front door: listener, strict request head, routes, SSE and problem documents.
//!
//! Job: turn bytes from outside into calls of [`crate::session::Runtime`], and what comes back into bytes, as
//! docs/formats.md says. One task per connection, none per subscriber; every read, write and wait has a deadline; every
//! body, head, queue and number of connections has a limit.
//!
//! Invariants: nothing is guessed about where a request ends. A client that goes away cancels nothing. What is answered
//! is durable, because only the runtime says so.
//!
//! Absent: TLS (a reverse proxy or a tunnel does that), and any knowledge of how a session works.

mod accept;
mod api;
mod body;
pub mod client;
mod conn;
mod door;
mod guard;
mod io;
mod json;
mod limits;
mod listener;
mod meter;
mod metrics;
mod problem;
mod query;
mod response;
mod route;
mod shared;
mod sse;
mod stream;

pub use door::{BindError, Listen};
pub use duragent_core::net::Proxies;
pub use guard::{Access, Peer, Token};
pub use limits::{BODY_BYTES_MAX, CONNECTIONS_MAX, Limits};
pub use listener::Server;
pub use shared::{Shared, serve_stream};
