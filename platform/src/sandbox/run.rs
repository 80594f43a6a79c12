//! The runtime's side of a run: starts the guard, drains the pipes, watches the clock and the cancel flag.
//!
//! Invariants: one buffer, whatever the tool prints; nothing waits for a pipe after the guard has ended, so a process
//! outside the tree that was handed a pipe cannot hold the caller.

use super::guard::{GUARD_ARG, Report};
use super::{Command, Exit, Stream, tree};
use crate::cancel::Cancel;
use crate::poll;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes read from a pipe at a time.
const CHUNK_BYTES: usize = 16 * 1024;

/// Most bytes taken from one pipe after the guard has ended: the largest pipe an ordinary user can have (`pipe-max-size`,
/// pipe(7)). Only a process outside the tree could still be writing.
const REST_BYTES_MAX: usize = 1024 * 1024;

/// Time the guard has to end the tree. It waits only for the kernel; a tool may have stopped or hurt it though.
const GUARD_GRACE_MAX: Duration = Duration::from_secs(10);

/// How often a guard that was asked to end is told to continue, in case the tool stopped it.
const NUDGE: Duration = Duration::from_millis(100);

/// Runs `command` below a guard: [`super::Sandbox::run`] for every backend that needs no more than that.
pub(super) fn run(
    guard: &Path,
    workdir: &Path,
    command: &Command,
    cancel: &Cancel,
    sink: &mut dyn FnMut(Stream, &[u8]),
) -> io::Result<Exit> {
    if cancel.is_raised() {
        return Ok(Exit::Cancelled);
    }
    // Seen by the guard as "no such file" as well, and then it is unclear which file.
    if !workdir.is_dir() {
        let text = format!("working directory {workdir:?} does not exist or is no directory");
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    let (wake, waker) = io::pipe()?;
    let waker = Arc::new(waker);
    let weak = Arc::downgrade(&waker);
    // Weak: the flag may live much longer than this run, and must not keep its descriptor.
    cancel.on_raise(move || {
        if let Some(waker) = weak.upgrade() {
            // tidy-allow(dropped-results): a full pipe wakes as well
            let _ = (&*waker).write(&[0]);
        }
    });
    let mut run = Run::start(guard, workdir, command, wake)?;
    let result = run.attend(sink);
    run.finish(command, result, sink)
}

struct Run {
    child: Child,
    control: UnixStream,
    out: Option<io::PipeReader>,
    err: Option<io::PipeReader>,
    wake: io::PipeReader,
    /// `None`: so far away that the clock cannot tell it.
    deadline: Option<Instant>,
    /// Why and when the guard was asked to end.
    ending: Option<(Exit, Instant)>,
    report: Vec<u8>,
}

impl Run {
    fn start(guard: &Path, workdir: &Path, command: &Command, wake: io::PipeReader) -> io::Result<Self> {
        let (control, theirs) = UnixStream::pair()?;
        let (out, out_writer) = io::pipe()?;
        let (err, err_writer) = io::pipe()?;
        poll::set_nonblocking(&out)?;
        poll::set_nonblocking(&err)?;
        let mut spawn = std::process::Command::new(guard);
        spawn.arg0("duragent").arg(GUARD_ARG).arg(&command.program).args(&command.args);
        spawn.current_dir(workdir).env_clear().envs(command.env.iter().map(|(k, v)| (k, v)));
        spawn.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(out_writer).stderr(err_writer);
        let child = spawn.spawn().map_err(|e| said(e, &format!("cannot start the guard {}", guard.display())))?;
        let deadline = Instant::now().checked_add(command.deadline);
        let report = Vec::with_capacity(Report::BYTES);
        Ok(Self { child, control, out: Some(out), err: Some(err), wake, deadline, ending: None, report })
    }

    /// Until the guard has ended.
    fn attend(&mut self, sink: &mut dyn FnMut(Stream, &[u8])) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let now = Instant::now();
            let timeout = match (self.ending, self.deadline) {
                (Some((_, since)), _) => {
                    self.nudge(now.saturating_duration_since(since))?;
                    Some(NUDGE)
                }
                (None, Some(deadline)) if deadline <= now => {
                    self.end(Exit::Deadline);
                    continue;
                }
                (None, deadline) => deadline.map(|d| d.saturating_duration_since(now)),
            };
            let wake = if self.ending.is_none() { Some(self.wake.as_fd()) } else { None };
            let mut sources = [
                poll::Source::new(Some(self.control.as_fd())),
                poll::Source::new(self.out.as_ref().map(AsFd::as_fd)),
                poll::Source::new(self.err.as_ref().map(AsFd::as_fd)),
                poll::Source::new(wake),
            ];
            poll::wait(&mut sources, timeout)?;
            let [control, out, err, wake] = sources.map(|s| s.ready);
            if out {
                read_chunk(&mut self.out, Stream::Out, &mut buffer, sink);
            }
            if err {
                read_chunk(&mut self.err, Stream::Err, &mut buffer, sink);
            }
            if wake {
                self.end(Exit::Cancelled);
            }
            if control && self.guard_has_ended() {
                return Ok(());
            }
        }
    }

    /// Asks the guard to end the tree.
    fn end(&mut self, why: Exit) {
        self.ending = Some((why, Instant::now()));
        // Fails only if the guard has gone, which the next read tells.
        let _ = self.control.shutdown(Shutdown::Write);
    }

    /// Looks after a guard that was asked to end: wakes it if it was stopped, and does its work if it does not.
    fn nudge(&mut self, waited: Duration) -> io::Result<()> {
        if waited < GUARD_GRACE_MAX {
            // SAFETY: sends a signal to our own child, which was not waited for.
            unsafe { libc::kill(self.guard_pid(), libc::SIGCONT) };
            return Ok(());
        }
        tree::sweep(self.guard_pid());
        self.child.kill()
    }

    fn guard_pid(&self) -> libc::pid_t {
        libc::pid_t::try_from(self.child.id()).unwrap_or(libc::pid_t::MAX)
    }

    /// Reads the control channel; true at its end.
    fn guard_has_ended(&mut self) -> bool {
        let mut bytes = [0; Report::BYTES];
        match self.control.read(&mut bytes) {
            Ok(count @ 1..) if self.report.len() < Report::BYTES => {
                self.report.extend_from_slice(bytes.get(..count).unwrap_or_default());
                false
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => false,
            _ => true,
        }
    }

    fn finish(
        mut self,
        command: &Command,
        attended: io::Result<()>,
        sink: &mut dyn FnMut(Stream, &[u8]),
    ) -> io::Result<Exit> {
        let report = Report::decode(&self.report);
        if report.is_none() || attended.is_err() {
            // The guard was killed, or we cannot watch it: nobody else will clean up.
            tree::sweep(self.guard_pid());
            let _ = self.child.kill();
        }
        let status = self.child.wait()?;
        attended?;
        let mut buffer = vec![0; CHUNK_BYTES];
        for (pipe, stream) in [(&mut self.out, Stream::Out), (&mut self.err, Stream::Err)] {
            let mut left = REST_BYTES_MAX;
            while left > 0 && pipe.is_some() {
                match read_chunk(pipe, stream, &mut buffer, sink) {
                    0 => break,
                    count => left = left.saturating_sub(count),
                }
            }
        }
        match (report, self.ending) {
            (Some(Report::Failed(errno)), _) => {
                Err(said(io::Error::from_raw_os_error(errno), &format!("cannot start {:?}", command.program)))
            }
            (Some(Report::Code(code)), _) => Ok(Exit::Code(code)),
            (Some(Report::Signal(signal)), _) => Ok(Exit::Signal(signal)),
            (_, Some((why, _))) => Ok(why),
            // Somebody killed the guard, and with it the tool.
            (_, None) => match status.signal() {
                Some(signal) => Ok(Exit::Signal(signal)),
                None => Err(io::Error::other(format!("the guard ended without a report: {status}"))),
            },
        }
    }
}

/// Reads once and hands it on; closes the pipe at its end. Returns the bytes read, 0 if there are none now.
fn read_chunk(
    pipe: &mut Option<io::PipeReader>,
    stream: Stream,
    buffer: &mut [u8],
    sink: &mut dyn FnMut(Stream, &[u8]),
) -> usize {
    let Some(reader) = pipe else { return 0 };
    match reader.read(buffer) {
        Ok(0) => *pipe = None,
        Ok(count) => {
            sink(stream, buffer.get(..count).unwrap_or_default());
            return count;
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
        Err(_) => *pipe = None,
    }
    0
}

/// `error` with what was being done put before it.
fn said(error: io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
