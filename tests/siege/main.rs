//! The server as a process, besieged: attacks over loopback, while somebody else asks for health, a session and a durable
//! message and has to be answered within a second; and memory, descriptors and threads as the kernel counts them afterwards.
//!
//! Every attack shows that it is one: by what the server counts meanwhile, or by what it does to a server that is known to
//! be open to it (`control`).

#[cfg(target_os = "linux")]
mod attacks;
#[cfg(target_os = "linux")]
mod control;
#[cfg(target_os = "linux")]
mod house;
#[cfg(target_os = "linux")]
mod shortage;
#[cfg(target_os = "linux")]
mod sockets;
