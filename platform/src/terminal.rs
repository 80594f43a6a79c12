//! What the command line asks of a terminal.
//!
//! Absent: colours, cursor movement, line editing.

use std::io::IsTerminal;
use std::os::fd::{AsFd, AsRawFd};

/// True if `fd` is a terminal (isatty(3)).
#[must_use]
pub fn is_terminal(fd: impl AsFd) -> bool {
    fd.as_fd().is_terminal()
}

/// Width of the terminal's window in columns (ioctl_tty(2), `TIOCGWINSZ`); `None` if `fd` is no terminal or does not know.
#[must_use]
pub fn width(fd: impl AsFd) -> Option<u16> {
    // SAFETY: zero is a valid winsize.
    let mut size = unsafe { std::mem::zeroed::<libc::winsize>() };
    // SAFETY: TIOCGWINSZ writes one winsize, which lives through the call; the borrow shows that the descriptor is open.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0).then_some(size.ws_col)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{FromRawFd, OwnedFd};
    use std::ptr::null_mut;

    /// A pseudo-terminal with a window of `columns`: both ends.
    fn pty(columns: u16) -> (OwnedFd, OwnedFd) {
        let (mut master, mut slave) = (-1, -1);
        let mut size = libc::winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: openpty writes two descriptors and reads one winsize; all live through the call, the rest may be null.
        unsafe {
            assert_eq!(libc::openpty(&raw mut master, &raw mut slave, null_mut(), null_mut(), &raw mut size), 0);
            (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave))
        }
    }

    #[test]
    fn a_terminal_has_a_width_and_a_pipe_has_none() {
        let (_master, slave) = pty(97);
        assert!(is_terminal(&slave));
        assert_eq!(width(&slave), Some(97));

        let (_master, unknown) = pty(0);
        assert_eq!(width(&unknown), None);

        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(!is_terminal(&reader));
        assert_eq!(width(&reader), None);
    }
}
