//! The pure heart of Duragent.
//!
//! Job: everything that can be said about a session without touching the world: the event types and their line codec,
//! the session machine (`decide` and `apply`), policy, the prompt that is derived from a session, and the incremental
//! parsers of every byte stream we read.
//!
//! Invariants: no I/O, no clock, no random number, no `unsafe`. Time and ids come in with the input. The crate is
//! `no_std` so that the compiler polices the first three.
//!
//! Absent: anything that knows a file, a socket, a thread or a provider's wire format.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod agent;
pub mod chunked;
pub mod crc;
pub mod event;
pub mod http_head;
pub mod ids;
pub mod json;
pub mod line;
pub mod message;
pub mod ndjson;
pub mod net;
pub mod packed;
pub mod policy;
pub mod provider;
pub mod secret;
pub mod session;
pub mod skill;
pub mod sse;
pub mod time;
pub mod tool;
