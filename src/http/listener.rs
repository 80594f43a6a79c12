//! Accepts connections, keeps their number in bounds, and drains them.
//!
//! Invariants: nothing that `accept` says ends the loop. A connection over the limit is told so and closed, and costs no
//! more than a few bytes. Draining stops accepting at once and breaks no request before the deadline.
//!
//! Absent: HTTP (`conn`), and signals, which the command line turns into [`Server::drain`].

use super::conn;
use super::guard::{Peer, Token};
use super::io::{Io, Live};
use crate::session::Runtime;
use async_io::{Async, Timer};
use smol::channel::{Receiver, Sender, bounded};
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Open connections, unless configured otherwise. Each costs a descriptor and, idle, 1–2 KiB.
pub const CONNECTIONS_MAX: usize = 256;

/// Body bytes, unless configured otherwise: far above any message a person writes.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Connections over the limit that are being told so. Those over this one as well are closed without a word.
const REFUSALS_MAX: usize = 32;

/// Longest time from the first byte of a head, or from the connection's start, to the head's end.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);

/// Longest silence between two requests of a connection.
const IDLE_TIME_MAX: Duration = Duration::from_secs(75);

/// Longest time from the end of the head to the end of the body.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// Longest silence of an event stream: proxies and NAT forget connections that say nothing for longer.
const PING_TIME_MAX: Duration = Duration::from_secs(15);

/// Longest time that requests under way may take once the runtime has drained: it answers nothing new any more.
const LAST_TIME_MAX: Duration = Duration::from_secs(5);

/// Pause after a failure to accept that is likely to last (no descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Mode of a unix socket: who may connect is who may read the workspace.
const SOCKET_MODE: u32 = 0o600;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A unix socket; the file is made with mode 0600 and removed at the end.
    Unix(PathBuf),
}

impl Listen {
    /// Reads `ADDR:PORT` or `unix:PATH`. `localhost` is 127.0.0.1; other names are not looked up.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("unix:") {
            Some(path) => (!path.is_empty()).then(|| Self::Unix(path.into())),
            None => {
                let numeric = text.strip_prefix("localhost:").map(|port| ["127.0.0.1:", port].concat());
                numeric.as_deref().unwrap_or(text).parse().ok().map(Self::Tcp)
            }
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why the server cannot listen.
#[derive(Debug)]
pub enum BindError {
    /// A TCP address that others can reach, and no token.
    TokenRequired(SocketAddr),
    /// Another process answers on the unix socket.
    InUse(PathBuf),
    /// The system said no.
    Io(Listen, io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TokenRequired(address) => {
                write!(f, "cannot listen on {address} without a token: others can reach it; ")?;
                f.write_str("configure a token, or listen on 127.0.0.1 or a unix socket")
            }
            Self::InUse(path) => write!(f, "cannot listen on unix:{}: another server answers there", path.display()),
            Self::Io(listen, error) => write!(f, "cannot listen on {listen}: {error}"),
        }
    }
}

impl std::error::Error for BindError {}

/// Bounds of the front door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open connections.
    pub connections_max: usize,
    /// Bytes of one request body.
    pub body_bytes_max: usize,
    /// From the first byte of a head, or the connection's start, to the head's end.
    pub head_time_max: Duration,
    /// From the head's end to the body's end.
    pub body_time_max: Duration,
    /// Silence between two requests of a connection.
    pub idle_time_max: Duration,
    /// Silence of an event stream, which a comment ends.
    pub ping_time_max: Duration,
    /// From the end of the runtime to the end of requests under way.
    pub last_time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            body_bytes_max: BODY_BYTES_MAX,
            head_time_max: HEAD_TIME_MAX,
            body_time_max: BODY_TIME_MAX,
            idle_time_max: IDLE_TIME_MAX,
            ping_time_max: PING_TIME_MAX,
            last_time_max: LAST_TIME_MAX,
        }
    }
}

/// Who may ask, on TCP.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Required on every TCP listener if set; has to be set off loopback.
    pub token: Option<Token>,
    /// Required instead of `token` for `/api/admin/`, if set.
    pub admin_token: Option<Token>,
}

/// Numbers for `/metrics`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traffic {
    pub(super) connections: u64,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) accept_errors: u64,
    pub(super) requests: u64,
}

/// What all connections share.
pub struct Shared {
    pub(super) runtime: Runtime,
    limits: Limits,
    access: Access,
    live: Mutex<Connections>,
    draining: AtomicBool,
    accept_errors: AtomicU64,
    requests: AtomicU64,
    /// Closed when somebody asks for the end over HTTP.
    stop: (Sender<()>, Receiver<()>),
    /// A word here whenever a connection has ended.
    ended: (Sender<()>, Receiver<()>),
}

#[derive(Default)]
struct Connections {
    /// In no order; few enough to search (`connections_max`).
    open: Vec<(u64, Arc<Live>)>,
    refusals: usize,
    accepted: u64,
    refused: u64,
}

impl Shared {
    /// Everything that serving a connection takes, without a listener.
    #[must_use]
    pub fn new(runtime: Runtime, access: Access, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            limits,
            access,
            live: Mutex::default(),
            draining: AtomicBool::new(false),
            accept_errors: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            stop: bounded(1),
            ended: bounded(1),
        })
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) fn token(&self) -> Option<&Token> {
        self.access.token.as_ref()
    }

    pub(super) fn admin_token(&self) -> Option<&Token> {
        self.access.admin_token.as_ref().or(self.token())
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn traffic(&self) -> Traffic {
        let live = self.connections();
        Traffic {
            connections: live.open.len() as u64,
            accepted: live.accepted,
            refused: live.refused,
            accept_errors: self.accept_errors.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
        }
    }

    pub(super) fn request_shutdown(&self) {
        self.stop.0.close();
    }

    /// Resolves once `POST /api/admin/v1/shutdown` was asked for. What follows is [`Server::drain`].
    pub async fn shutdown_requested(&self) {
        // Nothing is ever sent: the only answer is that the channel is closed.
        let _ = self.stop.1.recv().await;
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for the connection, if there is one.
    fn admit(self: &Arc<Self>, live: Arc<Live>) -> Admission {
        let mut connections = self.connections();
        if connections.open.len() < self.limits.connections_max {
            connections.accepted += 1;
            let number = connections.accepted;
            connections.open.push((number, live));
            return Admission::Open(Place { shared: Arc::clone(self), number: Some(number) });
        }
        connections.refused += 1;
        if connections.refusals < REFUSALS_MAX {
            connections.refusals += 1;
            return Admission::Refused(Place { shared: Arc::clone(self), number: None });
        }
        Admission::Dropped
    }
}

enum Admission {
    Open(Place),
    Refused(Place),
    Dropped,
}

/// A connection's place among the others, given back when dropped.
struct Place {
    shared: Arc<Shared>,
    /// `None` for one that is being refused.
    number: Option<u64>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut connections = self.shared.connections();
        match self.number {
            Some(number) => {
                if let Some(at) = connections.open.iter().position(|(open, _)| *open == number) {
                    connections.open.swap_remove(at);
                }
            }
            None => connections.refusals -= 1,
        }
        // Full means that the word is there already.
        let _ = self.shared.ended.0.try_send(());
    }
}

/// Serves one connection to its end. The command line serves a socket pair this way without a listener.
pub async fn serve_stream(stream: UnixStream, peer: Peer, shared: Arc<Shared>) {
    let Ok(socket) = Async::new(stream) else { return };
    let mut io = Io::new(Live::new(socket));
    match shared.admit(Arc::clone(&io.live)) {
        Admission::Open(_place) => conn::serve(&mut io, peer, &shared).await,
        Admission::Refused(_place) => conn::refuse(&mut io).await,
        Admission::Dropped => {}
    }
}

/// Listeners that are being served.
pub struct Server {
    shared: Arc<Shared>,
    addresses: Vec<Listen>,
    accepting: Mutex<Vec<smol::Task<()>>>,
}

impl Server {
    /// Binds all of `listen` and begins to serve on the smol executor.
    ///
    /// # Errors
    /// [`BindError`] if one address cannot be had; then none is served.
    pub fn bind(listen: &[Listen], shared: Arc<Shared>) -> Result<Self, BindError> {
        let doors: Vec<Door> = listen.iter().map(|listen| Door::open(listen, &shared)).collect::<Result<_, _>>()?;
        let addresses = doors.iter().map(|door| door.address.clone()).collect();
        let accepting = doors.into_iter().map(|door| smol::spawn(accept(door, Arc::clone(&shared)))).collect();
        Ok(Self { shared, addresses, accepting: Mutex::new(accepting) })
    }

    /// Where it listens, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> &[Listen] {
        &self.addresses
    }

    /// Stops accepting and closes idle connections at once; drains the runtime, which gives turns `grace` to finish and
    /// then ends event streams; waits a little for requests under way, then cuts them off. True if none had to be.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.shared.draining.store(true, Ordering::SeqCst);
        let accepting = std::mem::take(&mut *self.accepting.lock().unwrap_or_else(PoisonError::into_inner));
        for task in accepting {
            // Closes the listener.
            task.cancel().await;
        }
        for (_, live) in self.shared.connections().open.iter().filter(|(_, live)| live.idle.load(Ordering::SeqCst)) {
            live.shut(Shutdown::Read);
        }
        self.shared.runtime.drain(grace).await;
        let deadline = Instant::now() + self.shared.limits.last_time_max;
        while !self.shared.connections().open.is_empty() {
            let ended = async { self.shared.ended.1.recv().await.is_ok() };
            let late = async {
                Timer::at(deadline).await;
                false
            };
            if !smol::future::or(ended, late).await {
                let connections = self.shared.connections();
                connections.open.iter().for_each(|(_, live)| live.shut(Shutdown::Both));
                return connections.open.is_empty();
            }
        }
        true
    }
}

/// One bound listener.
struct Door {
    listener: Async<Listener>,
    peer: Peer,
    /// As bound.
    address: Listen,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Door {
    fn open(listen: &Listen, shared: &Shared) -> Result<Self, BindError> {
        let failed = |error| BindError::Io(listen.clone(), error);
        let (listener, peer, address) = match listen {
            Listen::Tcp(address) if !address.ip().is_loopback() && shared.token().is_none() => {
                return Err(BindError::TokenRequired(*address));
            }
            Listen::Tcp(address) => {
                let peer = if address.ip().is_loopback() { Peer::Loopback } else { Peer::Network };
                let listener = TcpListener::bind(address).map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                (Listener::Tcp(listener), peer, Listen::Tcp(address))
            }
            Listen::Unix(path) => {
                if is_answered(path).map_err(failed)? {
                    return Err(BindError::InUse(path.clone()));
                }
                (Listener::Unix(bind_unix(path).map_err(failed)?), Peer::Unix, listen.clone())
            }
        };
        Ok(Self { listener: Async::new(listener).map_err(failed)?, peer, address })
    }

    async fn accept(&self) -> io::Result<UnixStream> {
        let accept = |listener: &Listener| match listener {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                // Without it small events wait for the acknowledgement of the one before. It cannot fail on a new socket.
                let _ = stream.set_nodelay(true);
                Ok(UnixStream::from(OwnedFd::from(stream)))
            }
            Listener::Unix(listener) => listener.accept().map(|(stream, _)| stream),
        };
        self.listener.read_with(accept).await
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Listen::Unix(path) = &self.address {
            // A socket that is left behind is recognised at the next start.
            let _ = fs::remove_file(path);
        }
    }
}

/// True if a server answers at `path`. What is there and is not a socket is an error: it is not ours to remove.
fn is_answered(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(io::Error::new(ErrorKind::AlreadyExists, "expected a socket or nothing, found something else"))
        }
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(false),
            _ => Ok(true),
        },
    }
}

/// Binds under another name first, so that nobody can connect before the mode is set, and a stale socket is replaced in
/// one step.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(SOCKET_MODE))?;
    fs::rename(&fresh, path)?;
    Ok(listener)
}

async fn accept(door: Door, shared: Arc<Shared>) {
    loop {
        match door.accept().await {
            Ok(stream) => {
                let served = serve_stream(stream, door.peer, Arc::clone(&shared));
                smol::spawn(served).detach();
            }
            Err(error) => {
                shared.accept_errors.fetch_add(1, Ordering::Relaxed);
                // Of these only one connection died, not the listener.
                if !matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) {
                    Timer::after(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Listen;

    #[test]
    fn addresses_are_read_and_shown() {
        for text in ["127.0.0.1:8080", "[::1]:0", "0.0.0.0:1", "unix:/run/duragent.sock", "unix:a"] {
            assert_eq!(Listen::parse(text).map(|l| l.to_string()).as_deref(), Some(text));
        }
        assert_eq!(Listen::parse("localhost:80"), Listen::parse("127.0.0.1:80"));
        for text in ["", "8080", "unix:", "example:80", "127.0.0.1", "127.0.0.1:99999"] {
            assert_eq!(Listen::parse(text), None, "{text}");
        }
    }
}
