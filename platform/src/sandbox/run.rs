//! The runtime's side of a run: starts the guard, drains the pipes, watches the clock and the cancel flag.
//!
//! Invariants: one buffer, whatever the tool prints; nothing waits for a pipe after the guard has ended, so a process
//! outside the tree that was handed a pipe cannot hold the caller. With an inside, what is printed before it is ready is
//! what went wrong, and never a tool's output.

use super::guard::{ENV_MARK, GUARD_ARG, Options, Report};
use super::policy::Endpoint;
use super::proxy::Proxy;
use super::watch::refused_hint;
use super::{Command, Ended, Exit, Refusal, RefusalKind, Stream, View, channel, tree};
use crate::cancel::Cancel;
use crate::poll;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
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

/// Most bytes of a guard's report: a few names that were moved aside, and how it ended.
const REPORT_BYTES_MAX: usize = 64 * 1024;

/// Most bytes that are kept of what is printed before an inside is ready.
const TROUBLE_BYTES_MAX: usize = 2048;

/// What is run, and how.
pub(super) struct Plan<'a> {
    guard: &'a Path,
    workdir: &'a Path,
    /// What the guard executes: the tool, or what leads to it.
    argv: Vec<OsString>,
    /// What the tool is called, in errors.
    program: &'a str,
    env: Vec<(String, String)>,
    deadline: Duration,
    options: Options,
    /// What the proxy lets through, if the inside hands out a listener.
    pub(super) hosts: Vec<Endpoint>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        guard: &'a Path,
        view: &'a View,
        argv: Vec<OsString>,
        command: &'a Command,
        env: Vec<(String, String)>,
        options: Options,
    ) -> Self {
        let mut argv = argv;
        argv.push((&command.program).into());
        argv.extend(command.args.iter().map(OsString::from));
        let (workdir, deadline) = (view.workdir(), command.deadline);
        Self { guard, workdir, argv, program: &command.program, env, deadline, options, hosts: Vec::new() }
    }
}

/// Runs a plan to its end: [`super::Sandbox::run`].
pub(super) fn run(plan: Plan<'_>, cancel: &Cancel, sink: &mut dyn FnMut(Stream, &[u8])) -> io::Result<Ended> {
    if cancel.is_raised() {
        return Ok(Ended { exit: Exit::Cancelled, refusals: Vec::new() });
    }
    // Seen by the guard as "no such file" as well, and then it is unclear which file.
    if !plan.workdir.is_dir() {
        let text = format!("working directory {:?} does not exist or is no directory", plan.workdir);
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
    let mut run = Run::start(&plan, wake)?;
    let result = run.attend(sink);
    run.finish(&plan, result, sink)
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
    inside: Option<Inside>,
}

/// The other side of an inside.
struct Inside {
    channel: UnixDatagram,
    /// It has done all that it is to do, and is or becomes the tool.
    ready: bool,
    /// What it or bwrap said instead.
    trouble: Vec<u8>,
    hosts: Vec<Endpoint>,
    proxy: Option<Proxy>,
}

impl Run {
    fn start(plan: &Plan<'_>, wake: io::PipeReader) -> io::Result<Self> {
        let (control, theirs) = UnixStream::pair()?;
        let (out, out_writer) = io::pipe()?;
        let (err, err_writer) = io::pipe()?;
        poll::set_nonblocking(&out)?;
        poll::set_nonblocking(&err)?;
        let inside = plan.options.inside.then(|| Inside::start(&control, &plan.hosts)).transpose()?;
        let mut spawn = std::process::Command::new(plan.guard);
        spawn.arg0("duragent").arg(GUARD_ARG).args(plan.options.to_args()).args(&plan.argv);
        spawn.current_dir(plan.workdir).env_clear().envs(plan.env.iter().map(|(k, v)| (format!("{ENV_MARK}{k}"), v)));
        spawn.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(out_writer).stderr(err_writer);
        let child = spawn.spawn().map_err(|e| said(e, &format!("cannot start the guard {}", plan.guard.display())))?;
        let deadline = Instant::now().checked_add(plan.deadline);
        let report = Vec::with_capacity(Report::BYTES);
        Ok(Self { child, control, out: Some(out), err: Some(err), wake, deadline, ending: None, report, inside })
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
                // After the pipes: what is heard here came before what is read there, or is heard in the next round.
                poll::Source::new(self.inside.as_ref().map(|inside| inside.channel.as_fd())),
            ];
            poll::wait(&mut sources, timeout)?;
            let [control, out, err, wake, heard] = sources.map(|s| s.ready);
            if heard {
                self.hear();
            }
            if out {
                self.read(Stream::Out, &mut buffer, sink);
            }
            if err {
                self.read(Stream::Err, &mut buffer, sink);
            }
            if wake {
                self.end(Exit::Cancelled);
            }
            if control && self.guard_has_ended() {
                return Ok(());
            }
        }
    }

    fn hear(&mut self) {
        if let Some(inside) = &mut self.inside {
            while inside.hear() {}
        }
    }

    /// Reads once from a pipe and hands it on. Returns the bytes read, 0 if there are none now.
    fn read(&mut self, stream: Stream, buffer: &mut [u8], sink: &mut dyn FnMut(Stream, &[u8])) -> usize {
        let pipe = if stream == Stream::Out { &mut self.out } else { &mut self.err };
        match &mut self.inside {
            Some(inside) if !inside.ready => read_chunk(pipe, buffer, &mut |bytes| inside.note(bytes)),
            _ => read_chunk(pipe, buffer, &mut |bytes| sink(stream, bytes)),
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
            Ok(count @ 1..) if self.report.len() < REPORT_BYTES_MAX => {
                self.report.extend_from_slice(bytes.get(..count).unwrap_or_default());
                false
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => false,
            _ => true,
        }
    }

    fn finish(
        mut self,
        plan: &Plan<'_>,
        attended: io::Result<()>,
        sink: &mut dyn FnMut(Stream, &[u8]),
    ) -> io::Result<Ended> {
        let (names, report) = self.report.split_at(self.report.len().saturating_sub(Report::BYTES));
        let report = Report::decode(report);
        let mut refusals: Vec<_> = names.split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(moved).collect();
        if report.is_none() || attended.is_err() {
            // The guard was killed, or we cannot watch it: nobody else will clean up.
            tree::sweep(self.guard_pid());
            let _ = self.child.kill();
        }
        let status = self.child.wait()?;
        attended?;
        self.hear();
        let mut buffer = vec![0; CHUNK_BYTES];
        for stream in [Stream::Out, Stream::Err] {
            let mut left = REST_BYTES_MAX;
            while left > 0 {
                match self.read(stream, &mut buffer, sink) {
                    0 => break,
                    count => left = left.saturating_sub(count),
                }
            }
        }
        if let Some(inside) = self.inside.take() {
            refusals.extend(inside.finish(self.ending.is_some())?);
        }
        let exit = match (report, self.ending) {
            (Some(Report::Failed(errno)), _) => {
                let what = format!("cannot start {:?}", plan.started());
                return Err(said(io::Error::from_raw_os_error(errno), &what));
            }
            (Some(Report::Code(code)), _) => Exit::Code(code),
            (Some(Report::Signal(signal)), _) => Exit::Signal(signal),
            (_, Some((why, _))) => why,
            // Somebody killed the guard, and with it the tool.
            (_, None) => match status.signal() {
                Some(signal) => Exit::Signal(signal),
                None => return Err(io::Error::other(format!("the guard ended without a report: {status}"))),
            },
        };
        Ok(Ended { exit, refusals })
    }
}

impl Inside {
    /// Gives the guard the other end, for what it starts.
    fn start(control: &UnixStream, hosts: &[Endpoint]) -> io::Result<Self> {
        let (channel, theirs) = UnixDatagram::pair()?;
        channel.set_nonblocking(true)?;
        channel::send(control.as_fd(), &[0], Some(theirs.as_fd()))?;
        Ok(Self { channel, ready: false, trouble: Vec::new(), hosts: hosts.to_vec(), proxy: None })
    }

    /// Hears one message; false if there is none.
    fn hear(&mut self) -> bool {
        let mut message = [0; channel::MESSAGE_BYTES_MAX];
        let Ok((count, fd)) = channel::receive(self.channel.as_fd(), &mut message) else { return false };
        match (message.get(..count).and_then(<[u8]>::split_first), fd) {
            (Some((&channel::READY, _)), _) => self.ready = true,
            (Some((&channel::FAILED, what)), _) => {
                self.ready = false;
                self.trouble = what.to_vec();
            }
            (Some((&channel::LISTENER, _)), Some(listener)) => {
                match Proxy::start(TcpListener::from(listener), std::mem::take(&mut self.hosts)) {
                    Ok(proxy) => self.proxy = Some(proxy),
                    Err(error) => self.note(format!("cannot start the proxy: {error}").as_bytes()),
                }
            }
            _ => {}
        }
        true
    }

    fn note(&mut self, bytes: &[u8]) {
        let room = TROUBLE_BYTES_MAX.saturating_sub(self.trouble.len());
        self.trouble.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    /// What the proxy refused; an error if there never was a tool. `ended`: it may have been ended before it could start.
    fn finish(self, ended: bool) -> io::Result<Vec<Refusal>> {
        let refusals = self.proxy.map(Proxy::finish).unwrap_or_default();
        if self.ready || ended {
            return Ok(refusals);
        }
        let said = String::from_utf8_lossy(&self.trouble);
        let said = if said.trim().is_empty() { "it said nothing" } else { said.trim() };
        Err(io::Error::other(format!("the sandbox could not be made: {said}")))
    }
}

impl Plan<'_> {
    /// What the guard was to start: the tool itself, or what leads to it.
    fn started(&self) -> &OsStr {
        if self.options.inside {
            self.argv.first().map_or(OsStr::new(""), |program| program)
        } else {
            OsStr::new(self.program)
        }
    }
}

fn moved(name: &[u8]) -> Refusal {
    let path = Path::new(OsStr::from_bytes(name));
    Refusal { kind: RefusalKind::Fs, what: path.display().to_string(), hint: refused_hint(path) }
}

/// Reads once and hands it on; closes the pipe at its end. Returns the bytes read, 0 if there are none now.
fn read_chunk(pipe: &mut Option<io::PipeReader>, buffer: &mut [u8], sink: &mut dyn FnMut(&[u8])) -> usize {
    let Some(reader) = pipe else { return 0 };
    match reader.read(buffer) {
        Ok(0) => *pipe = None,
        Ok(count) => {
            sink(buffer.get(..count).unwrap_or_default());
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
