//! The server as a service: its files, what it tells supervisors, and every init system that can be had, for real.

mod command;
mod files;
mod inits;
mod notify;
mod systemd;
mod tree;
