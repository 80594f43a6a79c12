//! Where we listen: TCP addresses and unix sockets.
//!
//! Invariants: a unix socket has its mode before anybody can connect to it; one that somebody answers on is never replaced,
//! nor anything that is no socket.
//!
//! Absent: who may ask for what (`guard`), and the loop that accepts (`listener`).

use super::guard::Peer;
use super::shared::Shared;
use async_io::Async;
use duragent_platform::{process, socket};
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Mode of a unix socket unless said otherwise: who may connect is who may read the workspace.
const SOCKET_MODE: u32 = 0o600;

/// Longest time without a word or an acknowledgement from the other machine: twice as long as a client that is there may
/// take to read.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Connections that the kernel keeps for a TCP listener while we take others; it takes some hundred bytes for each.
const QUEUE_MAX: u16 = 1024;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A unix socket and its mode; the file is made with it, and removed at the end.
    Unix(PathBuf, u32),
}

impl Listen {
    /// A unix socket for the user of this process, mode 0600.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::Unix(path.into(), SOCKET_MODE)
    }

    /// Reads `ADDR:PORT` or `unix:PATH` (mode 0600). `localhost` is 127.0.0.1; other names are not looked up.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("unix:") {
            Some(path) => (!path.is_empty()).then(|| Self::unix(path)),
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
            Self::Unix(path, _) => write!(f, "unix:{}", path.display()),
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

/// One bound listener.
pub(super) struct Door {
    listener: Async<Listener>,
    /// As bound.
    pub(super) address: Listen,
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
    pub(super) fn open(listen: &Listen, shared: &Shared) -> Result<Self, BindError> {
        let failed = |error| BindError::Io(listen.clone(), error);
        let (listener, address) = match listen {
            Listen::Tcp(address) if !is_local(address) && shared.access().token.is_none() => {
                return Err(BindError::TokenRequired(*address));
            }
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).map_err(failed)?;
                // Connections inherit it. Where it cannot be had, the kernel is only slower to notice.
                let _ = socket::fail_when_gone(listener.as_fd(), SILENCE_MAX);

                socket::queue(listener.as_fd(), QUEUE_MAX).map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                (Listener::Tcp(listener), Listen::Tcp(address))
            }
            Listen::Unix(path, mode) => {
                if is_answered(path).map_err(failed)? {
                    return Err(BindError::InUse(path.clone()));
                }
                (Listener::Unix(bind_unix(path, *mode).map_err(failed)?), listen.clone())
            }
        };
        Ok(Self { listener: Async::new(listener).map_err(failed)?, address })
    }

    pub(super) async fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        let accept = |listener: &Listener| match listener {
            Listener::Tcp(listener) => {
                let (stream, from) = listener.accept()?;
                // Without it small events wait for the acknowledgement of the one before. It cannot fail on a new socket.
                let _ = stream.set_nodelay(true);
                let near = matches!(&self.address, Listen::Tcp(address) if is_local(address));
                let peer = if near { Peer::Loopback(from.ip()) } else { Peer::Network(from.ip()) };
                Ok((UnixStream::from(OwnedFd::from(stream)), peer))
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                let own = process::peer(stream.as_fd()).is_ok_and(|peer| peer.uid == 0 || peer.uid == process::uid());
                Ok((stream, Peer::Unix { own }))
            }
        };
        self.listener.read_with(accept).await
    }
}

/// Whether only this machine can connect.
fn is_local(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Listen::Unix(path, _) = &self.address {
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
fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(mode))?;
    fs::rename(&fresh, path)?;
    Ok(listener)
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
