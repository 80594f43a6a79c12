//! One connection: its head, the decision, and bytes both ways until the end.
//!
//! Invariants: both sockets are non-blocking, and every wait is one for the end of the proxy as well. A side is read only
//! when what it sent before has been passed on, so two buffers are all that a connection holds.

use super::address::Target;
use super::head::{self, Bad, HEAD_BYTES_MAX, Request};
use super::{Shared, dial};
use crate::poll::{self, Source};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

/// Bytes on the way in one direction; what is more waits with the sender.
const BUFFER_BYTES: usize = 16 * 1024;

/// Most bytes of a request read after it was refused, so that the client reads the answer before it sees the end.
const DISCARD_BYTES_MAX: usize = 256 * 1024;

/// The answer to `CONNECT` (RFC 9110 section 9.3.6).
const TUNNEL: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// Why nothing was passed on.
pub(super) enum End {
    /// The client has gone, or the proxy ends.
    Silent,
    /// Status and reason as in the status line, and what the client is told.
    Answer(&'static str, String),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Silent
    }
}

impl From<Bad> for End {
    fn from(bad: Bad) -> Self {
        match bad {
            Bad::Malformed(what) => Self::Answer("400 Bad Request", what.to_owned()),
            Bad::TooLarge => Self::Answer("431 Request Header Fields Too Large", "head too large".to_owned()),
        }
    }
}

/// Serves `client` until one of the two, or the proxy, ends.
pub(super) fn serve(client: &TcpStream, shared: &Arc<Shared>) {
    // An error on a socket ends the connection, which is all that can be done about it.
    if let Err(End::Answer(status, why)) = attend(client, shared) {
        _ = tell(client, &answer(status, &why), shared);
    }
}

/// A whole answer, after which the connection ends.
pub(super) fn answer(status: &str, why: &str) -> Vec<u8> {
    let body = format!("duragent: {why}\n");
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

fn attend(client: &TcpStream, shared: &Arc<Shared>) -> Result<(), End> {
    client.set_nonblocking(true)?;
    // Bytes are passed on as they come; waiting for more to send with them would only delay both.
    client.set_nodelay(true)?;
    let mut pending = Vec::with_capacity(HEAD_BYTES_MAX);
    let end = read_head(client, &mut pending, shared)?;
    let rest = pending.split_off(end.min(pending.len()));
    let Request { target, forward } = head::parse(&pending)?;
    drop(pending);
    if !shared.rules.allow(&target) {
        return Err(refuse(&target, shared));
    }
    let upstream = dial::dial(&target, shared)?;
    upstream.set_nonblocking(true)?;
    upstream.set_nodelay(true)?;
    let is_tunnel = forward.is_none();
    let mut first = forward.unwrap_or_default();
    first.extend_from_slice(&rest);
    let up = Flow::new(first);
    let down = Flow::new(if is_tunnel { TUNNEL.to_vec() } else { Vec::new() });
    relay(client, &upstream, [up, down], is_tunnel, shared)?;
    Ok(())
}

fn refuse(target: &Target, shared: &Shared) -> End {
    let hint = "not on the list of sandbox.network; ask the user to add it";
    shared.refuse(target, hint);
    End::Answer("403 Forbidden", format!("{target} is {hint}"))
}

/// Reads until `pending` holds a whole head, and says where it ends.
fn read_head(client: &TcpStream, pending: &mut Vec<u8>, shared: &Shared) -> Result<usize, End> {
    let deadline = Instant::now() + shared.times.head_max;
    let mut chunk = [0; 2048];
    loop {
        if !wait_for(Source::new(Some(client.as_fd())), deadline, shared)? {
            return Err(End::Answer("408 Request Timeout", "no whole head in time".to_owned()));
        }
        let room = chunk.len().min(HEAD_BYTES_MAX.saturating_sub(pending.len()));
        let Some(count) = attempt({ client }.read(chunk.get_mut(..room).unwrap_or_default()))? else { continue };
        if count == 0 {
            return Err(End::Silent);
        }
        let seen = pending.len();
        pending.extend_from_slice(chunk.get(..count).unwrap_or_default());
        if let Some(end) = head::find_end(pending, seen)? {
            return Ok(end);
        }
    }
}

/// False if it is not ready at `deadline`. The end of the proxy is [`End::Silent`].
fn wait_for(source: Source<'_>, deadline: Instant, shared: &Shared) -> Result<bool, End> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut sources = [shared.stop(), source];
        poll::wait(&mut sources, Some(left))?;
        match sources.map(|source| source.ready) {
            [true, _] => return Err(End::Silent),
            [_, true] => return Ok(true),
            _ if left.is_zero() => return Ok(false),
            _ => {}
        }
    }
}

/// `None` if it would have to wait.
fn attempt(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sends `bytes`, then waits a little for the client to end: what it sent and nobody read would reset the connection, and
/// the answer might be lost.
fn tell(client: &TcpStream, bytes: &[u8], shared: &Shared) -> Result<(), End> {
    let deadline = Instant::now() + shared.times.linger_max;
    let mut left = bytes;
    while !left.is_empty() {
        if !wait_for(Source::for_writing(Some(client.as_fd())), deadline, shared)? {
            return Ok(());
        }
        let count = attempt({ client }.write(left))?.unwrap_or_default();
        left = left.get(count..).unwrap_or_default();
    }
    client.shutdown(Shutdown::Write)?;
    let (mut chunk, mut discarded) = ([0; 2048], 0);
    while discarded < DISCARD_BYTES_MAX && wait_for(Source::new(Some(client.as_fd())), deadline, shared)? {
        match attempt({ client }.read(&mut chunk))? {
            Some(0) => break,
            Some(count) => discarded += count,
            None => {}
        }
    }
    Ok(())
}

/// Passes bytes on both ways, `up` from the client and `down` to it, until both directions have ended, nothing has come for
/// too long, or the proxy ends. Either direction of a tunnel may end by itself; an answer that has ended is the end of its
/// request.
fn relay(
    client: &TcpStream,
    upstream: &TcpStream,
    [mut up, mut down]: [Flow; 2],
    is_tunnel: bool,
    shared: &Shared,
) -> io::Result<()> {
    let mut last = Instant::now();
    loop {
        let moved = [up.pump(client, upstream)?, down.pump(upstream, client)?];
        if up.ended && down.ended {
            return Ok(());
        }
        if moved.contains(&true) {
            last = Instant::now();
        }
        let idle_max = if down.ended && !is_tunnel { shared.times.linger_max } else { shared.times.idle_max };
        let left = idle_max.saturating_sub(last.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        let mut sources = [
            shared.stop(),
            Source::new(up.reads().then(|| client.as_fd())),
            Source::new(down.reads().then(|| upstream.as_fd())),
            Source::for_writing(up.writes().then(|| upstream.as_fd())),
            Source::for_writing(down.writes().then(|| client.as_fd())),
        ];
        poll::wait(&mut sources, Some(left))?;
        if sources.first().is_none_or(|stop| stop.ready) {
            return Ok(());
        }
    }
}

/// One direction.
struct Flow {
    buffer: Vec<u8>,
    /// What is to be written: `buffer[start..end]`.
    start: usize,
    end: usize,
    /// The sender has ended.
    finished: bool,
    /// And the receiver was told.
    ended: bool,
}

impl Flow {
    /// What `buffer` holds is written before all that is read.
    fn new(mut buffer: Vec<u8>) -> Self {
        let end = buffer.len();
        buffer.resize(end.max(BUFFER_BYTES), 0);
        Self { buffer, start: 0, end, finished: false, ended: false }
    }

    fn reads(&self) -> bool {
        self.start == self.end && !self.finished
    }

    fn writes(&self) -> bool {
        self.start < self.end
    }

    /// Reads once if there is nothing to write, and writes once if there is. True if a byte moved.
    fn pump(&mut self, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<bool> {
        let mut moved = false;
        if self.reads()
            && let Some(count) = attempt(from.read(&mut self.buffer))?
        {
            (self.start, self.end) = (0, count);
            self.finished = count == 0;
            moved = true;
        }
        let left = self.buffer.get(self.start..self.end).unwrap_or_default();
        if !left.is_empty()
            && let Some(count) = attempt(to.write(left))?
        {
            self.start += count;
            moved = true;
        }
        if self.finished && !self.ended {
            self.ended = true;
            to.shutdown(Shutdown::Write)?;
        }
        Ok(moved)
    }
}
