//! A lane: one ureq agent with at most one connection, owned by one call at a time.
//!
//! ureq counts its body timeout over the whole body and hides the socket of a call, so the TCP part of its connector
//! chain is ours; TLS on top is ureq's. What the two sides share is the [`Slot`]: the transport asks it how long a read
//! may take, and whoever cancels the call shuts the socket down through it.
//!
//! Invariant: a hook of an earlier call cannot touch the socket of a later one (calls are numbered, and the number is
//! compared under the lock).
//!
//! Absent: a cancel of name resolution or of a connect in progress; both end with the connect timeout.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::time::{Duration, Instant};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, RustlsConnector, Transport,
};
use ureq::{Agent, Error, Timeout};

/// Most addresses of one host that are tried.
const ADDRESSES_MAX: usize = 4;

/// Longest wait that is ever set on a socket: a month stands for "for ever" and keeps the clock from overflowing.
const WAIT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Shortest wait that is ever set on a socket: zero would mean "for ever" to the kernel.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// Most bytes that wait to be sent. More is sent at once; the buffer itself grows by one of ureq's at most.
const UNSENT_MAX: usize = 8 * 1024;

/// An agent with its one connection and the slot they share.
pub(super) struct Lane {
    pub(super) agent: Agent,
    pub(super) slot: Arc<Slot>,
}

impl Lane {
    pub(super) fn new(config: Config, tls: &Tls) -> Self {
        let slot = Arc::new(Slot { state: Mutex::new(State::new()) });
        let connector = ().chain(TcpConnector { slot: Arc::clone(&slot) }).chain(tls.clone());
        Self { agent: Agent::with_parts(config, connector, Names), slot }
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

    fn attach(&self, socket: &Arc<TcpStream>) -> io::Result<()> {
        let mut state = self.state();
        state.socket = Arc::downgrade(socket);
        if state.raised { Err(io::Error::new(io::ErrorKind::NotConnected, "cancelled")) } else { Ok(()) }
    }

    /// How long the next read may take, and the name of that limit.
    fn read_wait(&self) -> (Duration, Timeout) {
        let state = self.state();
        match state.deadline {
            None => (state.idle, Timeout::PerRead),
            Some(deadline) => (deadline.saturating_duration_since(Instant::now()), Timeout::RecvResponse),
        }
    }

    fn write_wait(&self) -> Duration {
        self.state().idle
    }
}

/// ureq's TLS connector, shared by all lanes: one parsed set of roots instead of one a lane.
#[derive(Debug, Clone, Default)]
pub(super) struct Tls(Arc<RustlsConnector>);

impl<In: Transport> Connector<In> for Tls {
    type Out = <RustlsConnector as Connector<In>>::Out;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        self.0.connect(details, chained)
    }
}

struct TcpConnector {
    slot: Arc<Slot>,
}

impl std::fmt::Debug for TcpConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TcpConnector")
    }
}

impl Connector<()> for TcpConnector {
    type Out = Either<(), Tcp>;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Self::Out>, Error> {
        let deadline = Instant::now() + (*details.timeout.after).min(WAIT_MAX);
        let mut last = Error::HostNotFound;
        for address in &details.addrs {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Timeout(Timeout::Connect));
            }
            match TcpStream::connect_timeout(address, left.max(WAIT_MIN)) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let stream = Arc::new(stream);
                    self.slot.attach(&stream)?;
                    return Ok(Some(Either::B(Tcp::new(stream, Arc::clone(&self.slot), details.config))));
                }
                Err(e) if is_timeout(&e) => last = Error::Timeout(Timeout::Connect),
                Err(e) => last = Error::Io(e),
            }
        }
        Err(last)
    }
}

/// A TCP connection whose every read and write is limited by the slot.
struct Tcp {
    stream: Arc<TcpStream>,
    slot: Arc<Slot>,
    buffers: LazyBuffers,
    /// Written, but not sent before something is read: the head of a request goes out with its body.
    unsent: Vec<u8>,
    /// As set on the socket, to spare the system call.
    read_wait: Duration,
    write_wait: Duration,
}

impl Tcp {
    fn new(stream: Arc<TcpStream>, slot: Arc<Slot>, config: &Config) -> Self {
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Self { stream, slot, buffers, unsent: Vec::new(), read_wait: Duration::ZERO, write_wait: Duration::ZERO }
    }

    /// During a TLS handshake ureq's own deadline (connect) counts; afterwards it has none and ours do.
    fn wait(ureqs: NextTimeout, ours: (Duration, Timeout)) -> Result<(Duration, Timeout), Error> {
        let (wait, name) = if ureqs.after.is_not_happening() { ours } else { (*ureqs.after, ureqs.reason) };
        if wait.is_zero() { Err(Error::Timeout(name)) } else { Ok((wait.max(WAIT_MIN), name)) }
    }

    fn send(&mut self, timeout: NextTimeout) -> Result<(), Error> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let (wait, name) = Self::wait(timeout, (self.slot.write_wait(), Timeout::PerWrite))?;
        if wait != self.write_wait {
            self.stream.set_write_timeout(Some(wait))?;
            self.write_wait = wait;
        }
        let sent = (&*self.stream).write_all(&self.unsent);
        self.unsent.clear();
        match sent {
            Err(e) if is_timeout(&e) => Err(Error::Timeout(name)),
            other => Ok(other?),
        }
    }
}

impl std::fmt::Debug for Tcp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tcp")
    }
}

impl Transport for Tcp {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.unsent.extend_from_slice(self.buffers.output().get(..amount).unwrap_or_default());
        if self.unsent.len() > UNSENT_MAX { self.send(timeout) } else { Ok(()) }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.send(timeout)?;
        loop {
            let (wait, name) = Self::wait(timeout, self.slot.read_wait())?;
            if wait != self.read_wait {
                self.stream.set_read_timeout(Some(wait))?;
                self.read_wait = wait;
            }
            match (&*self.stream).read(self.buffers.input_append_buf()) {
                Ok(amount) => {
                    self.buffers.input_appended(amount);
                    return Ok(amount > 0);
                }
                // Linux does not restart a read that has a timeout, so a signal shows up here.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if is_timeout(&e) => return Err(Error::Timeout(name)),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Asked before a kept connection is used again: open means that a read would have to wait.
    fn is_open(&mut self) -> bool {
        if self.stream.set_nonblocking(true).is_err() {
            return false;
        }
        let quiet = matches!(self.stream.peek(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        quiet && self.stream.set_nonblocking(false).is_ok()
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// Resolves host names with a deadline. Addresses written as numbers, the usual case on a device, cost no thread.
#[derive(Debug)]
struct Names;

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().unwrap_or_default();
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let mut found = self.empty();
        if let Ok(ip) = bare.parse::<IpAddr>() {
            found.push(SocketAddr::new(ip, port));
            return Ok(found);
        }
        let (name, (sender, receiver)) = (bare.to_string(), mpsc::sync_channel(1));
        let look_up = move || {
            let addresses = (name.as_str(), port).to_socket_addrs();
            // Nobody listens any more after the deadline.
            let _ = sender.send(addresses.map(|found| found.take(ADDRESSES_MAX).collect::<Vec<_>>()));
        };
        std::thread::Builder::new().name("resolve".into()).spawn(look_up)?;
        let answer = receiver.recv_timeout((*timeout.after).min(WAIT_MAX));
        for address in answer.map_err(|_| Error::Timeout(Timeout::Resolve))?? {
            found.push(address);
        }
        if found.is_empty() { Err(Error::HostNotFound) } else { Ok(found) }
    }
}
