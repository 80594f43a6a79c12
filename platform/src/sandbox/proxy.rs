//! The proxy for [`Network::Hosts`](super::policy::Network::Hosts): the one way out for tools, which asks for each
//! connection whether it is on the list.
//!
//! Job: HTTP/1.1 as `HTTP_PROXY` and `HTTPS_PROXY` mean it: tunnels (`CONNECT host:port`) and requests with a whole URL
//! (`GET http://host/path`). It runs on plain threads of the runtime and dials from the runtime's network; its listener
//! belongs to the network of the sandbox. A client that does not use the proxy reaches nothing, because nothing else is there.
//!
//! Invariants:
//! - The boundary is `host:port`. A name is looked up once, and only addresses that came of this and were vetted are dialled:
//!   one that is not public has to be on the list itself. A second answer of the name server changes nothing.
//! - A connection reaches one `host:port`, whatever is sent on it. A second request after the first one's body goes to the
//!   same place, where it was allowed to go anyway.
//! - Memory and threads are bounded whatever peers do, and nothing in here waits without also waiting for the end: after
//!   [`Proxy::finish`] all connections are closed. Only a lookup or a connect that hangs in the system may outlive it, on a
//!   thread that knows the name and the list but none of the connections; [`dial::DIALS_MAX`] bounds these.
//!
//! Not promised: what happens inside a tunnel. It carries any protocol, and whoever is allowed a host that relays (a CDN that
//! looks at the name in the TLS or HTTP inside, another proxy) is allowed what it relays to. A public address of this very
//! machine is public.
//!
//! Absent: TLS, UDP, SOCKS, caches, and authentication: who can connect to the listener may use it. The helper that made the
//! listener must have closed it before a tool runs, else the tool could answer in place of the proxy.

mod address;
mod connection;
mod dial;
mod head;
#[cfg(test)]
mod tests;

use super::policy::Endpoint;
use super::{Refusal, RefusalKind};
use crate::poll;
use address::{Rules, Target};
use dial::Outside;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Connections at a time; more are answered with 503. Package managers open up to about 50. Each costs two
/// descriptors, four while it is being made, and up to about 100 KiB: a stack of which little is touched, two buffers.
const CONNECTIONS_MAX: usize = 64;

/// Distinct places that are remembered as refused: the model needs a few, not all of a scan.
const REFUSALS_MAX: usize = 16;

/// Bytes of stack of a thread that moves bytes. Its buffers are on the heap; this is the least that every target takes.
const STACK_BYTES: usize = 128 * 1024;

/// Wait before the next accept after one failed for want of descriptors or memory: others may give some back. The end of
/// the proxy waits for this too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A proxy that runs.
#[derive(Debug)]
pub(super) struct Proxy {
    shared: Arc<Shared>,
    /// Closed to end all: its other end then counts as readable, in every thread.
    stop: Option<io::PipeWriter>,
    accepting: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts to accept on `listener`, on a thread of its own. Nobody else may accept on it.
    ///
    /// # Errors
    /// If there is no thread or no pipe to be had.
    pub(super) fn start(listener: TcpListener, allowed: Vec<Endpoint>) -> io::Result<Self> {
        Self::start_with(listener, &allowed, Outside::system(), Times::default())
    }

    fn start_with(listener: TcpListener, allowed: &[Endpoint], outside: Outside, times: Times) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let (stopped, stop) = io::pipe()?;
        let rules = Rules::new(allowed);
        let shared = Arc::new(Shared { rules, outside, times, stopped, refused: Mutex::default() });
        let theirs = Arc::clone(&shared);
        let accepting = thread::Builder::new()
            .name("proxy accept".into())
            .stack_size(STACK_BYTES)
            .spawn(move || accept_all(&listener, &theirs))?;
        Ok(Self { shared, stop: Some(stop), accepting: Some(accepting) })
    }

    /// Ends all connections and threads; what was refused, each place once, at most [`REFUSALS_MAX`].
    pub(super) fn finish(mut self) -> Vec<Refusal> {
        self.end();
        std::mem::take(&mut *self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn end(&mut self) {
        self.stop = None;
        if let Some(thread) = self.accepting.take() {
            // An error says that it panicked: then it has ended as well.
            let _ = thread.join();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end();
    }
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// From accepting a connection to its whole head.
    head_max: Duration,
    /// From a head to a connection to its target: looking up, and all attempts.
    dial_max: Duration,
    /// Without a byte on a connection, in either direction: longer than a server thinks about an answer.
    idle_max: Duration,
    /// From the last byte for a client to the end of a connection that the client does not end.
    linger_max: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let [head_max, dial_max, idle_max, linger_max] = [10, 30, 300, 1].map(Duration::from_secs);
        Self { head_max, dial_max, idle_max, linger_max }
    }
}

/// What all threads of a proxy know.
#[derive(Debug)]
struct Shared {
    rules: Rules,
    outside: Outside,
    times: Times,
    stopped: io::PipeReader,
    refused: Mutex<Vec<Refusal>>,
}

impl Shared {
    /// Ready once the proxy ends.
    fn stop(&self) -> poll::Source<'_> {
        poll::Source::new(Some(self.stopped.as_fd()))
    }

    fn is_stopped(&self) -> bool {
        let mut sources = [self.stop()];
        poll::wait(&mut sources, Some(Duration::ZERO)).is_err() || sources.iter().any(|source| source.ready)
    }

    /// Remembers that `target` was refused.
    fn refuse(&self, target: &Target, hint: &str) {
        let what = target.to_string();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() < REFUSALS_MAX && refused.iter().all(|refusal| refusal.what != what) {
            refused.push(Refusal { kind: RefusalKind::Net, what, hint: hint.to_owned() });
        }
    }
}

/// Until the proxy ends. Then all connections have ended too.
fn accept_all(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    loop {
        let mut sources = [shared.stop(), poll::Source::new(Some(listener.as_fd()))];
        let waited = poll::wait(&mut sources, None);
        if sources.first().is_none_or(|stop| stop.ready) {
            break;
        }
        let accepted = waited.and_then(|()| listener.accept());
        threads.retain(|thread| !thread.is_finished());
        match accepted {
            Ok((client, _)) if threads.len() >= CONNECTIONS_MAX => {
                turn_away(&client, &format!("more than {CONNECTIONS_MAX} connections at a time"));
            }
            Ok((client, _)) => threads.extend(attend(client, shared)),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                _ => thread::sleep(ACCEPT_PAUSE),
            },
        }
    }
    for thread in threads {
        let _ = thread.join();
    }
}

/// Serves `client` on a thread of its own; `None` if there is none to be had.
fn attend(client: TcpStream, shared: &Arc<Shared>) -> Option<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let client = Arc::new(client);
    let theirs = Arc::clone(&client);
    let thread = thread::Builder::new().name("proxy client".into()).stack_size(STACK_BYTES);
    match thread.spawn(move || connection::serve(&theirs, &shared)) {
        Ok(thread) => Some(thread),
        Err(error) => {
            turn_away(&client, &format!("no thread for this connection: {error}"));
            None
        }
    }
}

/// Answers 503 without waiting: a client that cannot be told is closed all the same.
fn turn_away(client: &TcpStream, why: &str) {
    let answer = connection::answer("503 Service Unavailable", why);
    if client.set_nonblocking(true).and_then(|()| { client }.write(&answer)).is_ok() {
        let _ = client.shutdown(Shutdown::Write);
        // A request left unread would turn the answer into a reset.
        let _ = { client }.read(&mut [0; 1024]);
    }
}
