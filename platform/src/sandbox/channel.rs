//! What the inside of a sandbox tells the runtime before it becomes the tool: datagrams, one of which may carry a
//! descriptor (unix(7), `SCM_RIGHTS`).
//!
//! Absent: anything a tool could say. The tool does not inherit the channel.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Most bytes of one message; a longer one is cut.
pub(super) const MESSAGE_BYTES_MAX: usize = 1024;

/// The inside's first letter, and what it means.
pub(super) const READY: u8 = b'R';
pub(super) const FAILED: u8 = b'E';
pub(super) const LISTENER: u8 = b'L';

/// Room for one descriptor, aligned as cmsghdr wants it (`CMSG_SPACE(sizeof(int))` is 24 at most).
#[repr(align(8))]
struct Control([u8; 32]);

/// Sends `bytes`, and `fd` with them.
///
/// # Errors
/// As sendmsg(2).
pub(super) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control([0; 32]);
    // SAFETY: zero is a valid msghdr; everything it points to outlives the call, and the control buffer is larger than
    // CMSG_SPACE of one descriptor, so CMSG_FIRSTHDR and CMSG_DATA stay inside. sendmsg does not write to `bytes`.
    let sent = unsafe {
        let mut message = mem::zeroed::<libc::msghdr>();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if let Some(fd) = fd {
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(size_of::<libc::c_int>() as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<libc::c_int>() as u32) as _;
            libc::CMSG_DATA(header).cast::<libc::c_int>().write_unaligned(fd.as_raw_fd());
        }
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Receives one message: its bytes go to `buffer`; returns how many, and the descriptor that came with it (close-on-exec).
///
/// # Errors
/// As recvmsg(2); `WouldBlock` if there is none on a socket that does not wait.
pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = Control([0; 32]);
    // SAFETY: as in `send`. A descriptor that the kernel put there is new and owned by nobody else; there is room for one,
    // so the kernel gives no more than one.
    unsafe {
        let mut message = mem::zeroed::<libc::msghdr>();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<libc::c_int>() as u32) as _;
        let received = libc::recvmsg(socket.as_raw_fd(), &raw mut message, CLOSE_ON_EXEC);
        let Ok(received) = usize::try_from(received) else { return Err(io::Error::last_os_error()) };
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        let has_fd = !header.is_null()
            && (*header).cmsg_level == libc::SOL_SOCKET
            && (*header).cmsg_type == libc::SCM_RIGHTS
            && (*header).cmsg_len as usize >= libc::CMSG_LEN(size_of::<libc::c_int>() as u32) as usize;
        let fd = has_fd.then(|| OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<libc::c_int>().read_unaligned()));
        Ok((received.min(buffer.len()), fd))
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const CLOSE_ON_EXEC: libc::c_int = libc::MSG_CMSG_CLOEXEC;
/// Elsewhere no backend sends descriptors.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const CLOSE_ON_EXEC: libc::c_int = 0;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn messages_keep_their_bounds_and_carry_a_descriptor() {
        let (a, b) = UnixDatagram::pair().unwrap();
        let (mut read, mut write) = io::pipe().unwrap();
        send(a.as_fd(), b"Lx", Some(write.as_fd())).unwrap();
        send(a.as_fd(), b"R", None).unwrap();
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        let (count, fd) = receive(b.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"Lx");
        // What came is the pipe's other end: it holds it open by itself.
        write.write_all(b"1").unwrap();
        drop(write);
        io::PipeWriter::from(fd.unwrap()).write_all(b"2").unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "12");
        let (count, fd) = receive(b.as_fd(), &mut buffer).unwrap();
        assert!(count == 1 && fd.is_none());
        b.set_nonblocking(true).unwrap();
        assert_eq!(receive(b.as_fd(), &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
