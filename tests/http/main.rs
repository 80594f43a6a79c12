//! The front door from outside: raw bytes over real sockets on loopback.

mod api;
mod client;
mod corpus;
mod events;
mod house;
mod limits;
mod model;
mod vectors;
