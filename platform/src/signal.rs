//! Signals as bytes in a pipe: the handler writes the signal's number, ordinary code reads it when it likes (the
//! self-pipe of signal-safety(7)).
//!
//! Invariant: the handler does nothing but one `write` on a non-blocking pipe that is never closed. If the pipe is full, a
//! signal is lost, as equal pending signals are anyway.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// What the runtime reacts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// `SIGINT`: somebody pressed Ctrl-C.
    Interrupt,
    /// `SIGTERM`: drain and end; the second one means now.
    Terminate,
    /// `SIGHUP`: check the configuration and take it.
    Hangup,
    /// `SIGUSR1`: reopen log files.
    User1,
}

impl Signal {
    const ALL: [Self; 4] = [Self::Interrupt, Self::Terminate, Self::Hangup, Self::User1];

    fn number(self) -> libc::c_int {
        match self {
            Self::Interrupt => libc::SIGINT,
            Self::Terminate => libc::SIGTERM,
            Self::Hangup => libc::SIGHUP,
            Self::User1 => libc::SIGUSR1,
        }
    }
}

/// The signals of this process, caught from [`Signals::new`] on until the process ends.
#[derive(Debug)]
pub struct Signals {
    pipe: io::PipeReader,
}

impl Signals {
    /// Catches all of [`Signal`].
    ///
    /// # Errors
    /// `AlreadyExists` on the second call in a process: handlers belong to the process. Otherwise as pipe(2).
    pub fn new() -> io::Result<Self> {
        Ok(Self { pipe: watch(&Signal::ALL.map(Signal::number))? })
    }

    /// The oldest signal that was not read yet. Does not block; wait for the descriptor to become readable first.
    #[must_use]
    pub fn read(&self) -> Option<Signal> {
        let mut number = [0];
        match (&self.pipe).read(&mut number) {
            Ok(1) => Signal::ALL.into_iter().find(|s| s.number() == libc::c_int::from(number[0])),
            _ => None,
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// Makes writes to a closed pipe or socket an error (`EPIPE`) instead of the end of this process. Rust's runtime does so
/// before `main`; this is for entries that do not go through it. Processes we start get the default back.
pub fn ignore_sigpipe() {
    set(libc::SIGPIPE, libc::SIG_IGN);
}

/// Writing end of the pipe; -1 until [`watch`] made it.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// Catches `signals` and returns the non-blocking pipe in which their numbers arrive.
pub(crate) fn watch(signals: &[libc::c_int]) -> io::Result<io::PipeReader> {
    let (reader, writer) = io::pipe()?;
    crate::poll::set_nonblocking(&reader)?;
    crate::poll::set_nonblocking(&writer)?;
    if PIPE.compare_exchange(-1, writer.as_raw_fd(), Ordering::SeqCst, Ordering::SeqCst).is_err() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "signals of this process are caught already"));
    }
    // Stays open as long as the process: a handler may run at any time.
    let _ = writer.into_raw_fd();
    for &signal in signals {
        set(signal, on_signal as *const () as libc::sighandler_t);
    }
    Ok(reader)
}

/// Ignores `signal` in this process (until an exec gets it reset by whoever asked for that).
pub(crate) fn ignore(signal: libc::c_int) {
    set(signal, libc::SIG_IGN);
}

/// Gives every signal its default action and blocks none. Async-signal-safe: meant for between fork and exec.
pub(crate) fn reset_all() {
    /// Highest signal number of any target; numbers that a target lacks are refused by the kernel, which is fine.
    const NUMBER_MAX: libc::c_int = 64;
    for signal in 1..=NUMBER_MAX {
        set(signal, libc::SIG_DFL);
    }
    // SAFETY: `mask` is initialized by sigemptyset before it is read; both calls only touch it and the thread's mask.
    unsafe {
        let mut mask = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut mask);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut());
    }
}

/// Sets a disposition. `KILL`, `STOP` and numbers that do not exist are refused by the kernel and stay as they are.
fn set(signal: libc::c_int, handler: libc::sighandler_t) {
    // SAFETY: zero is a valid sigaction (no flags, empty mask); `handler` is SIG_IGN, SIG_DFL or `on_signal`, which is
    // async-signal-safe.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut());
    }
}

extern "C" fn on_signal(signal: libc::c_int) {
    let Ok(byte) = u8::try_from(signal) else { return };
    let saved = io::Error::last_os_error().raw_os_error();
    // SAFETY: write(2) is async-signal-safe, the byte lives through the call, and the descriptor is never closed.
    unsafe { libc::write(PIPE.load(Ordering::SeqCst), (&raw const byte).cast(), 1) };
    if let Some(code) = saved {
        set_errno(code);
    }
}

/// A handler must leave `errno` as the code it interrupted left it.
fn set_errno(code: i32) {
    #[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd", target_os = "cygwin"))]
    use libc::__errno as location;
    #[cfg(any(target_os = "linux", target_os = "emscripten", target_os = "hurd", target_os = "redox"))]
    use libc::__errno_location as location;
    #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
    use libc::__error as location;
    // SAFETY: the location of this thread's errno is valid for as long as the thread runs.
    unsafe { *location() = code };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll;
    use std::time::{Duration, Instant};

    /// One test, because handlers belong to the whole process.
    #[test]
    fn signals_arrive_in_order_and_once() {
        let signals = Signals::new().unwrap();
        assert_eq!(signals.read(), None);
        for sent in Signal::ALL {
            // SAFETY: sends this process a signal that was just given a handler.
            assert_eq!(unsafe { libc::kill(libc::getpid(), sent.number()) }, 0);
            let start = Instant::now();
            let received = loop {
                let mut sources = [poll::Source::new(Some(signals.as_fd()))];
                poll::wait(&mut sources, Some(Duration::from_secs(1))).unwrap();
                if let Some(signal) = signals.read() {
                    break signal;
                }
                assert!(start.elapsed() < Duration::from_secs(30), "{sent:?} never arrived");
            };
            assert_eq!(received, sent);
            assert_eq!(signals.read(), None);
        }
        assert_eq!(Signals::new().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_closed_pipe_is_an_error_after_ignore_sigpipe() {
        use std::io::Write;
        ignore_sigpipe();
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        assert_eq!(writer.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
