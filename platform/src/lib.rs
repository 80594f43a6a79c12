//! What Duragent needs from the operating system: all `unsafe` code and every target switch of the project.
//!
//! Modules offer the same names on every target; what a target cannot do is an error value there, not a missing
//! function.
//!
//! Absent: anything that knows a session, an agent or a provider.

#[cfg(not(unix))]
compile_error!("duragent needs a Unix: processes, signals and durable renames are used as POSIX defines them");

pub mod cancel;
pub mod clock;
pub mod file;
pub mod log;
pub mod notify;
mod poll;
pub mod process;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod procfs;
pub mod reserve;
pub mod sandbox;
pub mod signal;
pub mod socket;
pub mod terminal;
pub mod usage;
pub mod wear;
