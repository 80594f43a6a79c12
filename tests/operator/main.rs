//! What operators see: numbers, the log, and what is called slow. The binary as a black box, driven over its socket.

mod docs;
mod house;
mod lines;
mod metrics;
mod page;
mod pipe;
mod prometheus;
mod slow;
