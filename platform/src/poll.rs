//! Waiting for several descriptors on a plain thread: poll(2) behind a safe face.
//!
//! Absent: a reactor. Whoever waits for thousands of descriptors uses async-io.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

/// What is waited for: data or room, or the other side's end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    fd: Option<BorrowedFd<'a>>,
    events: libc::c_short,
    /// Set by [`wait`]: a read (or a write) will not block.
    pub(crate) ready: bool,
}

impl<'a> Source<'a> {
    /// Waits until `fd` can be read; `None` is never ready, so that positions in the list stay the same.
    pub(crate) fn new(fd: Option<BorrowedFd<'a>>) -> Self {
        Self { fd, events: libc::POLLIN, ready: false }
    }

    /// Waits until `fd` can be written to.
    pub(crate) fn for_writing(fd: Option<BorrowedFd<'a>>) -> Self {
        Self { fd, events: libc::POLLOUT, ready: false }
    }
}

/// Waits until a source is ready, `timeout` has passed (`None` waits for ever) or a signal came in. Early returns without
/// a ready source happen; callers look at their own clock.
///
/// # Errors
/// As poll(2), but for `EINTR`.
pub(crate) fn wait<const N: usize>(sources: &mut [Source<'_>; N], timeout: Option<Duration>) -> io::Result<()> {
    let mut fds =
        sources.map(|s| libc::pollfd { fd: s.fd.map_or(-1, |fd| fd.as_raw_fd()), events: s.events, revents: 0 });
    // Rounded up: a timeout cut to 0 ms would spin until the last millisecond is over.
    let millis = timeout.map_or(-1, |t| i32::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
    // SAFETY: `fds` is an array of N initialized pollfd, and lives through the call. poll(2) ignores negative fds.
    let found = unsafe { libc::poll(fds.as_mut_ptr(), N as libc::nfds_t, millis) };
    if found < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
    }
    for (source, fd) in sources.iter_mut().zip(&fds) {
        source.ready = fd.revents != 0;
    }
    Ok(())
}

/// Makes reads (and writes) of `fd` return `WouldBlock` instead of waiting.
///
/// # Errors
/// As fcntl(2).
pub(crate) fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: `fd` is open, as the borrow shows; both commands take and return plain integers.
    let failed = unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        flags < 0 || libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) < 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn readiness_timeout_and_absence() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        let mut sources = [Source::new(None), Source::new(Some(reader.as_fd()))];
        wait(&mut sources, Some(Duration::from_millis(1))).unwrap();
        assert!(!sources[0].ready && !sources[1].ready, "nothing was written");

        writer.write_all(b"x").unwrap();
        wait(&mut sources, None).unwrap();
        assert!(!sources[0].ready && sources[1].ready);

        reader.read_exact(&mut [0]).unwrap();
        set_nonblocking(&reader).unwrap();
        assert_eq!(reader.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(writer);
        let mut sources = [Source::new(Some(reader.as_fd()))];
        wait(&mut sources, None).unwrap();
        assert!(sources[0].ready, "the end of the stream counts as ready");
    }

    #[test]
    fn room_to_write() {
        let (reader, mut writer) = io::pipe().unwrap();
        set_nonblocking(&writer).unwrap();
        while writer.write(&[0; 4096]).is_ok() {}
        let has_room = |writer: &io::PipeWriter, patience| {
            let mut sources = [Source::for_writing(Some(writer.as_fd()))];
            wait(&mut sources, Some(patience)).unwrap();
            sources[0].ready
        };
        // A child that another test has just forked may hold the other end for a moment.
        let (moment, patience) = (Duration::from_millis(1), Duration::from_secs(60));
        assert!(!has_room(&writer, moment));
        (&reader).read_exact(&mut [0; 4096]).unwrap();
        assert!(has_room(&writer, patience));
        while writer.write(&[0; 4096]).is_ok() {}
        drop(reader);
        assert!(has_room(&writer, patience), "a reader that has gone counts as ready: the write tells");
    }
}
