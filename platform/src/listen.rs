//! How many connections the kernel keeps for a listener that has not accepted them yet.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Asks for a queue of `connections_max`, of which the kernel grants at most its own limit (`net.core.somaxconn`). The
/// standard library has asked for 128: a hundred clients that come at once, or come back at once, fill that, and the kernel
/// then drops what comes next, which its sender tries again a second later.
///
/// # Errors
/// Those of listen(2), if `listener` does not listen.
pub fn queue(listener: impl AsFd, connections_max: u16) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `listener` is borrowed; listen(2) takes numbers only, and on a socket that
    // listens already changes the length of its queue and nothing else.
    match unsafe { libc::listen(listener.as_fd().as_raw_fd(), libc::c_int::from(connections_max)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::queue;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_longer_queue_takes_more() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        queue(&listener, 1024).unwrap();
        // A connection that found no room would take a second.
        let waiting: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(address).unwrap()).collect();
        for _ in &waiting {
            listener.accept().unwrap();
        }
    }

    #[test]
    fn what_does_not_listen_is_an_error() {
        assert!(queue(std::fs::File::open("/dev/null").unwrap(), 1).is_err());
    }
}
