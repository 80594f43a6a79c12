//! What the standard library does not ask of sockets: to notice an other end that is gone without a word (a pulled cable, a
//! router that forgot), and to keep more connections that nobody has accepted yet.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Questions that are asked of a silent peer before it counts as gone.
const QUESTIONS: libc::c_int = 3;

/// Makes the connection fail when its peer has said nothing, not even the acknowledgement of what was sent to it, for about
/// `silence`: in the middle of an answer as well as between two (tcp(7): `SO_KEEPALIVE`, `TCP_KEEPIDLE`, `TCP_USER_TIMEOUT`).
/// Without it that takes fifteen minutes for what was sent, and for ever if nothing was.
///
/// # Errors
/// As setsockopt(2): not a TCP socket.
pub fn fail_when_gone(socket: BorrowedFd<'_>, silence: Duration) -> io::Result<()> {
    let seconds = libc::c_int::try_from(silence.as_secs()).unwrap_or(libc::c_int::MAX);
    let (idle, each) = ((seconds / 2).max(1), (seconds / 2 / QUESTIONS).max(1));
    set(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set(socket, libc::IPPROTO_TCP, KEEPIDLE, idle)?;
    set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, each)?;
    set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, QUESTIONS)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    set(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, seconds.saturating_mul(1000))?;
    Ok(())
}

/// Asks for a queue of `connections_max` that nobody has accepted yet, of which the kernel grants at most its own limit
/// (`net.core.somaxconn`). The standard library has asked for 128: a hundred clients that come at once fill that, and the
/// kernel then drops what comes next, which its sender tries again a second later.
///
/// # Errors
/// As listen(2): `listener` does not listen.
pub fn queue(listener: BorrowedFd<'_>, connections_max: u16) -> io::Result<()> {
    // SAFETY: takes numbers only; the descriptor is open while it is borrowed. Of a socket that listens already it changes
    // the length of the queue and nothing else.
    let result = unsafe { libc::listen(listener.as_raw_fd(), libc::c_int::from(connections_max)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_vendor = "apple"))]
const KEEPIDLE: libc::c_int = libc::TCP_KEEPIDLE;
#[cfg(target_vendor = "apple")]
const KEEPIDLE: libc::c_int = libc::TCP_KEEPALIVE;

fn set(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: reads an int of the size that is said, which lives through the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(&value).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::{fail_when_gone, queue};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    #[test]
    fn only_tcp_can_be_told() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        assert!(fail_when_gone(listener.as_fd(), Duration::from_secs(60)).is_ok());
        let (one, _other) = UnixStream::pair().expect("a pair");
        assert!(fail_when_gone(one.as_fd(), Duration::from_secs(60)).is_err());
    }

    #[test]
    fn a_longer_queue_takes_more() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("an address");
        queue(listener.as_fd(), 1024).expect("it listens");
        // A connection that found no room would not be made before somebody accepts.
        let waiting: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(address).expect("room")).collect();
        for _ in &waiting {
            listener.accept().expect("a connection");
        }
        let file = std::fs::File::open("/dev/null").expect("a file");
        assert!(queue(file.as_fd(), 1).is_err(), "what does not listen has no queue");
    }
}
