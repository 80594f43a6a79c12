//! The guard: a small process between the runtime and a tool that ends the tool's whole tree, whatever happens to the
//! runtime.
//!
//! The runtime executes itself again as `duragent __guard [OPTIONS] -- PROGRAM ARGS…`, with the tool's environment, working
//! directory and output pipes, and a socket as standard input: the control channel. The guard waits for whichever comes
//! first, the tool's end or the end of the control channel (the runtime wants an end, or is gone). Then it kills every
//! descendant, cleans up what was made for the call, reports, and ends. The options say what a backend needs beyond that
//! ([`Options`]).
//!
//! Invariants: single-threaded; it ends only after waitpid(2) knows of no child; nothing is printed. It runs outside, so no
//! variable of the tool means anything to it or to bwrap: each has a mark before its name ([`ENV_MARK`]) until the tool is
//! executed. Or a tool's `LD_PRELOAD` would be loaded out here.
//!
//! Absent: deadlines and output. Those are the runtime's, in [`super::run`].

use super::watch::{Watch, put_aside};
use super::{channel, tree};
use crate::{poll, signal};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// First argument that makes this program a guard.
pub(super) const GUARD_ARG: &str = "__guard";

/// Descriptor at which the program finds its channel to the runtime ([`channel`]), with [`Options::inside`].
pub(super) const CHANNEL_FD: libc::c_int = 3;
/// Descriptor at which it finds this very binary, which may not have a path where the program runs.
pub(super) const BINARY_FD: libc::c_int = 4;
/// Descriptor at which it finds a system call filter to be installed by another program, with [`Options::filter`].
pub(super) const FILTER_FD: libc::c_int = 5;
/// The first descriptor that is the guard's own when it starts the program: above those of the program.
const OWN_FDS: libc::c_int = 10;

/// What a backend wants of its guard beyond the end of the tree. Written to the guard's command line and read from it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// The program is to become [`super::inside`]: it gets a channel to the runtime, which comes over the control channel
    /// first of all, and this binary.
    pub(super) inside: bool,
    /// The arguments are those of [`super::inside`], which is to be here: nothing is mounted in between.
    pub(super) here: bool,
    /// The program is to install a filter that has internet sockets (true) or not.
    pub(super) filter: Option<bool>,
    /// A control group that the program joins; removed when all has ended.
    pub(super) cgroup: Option<PathBuf>,
    /// A directory that is removed when all has ended.
    pub(super) remove: Option<PathBuf>,
    /// Names to be looked at when all has ended.
    pub(super) watch: Vec<Watch>,
}

impl Options {
    /// As arguments, up to and with `--`.
    pub(super) fn to_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        if self.inside {
            args.push("--inside".into());
        }
        if self.here {
            args.push("--here".into());
        }
        if let Some(inet) = self.filter {
            args.push(if inet { "--filter-inet".into() } else { "--filter".into() });
        }
        for (name, path) in [("--cgroup", &self.cgroup), ("--remove", &self.remove)] {
            args.extend(path.iter().flat_map(|path| [name.into(), path.into()]));
        }
        for watch in &self.watch {
            match &watch.link {
                None => args.extend(["--absent".into(), (&watch.path).into()]),
                Some(link) => args.extend(["--link".into(), (&watch.path).into(), link.into()]),
            }
        }
        args.push("--".into());
        args
    }

    /// Takes them off the front of `args`; `None` if they are not as [`Options::to_args`] writes them.
    fn take(args: &mut impl Iterator<Item = OsString>) -> Option<Self> {
        let mut options = Self::default();
        loop {
            let name = args.next()?;
            match name.to_str()? {
                "--" => return Some(options),
                "--inside" => options.inside = true,
                "--here" => options.here = true,
                "--filter" => options.filter = Some(false),
                "--filter-inet" => options.filter = Some(true),
                "--cgroup" => options.cgroup = Some(args.next()?.into()),
                "--remove" => options.remove = Some(args.next()?.into()),
                "--absent" => options.watch.push(Watch { path: args.next()?.into(), link: None }),
                "--link" => {
                    options.watch.push(Watch { path: args.next()?.into(), link: Some(args.next()?.into()) });
                }
                _ => return None,
            }
        }
    }

    /// What is done when no process is left. Returns the names that were moved aside.
    fn clean_up(&self) -> Vec<PathBuf> {
        if let Some(path) = &self.cgroup {
            super::cgroup::remove(path);
        }
        if let Some(path) = &self.remove {
            // What cannot be removed is in a directory for temporary files, and says whose it is.
            let _ = std::fs::remove_dir_all(path);
        }
        put_aside(&self.watch).into_iter().map(PathBuf::from).collect()
    }
}

/// Before the names of the tool's variables, wherever something else than the tool is executed with them.
pub(super) const ENV_MARK: &str = "+";

/// The tool's variables among this process'.
pub(super) fn tool_variables() -> impl Iterator<Item = (OsString, OsString)> {
    // tidy-allow(environment): a tool's is handed on by this way
    let all = std::env::vars_os();
    all.filter_map(|(name, value)| {
        let name = name.as_bytes().strip_prefix(ENV_MARK.as_bytes())?;
        Some((OsString::from_vec(name.to_vec()), value))
    })
}

/// How long a killed process may take before the guard looks for new children again.
const KILL_PAUSE: Duration = Duration::from_millis(5);

/// Signals that ask a process politely to end or stop. The guard's end is the tool's end, so it does not listen: a service
/// manager that signals the whole group reaches the runtime as well, and the runtime decides.
const IGNORED: [libc::c_int; 10] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGPIPE,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// What the guard tells the runtime before it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// The tool could not be started: error number.
    Failed(i32),
    /// It ended by itself, with this code.
    Code(i32),
    /// It was ended by this signal, which was not the guard's.
    Signal(i32),
    /// The guard ended it because the control channel did.
    Ended,
}

impl Report {
    /// Size on the wire: a tag, three zero bytes, a little-endian number. Before it come the names that were moved aside,
    /// each with a NUL at its end.
    pub(super) const BYTES: usize = 8;

    fn encode(self) -> [u8; Self::BYTES] {
        let (tag, number) = match self {
            Self::Failed(errno) => (b'F', errno),
            Self::Code(code) => (b'C', code),
            Self::Signal(signal) => (b'S', signal),
            Self::Ended => (b'E', 0),
        };
        let [a, b, c, d] = number.to_le_bytes();
        [tag, 0, 0, 0, a, b, c, d]
    }

    /// `None` if the bytes are no report: the guard ended before it could write one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let &[tag, 0, 0, 0, a, b, c, d] = bytes else { return None };
        let number = i32::from_le_bytes([a, b, c, d]);
        match tag {
            b'F' => Some(Self::Failed(number)),
            b'C' => Some(Self::Code(number)),
            b'S' => Some(Self::Signal(number)),
            b'E' => Some(Self::Ended),
            _ => None,
        }
    }
}

/// Runs a guard to its end; `args` is what follows [`GUARD_ARG`]: options, the program and its arguments. Returns the exit
/// code for the process: 0, or 1 if nothing could be reported.
pub(super) fn guard_main(mut args: impl Iterator<Item = OsString>) -> i32 {
    tree::close_from(3);
    let Ok(mut control) = take_control() else { return 1 };
    let mut message = Vec::new();
    let report = match Options::take(&mut args) {
        Some(options) => {
            let report = guard(&options, args.collect(), &mut control)
                .unwrap_or_else(|error| Report::Failed(error.raw_os_error().unwrap_or(libc::EINVAL)));
            for path in options.clean_up() {
                message.extend_from_slice(path.as_os_str().as_bytes());
                message.push(0);
            }
            report
        }
        None => Report::Failed(libc::EINVAL),
    };
    message.extend_from_slice(&report.encode());
    // SIGPIPE is ignored: if the runtime is gone, nobody reads this, and that is fine.
    i32::from(control.write_all(&message).is_err())
}

/// Moves the control channel from standard input to a descriptor that no tool inherits.
fn take_control() -> io::Result<UnixStream> {
    let control = UnixStream::from(above(io::stdin().as_fd().as_raw_fd())?);
    replace_with_null(&[0])?;
    Ok(control)
}

/// A copy of a descriptor, closed on exec, with a number above those that a program may find something at.
fn above(fd: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: fcntl takes numbers; what it returns is new and ours.
    unsafe {
        match libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, OWN_FDS) {
            fd if fd < 0 => Err(io::Error::last_os_error()),
            fd => Ok(std::os::fd::FromRawFd::from_raw_fd(fd)),
        }
    }
}

/// What the program finds at [`CHANNEL_FD`], [`BINARY_FD`] and [`FILTER_FD`]: put there now, so that nothing else comes to be
/// there, and closed on exec until the program is started.
fn take_inside(control: &UnixStream, filter: Option<bool>) -> io::Result<Vec<OwnedFd>> {
    let (_, channel) = channel::receive(control.as_fd(), &mut [0; 1])?;
    let channel = above(channel.ok_or(io::ErrorKind::InvalidData)?.as_raw_fd())?;
    let binary = above(File::open(super::own_binary()?)?.as_raw_fd())?;
    let mut fds = vec![at(&channel, CHANNEL_FD)?, at(&binary, BINARY_FD)?];
    if let Some(inet) = filter {
        let (anywhere, mut writer) = io::pipe()?;
        let reader = above(anywhere.as_raw_fd())?;
        drop(anywhere);
        // A few hundred instructions: less than any pipe holds.
        writer.write_all(&super::filter(inet).ok_or(io::ErrorKind::Unsupported)?)?;
        drop(writer);
        fds.push(at(&reader, FILTER_FD)?);
    }
    Ok(fds)
}

/// A copy of a descriptor with this number, closed on exec. Nothing of ours may have the number.
fn at(fd: &OwnedFd, number: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: both take numbers; whatever had the number is owned by nobody, as the caller sees to.
    unsafe {
        if libc::dup2(fd.as_raw_fd(), number) < 0 || libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(std::os::fd::FromRawFd::from_raw_fd(number))
    }
}

fn guard(options: &Options, args: Vec<OsString>, control: &mut UnixStream) -> io::Result<Report> {
    let inside = if options.inside { take_inside(control, options.filter)? } else { Vec::new() };
    let cgroup = options.cgroup.as_ref().map(|path| File::options().write(true).open(path.join("cgroup.procs")));
    let cgroup = cgroup.transpose()?;
    // A session of its own keeps a terminal's Ctrl-C away. Fails only for a group leader, which is alone already.
    // SAFETY: takes nothing.
    unsafe { libc::setsid() };
    tree::adopt_orphans()?;
    signal::reset_all();
    IGNORED.into_iter().for_each(signal::ignore);
    let mut ended_children = signal::watch(&[libc::SIGCHLD])?;

    let tool = start(options, args, &inside, cgroup.as_ref())?;
    drop((inside, cgroup));
    // From here on an error is no way out: the tree has to end first. The pipes must close when that has happened, not
    // when the guard ends, so the guard lets go of them.
    let attended = replace_with_null(&[1, 2]).and_then(|()| await_end(tool, control, &mut ended_children));
    let by_itself = attended.unwrap_or(false);
    let status = end_all(tool, &mut ended_children);
    Ok(match status {
        Some(status) if by_itself && libc::WIFSIGNALED(status) => Report::Signal(libc::WTERMSIG(status)),
        Some(status) if by_itself => Report::Code(libc::WEXITSTATUS(status)),
        _ => Report::Ended,
    })
}

/// Starts the tool with this process' working directory, standard output and error.
fn start(options: &Options, args: Vec<OsString>, inside: &[OwnedFd], cgroup: Option<&File>) -> io::Result<libc::pid_t> {
    let inherited: Vec<libc::c_int> = inside.iter().map(AsRawFd::as_raw_fd).collect();
    // SAFETY: takes nothing, cannot fail.
    let guard = unsafe { libc::getpid() };
    let cgroup = cgroup.map(AsRawFd::as_raw_fd);
    let prepare = move || prepare(guard, &inherited, cgroup);
    if options.here {
        return fork(args, &prepare);
    }
    let mut args = args.into_iter();
    let program = args.next().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    if inside.is_empty() {
        command.env_clear().envs(tool_variables());
    }
    // SAFETY: the closure calls only async-signal-safe functions and allocates nothing.
    unsafe { command.pre_exec(prepare) };
    libc::pid_t::try_from(command.spawn()?.id()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// A child that becomes the inside, and then the tool, without being executed in between.
fn fork(args: Vec<OsString>, prepare: &dyn Fn() -> io::Result<()>) -> io::Result<libc::pid_t> {
    // SAFETY: this process has one thread, so the child may do whatever a process may. It ends without returning.
    unsafe {
        match libc::fork() {
            0 => {
                let code = if prepare().is_ok() { super::become_inside(args) } else { 1 };
                libc::_exit(code)
            }
            child if child < 0 => Err(io::Error::last_os_error()),
            child => Ok(child),
        }
    }
}

/// What is done in the child before anything else. Only async-signal-safe functions, no allocation.
fn prepare(guard: libc::pid_t, inherited: &[libc::c_int], cgroup: Option<libc::c_int>) -> io::Result<()> {
    let done = |result: libc::c_int| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    signal::reset_all();
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: numbers, a struct and a text that live through the calls.
    unsafe {
        done(libc::setpgid(0, 0))?;
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        if let Some(cgroup) = cgroup
            && libc::write(cgroup, c"0".as_ptr().cast(), 1) != 1
        {
            return Err(io::Error::last_os_error());
        }
        for &fd in inherited {
            done(libc::fcntl(fd, libc::F_SETFD, 0))?;
        }
    }
    tree::prepare_tool(guard)
}

/// Waits for the end of the tool (true) or of the control channel (false). Orphans that end meanwhile are reaped; the tool
/// is not, so that its number, which is its group's too, stays taken until the group is killed.
fn await_end(tool: libc::pid_t, control: &mut UnixStream, ended: &mut io::PipeReader) -> io::Result<bool> {
    loop {
        drain(ended);
        while let Some(pid) = ended_child() {
            if pid == tool {
                return Ok(true);
            }
            reap(pid);
        }
        let mut sources = [poll::Source::new(Some(control.as_fd())), poll::Source::new(Some(ended.as_fd()))];
        poll::wait(&mut sources, None)?;
        let asked = sources[0].ready;
        // Anything but data is an end: a reset channel too.
        if asked && !matches!(control.read(&mut [0; 16]), Ok(1..)) {
            return Ok(false);
        }
    }
}

/// Kills everything below this process and waits for it. Returns the tool's wait status.
///
/// The tool's group goes first, at once. What is left are children of this process, or become so when their parents die:
/// killing children until waitpid(2) has none left reaches all of them, also such that fork faster than a list of them can
/// be read. Only children are killed by number, whose numbers cannot pass to others before they are reaped here.
fn end_all(tool: libc::pid_t, ended: &mut io::PipeReader) -> Option<libc::c_int> {
    tree::kill_group(tool);
    let mut tool_status = None;
    loop {
        tree::children().into_iter().for_each(tree::kill_child);
        loop {
            match reap(-1) {
                Reaped::Child(pid, status) if pid == tool => tool_status = Some(status),
                Reaped::Child(..) => {}
                Reaped::NoneYet => break,
                Reaped::NoChild => return tool_status,
            }
        }
        let _ = poll::wait(&mut [poll::Source::new(Some(ended.as_fd()))], Some(KILL_PAUSE));
        drain(ended);
    }
}

/// A child that has ended and was not reaped; it stays so.
fn ended_child() -> Option<libc::pid_t> {
    // SAFETY: zero is a valid siginfo_t; waitid writes to it, and si_pid reads the field that waitid sets (0 if there is
    // no such child, as it was before).
    unsafe {
        let mut info = std::mem::zeroed::<libc::siginfo_t>();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let found = libc::waitid(libc::P_ALL, 0, &raw mut info, options) == 0;
        Some(info.si_pid()).filter(|&pid| found && pid > 0)
    }
}

enum Reaped {
    Child(libc::pid_t, libc::c_int),
    NoneYet,
    NoChild,
}

/// Reaps `pid`, or any child for -1, without waiting.
fn reap(pid: libc::pid_t) -> Reaped {
    let mut status = 0;
    // SAFETY: writes one status, which lives through the call.
    match unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } {
        0 => Reaped::NoneYet,
        pid if pid > 0 => Reaped::Child(pid, status),
        // WNOHANG is never interrupted, so this is ECHILD.
        _ => Reaped::NoChild,
    }
}

/// Empties the pipe of signals; their numbers do not matter, waitid(2) knows better.
fn drain(pipe: &mut io::PipeReader) {
    while matches!(pipe.read(&mut [0; 64]), Ok(1..)) {}
}

/// Puts `/dev/null` in the place of standard descriptors.
fn replace_with_null(numbers: &[libc::c_int]) -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    for &number in numbers {
        // SAFETY: both descriptors are open; no OwnedFd owns one of the standard numbers.
        if unsafe { libc::dup2(null.as_raw_fd(), number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_the_command_line() {
        let full = Options {
            inside: true,
            here: true,
            filter: Some(true),
            cgroup: Some("/c".into()),
            remove: Some("/r".into()),
            watch: vec![
                Watch { path: "/w/.bashrc".into(), link: None },
                Watch { path: "/w/.zshrc".into(), link: Some("--".into()) },
            ],
        };
        for options in [Options::default(), full] {
            let mut args = options.to_args().into_iter().chain(["bash".into(), "--inside".into()]);
            assert_eq!(Options::take(&mut args), Some(options));
            assert_eq!(args.collect::<Vec<_>>(), ["bash", "--inside"]);
        }
        for bad in [&["bash"][..], &["--cgroup"], &["--link", "a"], &[]] {
            assert_eq!(Options::take(&mut bad.iter().map(OsString::from)), None, "{bad:?}");
        }
    }

    #[test]
    fn reports_survive_the_wire_and_torn_ones_are_none() {
        for report in [Report::Failed(2), Report::Code(255), Report::Code(-1), Report::Signal(9), Report::Ended] {
            let bytes = report.encode();
            assert_eq!(Report::decode(&bytes), Some(report));
            for cut in 0..bytes.len() {
                assert_eq!(Report::decode(&bytes[..cut]), None, "{report:?} cut at {cut}");
            }
        }
        assert_eq!(Report::decode(b"X\0\0\0\0\0\0\0"), None);
        assert_eq!(Report::decode(b"C\0\x01\0\0\0\0\0"), None);
    }
}
