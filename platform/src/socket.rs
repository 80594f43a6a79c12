//! TCP connections whose other end is gone without a word: a pulled cable, a router that forgot.

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
    use super::fail_when_gone;
    use std::net::TcpListener;
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
}
