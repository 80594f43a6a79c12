//! What Duragent needs from the operating system: all `unsafe` code and every target switch of the project.
//!
//! Modules offer the same names on every target; what a target cannot do is an error value there, not a missing
//! function.
//!
//! Absent: anything that knows a session, an agent or a provider.

pub mod cancel;
pub mod clock;
pub mod file;
pub mod log;
pub mod sandbox;
