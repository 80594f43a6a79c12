//! Reading an answer as it arrives, whatever its format.

use super::http::{Answer, Client};
use super::{Delta, Failure};
use duragent_core::event::FailureKind;
use duragent_core::sse::Events;
use std::time::Duration;

/// How long to wait for what follows a whole answer (usage, an end mark): it is whole without them.
const TAIL_WAIT: Duration = Duration::from_secs(5);

/// Where deltas go.
pub(super) type OnDelta<'d> = &'d mut dyn FnMut(Delta<'_>);

/// How far an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// More has to come.
    Open,
    /// Only what the answer can do without may follow.
    Whole,
    /// What follows has no meaning.
    Done,
}

/// An answer in the making.
pub(super) trait Parts {
    /// Takes bytes as they come, cut anywhere.
    fn feed(&mut self, bytes: &[u8], on_delta: OnDelta<'_>) -> Result<(), Failure>;

    /// How far it is.
    fn progress(&self) -> Progress;
}

/// Reads `answer`, whose status is a success, into `parts`. Whether these are whole is for them to say.
///
/// # Errors
/// What went wrong before the answer was whole; the model has worked by then.
pub(super) fn read(mut answer: Answer<'_>, parts: &mut dyn Parts, on_delta: OnDelta<'_>) -> Result<(), Failure> {
    let mut buffer = [0; 8192];
    while parts.progress() != Progress::Done {
        match answer.read(&mut buffer) {
            Ok([]) => break,
            Ok(more) => {
                let before = parts.progress();
                parts.feed(more, on_delta).map_err(worked)?;
                if before == Progress::Open && parts.progress() == Progress::Whole {
                    answer.hurry(TAIL_WAIT);
                }
            }
            Err(_) if parts.progress() == Progress::Whole => break,
            Err(failure) => return Err(failure),
        }
    }
    answer.finish();
    Ok(())
}

/// The failure of an answer that had begun.
pub(super) fn worked(failure: Failure) -> Failure {
    Failure { worked: true, ..failure }
}

/// Hands every event that `bytes` make whole to `take`, type and data, until that says that it was the last.
pub(super) fn each_event(
    client: &Client,
    events: &mut Events,
    mut bytes: &[u8],
    take: &mut dyn FnMut(&str, &str) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    loop {
        let event = events.next(&mut bytes);
        let Some(event) = event.map_err(|error| client.failed(FailureKind::Protocol, &error.to_string()))? else {
            return Ok(());
        };
        let data = event.data.trim();
        if !data.is_empty() && take(event.event, data)? {
            return Ok(());
        }
    }
}
