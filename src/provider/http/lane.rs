//! A lane: one ureq agent with at most one connection, owned by one call at a time.
//!
//! ureq counts its body timeout over the whole body and hides the socket of a call, so its connector is ours
//! ([`super::connection`]). What the two sides share is the [`Slot`]: the connection asks it how long a read may take, and
//! whoever cancels the call shuts the socket down through it.
//!
//! Invariant: a hook of an earlier call cannot touch the socket of a later one (calls are numbered, and the number is
//! compared under the lock).
//!
//! Absent: a cancel of name resolution or of a connect in progress; both end with the connect timeout.

use super::connection::Connect;
use super::proxy::Proxy;
use super::tls::Tls;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Agent, Error, Timeout};

/// Most addresses of one host that are tried.
const ADDRESSES_MAX: usize = 4;

/// Longest wait that is ever set on a socket: a month stands for "for ever" and keeps the clock from overflowing.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Shortest wait that is ever set on a socket: zero would mean "for ever" to the kernel.
pub(super) const WAIT_MIN: Duration = Duration::from_millis(1);

/// An agent with its one connection and the slot they share.
pub(super) struct Lane {
    pub(super) agent: Agent,
    pub(super) slot: Arc<Slot>,
}

impl Lane {
    pub(super) fn new(config: Config, tls: &Arc<Tls>, proxy: Option<&Arc<Proxy>>) -> Self {
        let slot = Arc::new(Slot { state: Mutex::new(State::new()) });
        let connector = Connect { slot: Arc::clone(&slot), tls: Arc::clone(tls), proxy: proxy.cloned() };
        Self { agent: Agent::with_parts(config, connector, Names(proxy.cloned())), slot }
    }
}

/// What the transport of a lane and the call on it share.
pub(super) struct Slot {
    state: Mutex<State>,
}

struct State {
    call: u64,
    raised: bool,
    socket: Weak<TcpStream>,
    /// When the next byte has to be there at the latest; without it, each read may take `idle`.
    deadline: Option<Instant>,
    /// The deadline is for all the rest, not for the first byte.
    hurried: bool,
    idle: Duration,
}

impl State {
    fn new() -> Self {
        Self { call: 0, raised: false, socket: Weak::new(), deadline: None, hurried: false, idle: WAIT_MIN }
    }
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a call and returns its number.
    pub(super) fn begin(&self, first_byte: Duration, idle: Duration) -> u64 {
        let mut state = self.state();
        state.call += 1;
        state.raised = false;
        state.deadline = Some(Instant::now() + first_byte.min(WAIT_MAX));
        state.hurried = false;
        state.idle = idle.min(WAIT_MAX);
        state.call
    }

    /// Ends the call: from now on [`Slot::cut`] with its number does nothing.
    pub(super) fn end(&self) {
        self.state().call += 1;
    }

    /// Shuts the socket down if `call` is still the one in progress. A read that waits returns at once.
    pub(super) fn cut(&self, call: u64) {
        let mut state = self.state();
        if state.call == call {
            state.raised = true;
            if let Some(socket) = state.socket.upgrade() {
                // An error says that the peer was faster.
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }

    pub(super) fn is_raised(&self) -> bool {
        self.state().raised
    }

    /// True if the connection is gone, or the server has closed its side.
    #[cfg(test)]
    pub(super) fn is_closed(&self) -> bool {
        let Some(socket) = self.state().socket.upgrade() else { return true };
        socket.set_nonblocking(true).unwrap();
        let closed = matches!(socket.peek(&mut [0]), Ok(0));
        socket.set_nonblocking(false).unwrap();
        closed
    }

    /// The first byte of the body is there.
    pub(super) fn answered(&self) {
        let mut state = self.state();
        if !state.hurried {
            state.deadline = None;
        }
    }

    /// All the rest has to be there after `wait`.
    pub(super) fn hurry(&self, wait: Duration) {
        let mut state = self.state();
        state.deadline = Some(Instant::now() + wait.min(WAIT_MAX));
        state.hurried = true;
    }

    /// From now on the call uses `socket`.
    ///
    /// # Errors
    /// `NotConnected` if the call was cancelled before.
    pub(super) fn attach(&self, socket: &Arc<TcpStream>) -> io::Result<()> {
        let mut state = self.state();
        state.socket = Arc::downgrade(socket);
        if state.raised { Err(io::Error::new(io::ErrorKind::NotConnected, "cancelled")) } else { Ok(()) }
    }

    /// How long the next read may take, and the name of that limit.
    pub(super) fn read_wait(&self) -> (Duration, Timeout) {
        let state = self.state();
        match state.deadline {
            None => (state.idle, Timeout::PerRead),
            Some(deadline) => (deadline.saturating_duration_since(Instant::now()), Timeout::RecvResponse),
        }
    }

    /// How long a write may take.
    pub(super) fn write_wait(&self) -> Duration {
        self.state().idle
    }
}

/// Resolves host names with a deadline: the server's, or the proxy's if there is one. Addresses written as numbers, the usual case on a device, cost no thread.
#[derive(Debug)]
struct Names(Option<Arc<Proxy>>);

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let uri = self.0.as_ref().map_or(uri, |proxy| proxy.uri());
        let host = uri.host().unwrap_or_default();
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let mut found = self.empty();
        if let Ok(ip) = bare.parse::<IpAddr>() {
            found.push(SocketAddr::new(ip, port));
            return Ok(found);
        }
        let (name, answer) = (bare.to_string(), Arc::new((Mutex::new(None), Condvar::new())));
        let place = Arc::clone(&answer);
        let look_up = move || {
            let addresses = (name.as_str(), port).to_socket_addrs();
            let addresses = addresses.map(|found| found.take(ADDRESSES_MAX).collect::<Vec<_>>());
            *place.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(addresses);
            // Nobody waits any more after the deadline: fine.
            place.1.notify_one();
        };
        std::thread::Builder::new().name("resolve".into()).spawn(look_up)?;
        let (value, told) = &*answer;
        let value = value.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = told.wait_timeout_while(value, (*timeout.after).min(WAIT_MAX), |value| value.is_none());
        let (mut value, _) = waited.unwrap_or_else(PoisonError::into_inner);
        for address in value.take().ok_or(Error::Timeout(Timeout::Resolve))?? {
            found.push(address);
        }
        if found.is_empty() { Err(Error::HostNotFound) } else { Ok(found) }
    }
}
