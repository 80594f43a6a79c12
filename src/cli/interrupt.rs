//! Work that a signal may end.

use super::{Failure, live, serve};
use duragent_platform::signal::{Signal, Signals};

/// Catches signals from here on; once in a process.
pub fn catch() -> Result<Signals, Failure> {
    Signals::new().map_err(|error| Failure::new(format!("cannot catch signals: {error}")))
}

/// Does blocking `work` on a thread of its own, up to its end or a signal: then the thread is left to end with the process.
pub fn until_interrupted(
    signals: &Signals,
    work: impl FnOnce() -> Result<u8, Failure> + Send + 'static,
) -> Result<u8, Failure> {
    let told = async {
        let ends = |signal| matches!(signal, Signal::Interrupt | Signal::Terminate | Signal::Hangup);
        Ok(live::code(serve::wait_for(signals, ends).await))
    };
    smol::block_on(smol::future::or(told, smol::unblock(work)))
}
