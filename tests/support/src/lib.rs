//! Servers on loopback that speak the APIs of model providers as they are documented, say what a test tells them to, faults
//! included, and refuse what the real ones refuse, in their words.
//!
//! ```ignore
//! let fake = Fake::anthropic().call("bash", r#"{"command":"ls"}"#).text("Two files.");
//! // … a turn against fake.url() …
//! assert_eq!(fake.calls().len(), 2);
//! ```
//!
//! Each request for an answer takes the next of the script. A request that the real API would refuse gets its error instead, and
//! the test fails at the end unless it said [`Fake::may_refuse`]: what a fake lets pass proves nothing.
//!
//! It shares no code with Duragent, its reader of JSON included, so that no mistake is made on both sides.
//!
//! Absent: answers that are not streamed, TLS, images.

mod answer;
mod api;
pub mod cgroup;
mod date;
mod fake;
mod http;
mod json;
mod plan;
pub mod programs;
pub mod steady;
mod told;
pub mod weather;

pub use answer::{Answer, Call, Cut, End, Fault, Split, Usage};
pub use date::http_date;
pub use fake::Fake;
pub use http::{Answered, Asked, ask};
pub use json::Json;

#[cfg(test)]
mod tests;
