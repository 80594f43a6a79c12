//! Sockets that behave badly. The only file of these tests with `unsafe` in it.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Once;

/// Lets this process open as many descriptors as it may: the attacks need some thousands.
pub fn allow_many() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: both calls get a pointer to a whole `rlimit` of ours that outlives them.
        let raised = unsafe {
            libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
                limit.rlim_cur = limit.rlim_max;
                libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
            }
        };
        assert!(raised && limit.rlim_cur >= 4096, "expected to open 4096 descriptors, found {}", limit.rlim_cur);
    });
}

/// Connects; `None` if the server, or our own kernel, has no room.
pub fn connect(address: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.set_nonblocking(true).ok()?;
    Some(stream)
}

/// Makes the close of this socket a reset instead of a farewell.
pub fn reset_on_close(stream: &TcpStream) {
    set(stream, libc::SO_LINGER, &libc::linger { l_onoff: 1, l_linger: 0 });
}

/// Lets the kernel keep hardly anything for us that we do not read.
pub fn read_little(stream: &TcpStream) {
    let bytes: libc::c_int = 2048;
    set(stream, libc::SO_RCVBUF, &bytes);
}

fn set<T>(stream: &TcpStream, option: libc::c_int, value: &T) {
    let length = libc::socklen_t::try_from(size_of::<T>()).expect("small");
    // SAFETY: the descriptor is open as long as `stream` is borrowed, and the pointer is to `length` bytes of a plain C value.
    let result = unsafe {
        libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, option, std::ptr::from_ref(value).cast(), length)
    };
    assert_eq!(result, 0, "setsockopt {option}");
}
