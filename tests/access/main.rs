//! Who may come in, and what nobody gets to see: the binary as a server, and requests written byte by byte.

mod canary;
mod client;
mod house;
mod names;
mod peers;
mod tokens;
