//! Reads a request body, never more of it than allowed.

use super::io::{Io, Lost};
use super::problem::{self, Problem};
use super::shared::Shared;
use duragent_core::chunked::{Decoder, Malformed};
use duragent_core::http_head::Framing;
use std::time::Instant;

/// Why there is no body.
pub(super) enum Failed {
    /// The client is told, and the connection ends: where the next request starts is unknown.
    Refused(Problem),
    /// Nobody is left to tell.
    Closed,
}

/// Refuses a body that says it is too long, before a byte of it is read.
pub(super) fn admit(framing: Framing, bytes_max: usize) -> Result<(), Problem> {
    match framing {
        Framing::Length(n) if n > bytes_max as u64 => Err(too_large(bytes_max)),
        _ => Ok(()),
    }
}

/// Reads the body. Memory is taken as bytes arrive, not as they are announced, and by all connections together no more than
/// [`super::Limits`] has.
pub(super) async fn read(io: &mut Io, framing: Framing, shared: &Shared) -> Result<Vec<u8>, Failed> {
    if framing == Framing::Empty {
        return Ok(Vec::new());
    }
    io.waits_anew().map_err(|_| Failed::Closed)?;
    let body = arrive(io, framing, shared).await;
    shared.arrives(&io.live, 0);
    body
}

async fn arrive(io: &mut Io, framing: Framing, shared: &Shared) -> Result<Vec<u8>, Failed> {
    let limits = shared.limits();
    let deadline = Instant::now() + limits.body_time_max;
    match framing {
        Framing::Empty => Ok(Vec::new()),
        Framing::Length(n) => {
            let n = usize::try_from(n).unwrap_or(usize::MAX);
            while io.pending.len() < n {
                more(io, deadline).await?;
                shared.arrives(&io.live, io.pending.len());
            }
            let rest = io.pending.split_off(n);
            Ok(std::mem::replace(&mut io.pending, rest))
        }
        Framing::Chunked => {
            let (mut decoder, mut body) = (Decoder::new(), Vec::new());
            loop {
                let malformed = |e: Malformed| Failed::Refused(Problem::new(problem::BAD_REQUEST, e.to_string()));
                let taken = decoder.decode(&io.pending, &mut body).map_err(malformed)?;
                io.pending.drain(..taken);
                // Of a chunk that says it is too long, the rest is not awaited.
                if decoder.left().saturating_add(body.len() as u64) > limits.body_bytes_max as u64 {
                    return Err(Failed::Refused(too_large(limits.body_bytes_max)));
                }
                if decoder.is_done() {
                    return Ok(body);
                }
                more(io, deadline).await?;
                shared.arrives(&io.live, body.len() + io.pending.len());
            }
        }
    }
}

async fn more(io: &mut Io, deadline: Instant) -> Result<(), Failed> {
    io.fill(deadline).await.map_err(|lost| match lost {
        Lost::Closed => Failed::Closed,
        Lost::Late => Failed::Refused(Problem::new(problem::TIMEOUT, "the body took too long to arrive")),
    })
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(problem::TOO_LARGE, format!("expected a body of at most {bytes_max} bytes"))
}
