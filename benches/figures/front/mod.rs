//! The front door beside an axum server and nginx, all on this machine, in turns.
//!
//! The axum server (`benches/peers/axum`) has the same routes, answers of the same length, and tokio's default of a thread for
//! each core; its message is one line and one fdatasync. It has none of what a server needs to face a network, nor turns, checksums and
//! replay: it is the floor, not an equal. nginx serves the answer of `/livez` as a file, by one process, without an access
//! log.

mod crowd;
mod peers;
mod requests;
mod subscribers;
mod wrk;

pub use requests::requests;
pub use subscribers::{fan_out, subscribers};

/// What the axum server is called in the table.
const AXUM: &str = "axum";
/// And nginx.
const NGINX: &str = "nginx";
