//! From a target that is allowed to a connection: look it up, vet what was found, connect to exactly that.
//!
//! The system's resolver cannot be interrupted, so this is done on a thread of its own, which is left behind if nobody
//! waits for it any more.

use super::Shared;
use super::address::{Host, Target};
use super::connection::End;
use crate::poll;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Connections being made at a time by all proxies of this process, those included that nobody waits for any more: twice what
/// one proxy can ask for, so that calls that end early and come back cannot pile threads up. More are answered with 503.
pub(super) const DIALS_MAX: usize = 128;

/// Addresses of a name that are tried; names with more take turns by themselves.
const ADDRESSES_MAX: usize = 16;

/// Time for one address.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Bytes of stack of a thread that dials. The resolver of glibc may load modules and needs some 10 KiB for its answers;
/// musl's default for a whole thread is 128 KiB.
const STACK_BYTES: usize = 256 * 1024;

static DIALS: AtomicUsize = AtomicUsize::new(0);

type Resolve = dyn Fn(&str, u16) -> io::Result<Vec<IpAddr>> + Send + Sync;
type Connect = dyn Fn(SocketAddr, Duration) -> io::Result<TcpStream> + Send + Sync;

/// The network outside.
#[derive(Clone)]
pub(super) struct Outside {
    pub(super) resolve: Arc<Resolve>,
    pub(super) connect: Arc<Connect>,
}

impl Outside {
    /// That of the runtime.
    pub(super) fn system() -> Self {
        let resolve = |name: &str, port| Ok((name, port).to_socket_addrs()?.map(|address| address.ip()).collect());
        let connect = |address, timeout| TcpStream::connect_timeout(&address, timeout);
        Self { resolve: Arc::new(resolve), connect: Arc::new(connect) }
    }
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside").finish_non_exhaustive()
    }
}

/// Connects to `target`, which is allowed.
pub(super) fn dial(target: &Target, shared: &Arc<Shared>) -> Result<TcpStream, End> {
    let busy = |why: String| End::Answer("503 Service Unavailable", why);
    let scarce = |error: io::Error| busy(format!("no room to connect to {target}: {error}"));
    let slot = Slot::take().ok_or_else(|| busy(format!("more than {DIALS_MAX} connections being made")))?;
    let deadline = Instant::now() + shared.times.dial_max;
    let (done, signal) = io::pipe().map_err(scarce)?;
    let (theirs, wanted) = (Arc::clone(shared), target.clone());
    let thread = thread::Builder::new().name("proxy dial".into()).stack_size(STACK_BYTES);
    let work = move || {
        let result = reach(&wanted, &theirs, deadline);
        drop((slot, signal));
        result
    };
    let thread = thread.spawn(work).map_err(scarce)?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut sources = [shared.stop(), poll::Source::new(Some(done.as_fd()))];
        poll::wait(&mut sources, Some(left))?;
        let [stop, done] = sources.map(|source| source.ready);
        if stop {
            return Err(End::Silent);
        }
        if done {
            break;
        }
        if left.is_zero() {
            return Err(Failure::Unreachable(io::ErrorKind::TimedOut.into()).into_end(target, shared));
        }
    }
    // It is at its end, so this does not wait.
    let result = thread.join().unwrap_or_else(|_| Err(Failure::Unreachable(io::Error::other("panicked"))));
    result.map_err(|failure| failure.into_end(target, shared))
}

/// Why there is no connection.
enum Failure {
    /// The name stands for this address, which is not public, and for no better one.
    Private(IpAddr),
    /// As the system says.
    Unreachable(io::Error),
}

impl Failure {
    fn into_end(self, target: &Target, shared: &Shared) -> End {
        match self {
            Self::Private(address) => {
                let literal = Target { host: Host::Address(address), port: target.port };
                let hint = format!("{address} is not public; ask the user to add {literal} to sandbox.network");
                shared.refuse(target, &hint);
                End::Answer("403 Forbidden", format!("{target} is at {address}, and {hint}"))
            }
            Self::Unreachable(error) => End::Answer("502 Bad Gateway", format!("cannot reach {target}: {error}")),
        }
    }
}

/// Looks up once, vets, connects.
fn reach(target: &Target, shared: &Shared, deadline: Instant) -> Result<TcpStream, Failure> {
    let found = match &target.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => (shared.outside.resolve)(name, target.port).map_err(Failure::Unreachable)?,
    };
    let found = found.iter().map(|ip| SocketAddr::new(ip.to_canonical(), target.port)).take(ADDRESSES_MAX);
    let (vetted, private): (Vec<_>, Vec<_>) = found.partition(|address| shared.rules.allow_address(*address));
    if let ([], [private, ..]) = (vetted.as_slice(), private.as_slice()) {
        return Err(Failure::Private(private.ip()));
    }
    let mut failure = io::Error::other("the name has no address");
    for address in vetted {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || shared.is_stopped() {
            return Err(Failure::Unreachable(io::ErrorKind::TimedOut.into()));
        }
        match (shared.outside.connect)(address, left.min(CONNECT_MAX)) {
            Ok(upstream) => return Ok(upstream),
            Err(error) => failure = error,
        }
    }
    Err(Failure::Unreachable(failure))
}

/// One of [`DIALS_MAX`], given back when dropped.
struct Slot;

impl Slot {
    fn take() -> Option<Self> {
        let more = |dials| if dials < DIALS_MAX { Some(dials + 1) } else { None };
        DIALS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        DIALS.fetch_sub(1, Ordering::Relaxed);
    }
}
