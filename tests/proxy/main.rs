//! Real reverse proxies in front of the server, configured by the very lines of docs/operations.md.

mod caddy;
mod checks;
mod client;
mod guide;
// What the two targets share; each uses a part of it.
#[allow(dead_code)]
#[path = "../access/house.rs"]
mod house;
mod nginx;
