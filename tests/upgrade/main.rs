//! What outlives a version: replacing the binary, state of other versions, backups.

mod archives;
mod attacks;
mod backup;
mod house;
mod kill;
mod machine;
mod newer;
mod older;
mod server;
mod states;
mod web;
