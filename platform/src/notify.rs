//! Telling a supervisor how we are: the protocol of sd_notify(3), and the descriptor that s6 and scripts wait at.
//!
//! Invariant: nobody has to listen. What cannot be said is an error value, and a supervisor that does not read holds up its
//! sender for `SEND_TIME_MAX` at most.
//!
//! Absent: the environment (who calls has read it), barriers, and descriptors that a supervisor keeps for us.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long a datagram waits for room in the supervisor's queue. That is ten to some hundred long, and read by process 1.
const SEND_TIME_MAX: Duration = Duration::from_secs(1);

/// A supervisor's socket, `NOTIFY_SOCKET` of systemd.exec(5).
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Notifier {
    /// For the socket at `address`: an absolute path, or `@NAME` in the abstract namespace (unix(7)). Nobody need be there yet.
    ///
    /// # Errors
    /// `InvalidInput` for any other address, `Unsupported` for an abstract one where there are none; else as socket(2).
    pub fn new(address: &str) -> io::Result<Self> {
        let address = match address.strip_prefix('@') {
            Some(name) => abstract_address(name)?,
            None if address.starts_with('/') => SocketAddr::from_pathname(address)?,
            None => return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected an absolute path or @NAME")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIME_MAX))?;
        Ok(Self { socket, address })
    }

    /// Sends `text`: assignments like `READY=1`, one a line.
    ///
    /// # Errors
    /// As sendto(2): nobody listens, or nobody has read for a while (`WouldBlock`).
    pub fn send(&self, text: &str) -> io::Result<()> {
        // The address is used anew each time: a supervisor that starts again makes its socket anew.
        self.socket.send_to_addr(text.as_bytes(), &self.address).map(drop)
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn abstract_address(name: &str) -> io::Result<SocketAddr> {
    #[cfg(target_os = "android")]
    use std::os::android::net::SocketAddrExt;
    #[cfg(target_os = "linux")]
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn abstract_address(_: &str) -> io::Result<SocketAddr> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no abstract unix sockets"))
}

/// A descriptor of our own for what `fd`, inherited from whoever started us, is open on; no program that we start gets it. `fd`
/// itself stays as it is, for a process that becomes another program with the same arguments. Call it before anything is
/// opened: later `fd` may be something of ours.
///
/// # Errors
/// As fcntl(2): `fd` is not open.
pub fn inherited(fd: RawFd) -> io::Result<std::fs::File> {
    // SAFETY: takes numbers only; what is no open descriptor is refused.
    let own = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if own < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made by the call above, and nobody else knows it.
    let own = unsafe { OwnedFd::from_raw_fd(own) };
    Ok(own.into())
}

/// Microseconds of the monotonic clock, as `MONOTONIC_USEC=` of sd_notify(3) wants them.
#[must_use]
pub fn monotonic_usec() -> u64 {
    // SAFETY: zero is a valid timespec; the call writes to it and nothing else, and cannot fail for this clock.
    let now = unsafe {
        let mut now = std::mem::zeroed::<libc::timespec>();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now);
        now
    };
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    // The fields are of 32 bits on some targets.
    #[allow(clippy::useless_conversion)]
    let (seconds, nanos) = (part(i64::from(now.tv_sec)), part(i64::from(now.tv_nsec)));
    seconds.saturating_mul(1_000_000).saturating_add(nanos / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;

    fn folder(name: &str) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("duragent-notify-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&dir).ok();
        std::fs::create_dir_all(&dir).expect("a folder");
        dir
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let n = socket.recv(&mut buffer).expect("a datagram");
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    }

    #[test]
    fn a_path_is_spoken_to_and_may_be_made_anew() {
        let path = folder("path").join("notify");
        let notifier = Notifier::new(path.to_str().expect("UTF-8")).expect("an address");
        assert_eq!(notifier.send("READY=1").unwrap_err().kind(), io::ErrorKind::NotFound, "nobody is there yet");
        for _ in 0..2 {
            let socket = UnixDatagram::bind(&path).expect("a socket");
            notifier.send("READY=1\nSTATUS=two lines").expect("sent");
            assert_eq!(received(&socket), "READY=1\nSTATUS=two lines");
            std::fs::remove_file(&path).expect("it was there");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_name_is_spoken_to() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("duragent-notify-{}", std::process::id());
        let socket =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).expect("a name")).expect("a socket");
        Notifier::new(&format!("@{name}")).expect("an address").send("WATCHDOG=1").expect("sent");
        assert_eq!(received(&socket), "WATCHDOG=1");
    }

    #[test]
    fn other_addresses_are_refused() {
        for address in ["", "notify", "./notify", "vsock:2:1", &["/", &"x".repeat(200)].concat()] {
            let error = Notifier::new(address).expect_err(address);
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{address:?}");
        }
    }

    #[test]
    fn who_does_not_read_holds_nobody_up_for_long() {
        let path = folder("full").join("notify");
        let _socket = UnixDatagram::bind(&path).expect("a socket");
        let notifier = Notifier::new(path.to_str().expect("UTF-8")).expect("an address");
        let error = (0..100_000).find_map(|_| notifier.send("WATCHDOG=1").err()).expect("a queue has an end");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn an_inherited_descriptor_is_ours_and_nobody_elses() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let mut own = inherited(writer.as_raw_fd()).expect("open");
        // SAFETY: takes numbers only, and the descriptor is open.
        assert_eq!(unsafe { libc::fcntl(own.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC, "programs do not get it");
        drop(writer);
        own.write_all(b"\n").expect("somebody reads");
        drop(own);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("all of it");
        assert_eq!(text, "\n");
        for closed in [-1, 900_000] {
            assert_eq!(inherited(closed).expect_err("closed").raw_os_error(), Some(libc::EBADF));
        }
    }

    #[test]
    fn the_monotonic_clock_goes_on() {
        let first = monotonic_usec();
        assert!(first > 0);
        std::thread::sleep(Duration::from_millis(2));
        assert!(monotonic_usec() >= first + 2000);
    }
}
