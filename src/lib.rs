//! Duragent: a durable runtime for AI agents on small machines.
//!
//! The map of the house, its invariants and its flow are in `docs/architecture.md`. Arrows point one way:
//! `core ← platform ← {store, provider, tool} ← session ← {http, gateway, schedule} ← cli ← main`; `config` yields plain
//! structs that `cli` hands down. `cargo xtask tidy` checks that.

pub mod cli;
pub mod config;
pub mod http;
pub mod provider;
pub mod session;
pub mod store;
pub mod tool;
