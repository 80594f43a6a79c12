//! The fault campaign: the release binary as a black box. The independent log reader, the oracle and the strace driver;
//! the campaign itself follows as soon as the binary runs.

mod inject;
mod json;
mod log;
mod oracle;
