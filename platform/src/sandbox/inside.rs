//! The last step before a tool: this binary again, where the tool is to run, takes from itself what the tool is not to have,
//! and becomes the tool.
//!
//! Entered as `__inside [OPTIONS] -- PROGRAM ARGS…` by [`super::guard`] (Landlock) or by bwrap, with a channel to the runtime
//! at a fixed descriptor. In this order: all other descriptors above standard error are closed, the listener for the proxy is
//! handed out, the mounts are checked (bubblewrap), limits are set, and under Landlock its rules and the system call filter,
//! which bwrap installs by itself; then it says that it is ready, and executes. Whatever fails on the way is told, and nothing
//! is executed: a sandbox that cannot be built runs nothing.
//!
//! Invariants: single-threaded. `PR_SET_NO_NEW_PRIVS` is set before the filter, so no set-user-id program gains anything.

use super::guard::{CHANNEL_FD, tool_variables};
use super::layout::Id;
use super::policy::{Limits, Network};
use super::seccomp::{Filter, Sockets};
use super::{canary, channel, rules, tree};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// First argument that makes this program an inside.
pub(super) const INSIDE_ARG: &str = "__inside";

/// In the place of a program: do nothing, well. To try out whether the sandbox can be built.
pub(super) const NOTHING: &str = "@nothing";
/// In the place of a program: see what the kernel refuses ([`canary`]).
pub(super) const CANARY: &str = "@canary";

/// Exit code when there is nothing to execute: the one of shells for "cannot be executed".
const EXIT_FAILED: i32 = 126;

/// Seconds of processor time from the limit to the end of a process that does not heed `SIGXCPU`.
const CPU_GRACE_SECONDS: libc::rlim_t = 1;

/// Variables that lead HTTP clients to a proxy. `ALL_PROXY` is not among them: it means SOCKS to some.
const PROXY_VARIABLES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"];

/// What is to be taken away. Written to the command line and read from it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Options {
    /// Numbers for setrlimit(2); 0: as it is.
    pub(super) limits: [u64; LIMITS.len()],
    /// Internet sockets may be made.
    pub(super) inet: bool,
    /// Listen on the loopback of this place, and hand the listener to the runtime's proxy.
    pub(super) listen: bool,
    /// The network is the machine's, and with it the abstract unix sockets of its programs (unix(7)), which no file hides.
    pub(super) shares_network: bool,
    /// What is to be a mount point, and what is to be found there if anybody could have changed that; no other mounts
    /// are to be there but the sandbox' own. None: the mounts are the machine's.
    pub(super) mounts: Vec<(PathBuf, Option<Id>)>,
    /// Rules for Landlock, if this is what the sandbox rests on.
    pub(super) landlock: Option<rules::Rules>,
}

/// The limits by name and number, in the order of [`Options::limits`].
const LIMITS: [(&str, Resource); 5] = [
    ("--cpu", libc::RLIMIT_CPU),
    ("--memory", libc::RLIMIT_AS),
    ("--processes", libc::RLIMIT_NPROC),
    ("--file", libc::RLIMIT_FSIZE),
    ("--files", libc::RLIMIT_NOFILE),
];

#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

impl Options {
    /// For a policy's network and limits; `processes` is that of the limit as the kernel is to have it.
    pub(super) fn new(network: &Network, limits: &Limits, processes: u64) -> Self {
        Self {
            limits: [limits.cpu_seconds, limits.memory_bytes, processes, limits.file_bytes, limits.open_files],
            inet: *network != Network::None,
            listen: matches!(network, Network::Hosts(_)),
            shares_network: *network == Network::All,
            mounts: Vec::new(),
            landlock: None,
        }
    }

    /// As arguments, [`INSIDE_ARG`] first, up to and with `--`.
    pub(super) fn to_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec![INSIDE_ARG.into()];
        for ((name, _), value) in LIMITS.iter().zip(self.limits).filter(|(_, value)| *value > 0) {
            args.extend([OsString::from(name), value.to_string().into()]);
        }
        for (name, on) in [("--inet", self.inet), ("--listen", self.listen), ("--shares-network", self.shares_network)]
        {
            if on {
                args.push(name.into());
            }
        }
        for (path, id) in &self.mounts {
            let id = id.map_or(NO_ID.to_owned(), |id| format!("{}:{}", id.device, id.inode));
            args.extend(["--mount".into(), path.into(), id.into()]);
        }
        if let Some(rules) = &self.landlock {
            args.push("--landlock".into());
            args.extend(rules.to_args());
        }
        args.push("--".into());
        args
    }

    /// Takes them off the front of what follows [`INSIDE_ARG`]; the argument that is wrong otherwise.
    fn take(args: &mut impl Iterator<Item = OsString>) -> Result<Self, OsString> {
        let mut options = Self::default();
        loop {
            let name = args.next().unwrap_or_default();
            match name.to_str() {
                Some("--") => return Ok(options),
                Some("--inet") => options.inet = true,
                Some("--listen") => options.listen = true,
                Some("--shares-network") => options.shares_network = true,
                Some("--mount") => {
                    let (path, id) = args.next().zip(args.next()).ok_or_else(|| name.clone())?;
                    let id = read_id(&id).ok_or(name)?;
                    options.mounts.push((path.into(), id));
                }
                Some("--landlock") => options.landlock = Some(rules::Rules::default()),
                Some(text) => {
                    let value = args.next().ok_or_else(|| name.clone())?;
                    let limit = LIMITS.iter().position(|(limit, _)| *limit == text);
                    let number = value.to_str().and_then(|value| value.parse().ok());
                    match (limit.and_then(|at| options.limits.get_mut(at)), number) {
                        (Some(limit), Some(number)) => *limit = number,
                        (None, _) if options.landlock.as_mut().is_some_and(|rules| rules.take(text, &value)) => {}
                        _ => return Err(name),
                    }
                }
                None => return Err(name),
            }
        }
    }
}

/// In the place of an id: anything may be there.
const NO_ID: &str = "-";

fn read_id(text: &OsStr) -> Option<Option<Id>> {
    let text = text.to_str()?;
    if text == NO_ID {
        return Some(None);
    }
    let (device, inode) = text.split_once(':')?;
    Some(Some(Id { device: device.parse().ok()?, inode: inode.parse().ok()? }))
}

/// Becomes the tool; `args` is what follows [`INSIDE_ARG`]. Returns only if that failed: the exit code for the process.
pub(super) fn inside_main(mut args: impl Iterator<Item = OsString>) -> i32 {
    let Ok(channel) = take_channel() else { return EXIT_FAILED };
    let options = match Options::take(&mut args) {
        Ok(options) => options,
        Err(wrong) => return failed(&channel, &format!("unexpected argument {wrong:?}")),
    };
    let Some(program) = args.next() else { return failed(&channel, "no program") };
    let confined = match options.listen.then(|| hand_out_listener(channel.as_fd())).transpose() {
        Ok(proxy) => confine(&options).map(|()| proxy),
        Err(error) => Err(format!("no listener for the proxy: {error}")),
    };
    let proxy = match confined {
        Ok(proxy) => proxy,
        Err(what) => return failed(&channel, &what),
    };
    if channel::send(channel.as_fd(), &[channel::READY], None).is_err() {
        return EXIT_FAILED;
    }
    match program.to_str() {
        Some(NOTHING) => 0,
        Some(CANARY) => canary::main(args),
        _ => execute(&program, args, proxy, &channel),
    }
}

/// The channel, not to be inherited by the tool; every descriptor above it is closed.
fn take_channel() -> io::Result<OwnedFd> {
    tree::close_from(CHANNEL_FD + 1);
    // SAFETY: fcntl takes numbers and says if there is no such descriptor. If there is, the guard put it there, and nobody
    // else owns it in this process.
    unsafe {
        if libc::fcntl(CHANNEL_FD, libc::F_SETFD, libc::FD_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(CHANNEL_FD))
    }
}

fn failed(channel: &OwnedFd, what: &str) -> i32 {
    let mut message = vec![channel::FAILED];
    message.extend_from_slice(what.as_bytes().get(..channel::MESSAGE_BYTES_MAX - 1).unwrap_or(what.as_bytes()));
    // The runtime is gone if this fails, and with it everybody who would want to know.
    let _ = channel::send(channel.as_fd(), &message, None);
    EXIT_FAILED
}

/// Listens on the loopback of this network namespace. The socket stays in it, whoever accepts.
fn hand_out_listener(channel: BorrowedFd<'_>) -> io::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    channel::send(channel, &[channel::LISTENER], Some(listener.as_fd()))?;
    Ok(format!("http://{address}"))
}

/// Takes away all that the options say, or says what could not be taken.
fn confine(options: &Options) -> Result<(), String> {
    check_mounts(&options.mounts)?;
    let said = |what: &str| format!("{what}: {}", io::Error::last_os_error());
    for ((name, resource), value) in LIMITS.iter().zip(options.limits).filter(|(_, value)| *value > 0) {
        if !limit(*resource, value) {
            return Err(said(&format!("cannot set the limit {name} to {value}")));
        }
    }
    let (on, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: prctl with this option takes numbers (prctl(2)).
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, unused, unused, unused) } != 0 {
        return Err(said("cannot give up new privileges"));
    }
    // bwrap has installed the filter already.
    let Some(rules) = &options.landlock else {
        return if options.shares_network { rules::leave_abstract_sockets() } else { Ok(()) };
    };
    rules.enforce(options.inet)?;
    // A unix socket that exists could be one of a service with rights that tools do not have: before version 9 Landlock does
    // not keep from connecting to it.
    let filter = Filter::new(Sockets { inet: options.inet, unix: false, others: false });
    let filter = filter.ok_or("there is no system call filter for this processor")?;
    filter.install().map_err(|error| format!("cannot install the system call filter: {error}"))
}

/// The mounts are what they are to be, or it is said which is not.
fn check_mounts(expected: &[(PathBuf, Option<Id>)]) -> Result<(), String> {
    if expected.is_empty() {
        return Ok(());
    }
    let text = fs::read("/proc/self/mountinfo").map_err(|error| format!("cannot read the list of mounts: {error}"))?;
    let found: Vec<PathBuf> = text.split(|&byte| byte == b'\n').filter_map(mount_point).collect();
    for (path, id) in expected {
        let there = fs::symlink_metadata(path).ok().map(|metadata| Id::of(&metadata));
        if !found.contains(path) || id.is_some_and(|id| Some(id) != there) {
            return Err(format!("{} was changed by something else while it was mounted; try again", path.display()));
        }
    }
    let own = |path: &Path| {
        path == Path::new("/") || path == Path::new("/tmp") || path.starts_with("/dev") || path.starts_with("/proc")
    };
    match found.iter().find(|path| !own(path) && !expected.iter().any(|(known, _)| known == *path)) {
        Some(path) => Err(format!("there is a mount at {} that was not asked for; try again", path.display())),
        None => Ok(()),
    }
}

/// The fifth field of a line, in which spaces and the like are written as three octal digits (proc_pid_mountinfo(5)).
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|&byte| byte == b' ').nth(4)?;
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let octal = octal.filter(|_| byte == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { after.get(3..)? } else { after };
    }
    Some(PathBuf::from(OsString::from_vec(out)))
}

/// Sets a limit, or what of it the hard limit allows: nobody can raise that.
fn limit(resource: Resource, value: u64) -> bool {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes to and reads from a struct that lives through the calls (setrlimit(2)).
    unsafe {
        if libc::getrlimit(resource, &raw mut now) != 0 {
            return false;
        }
        let value = libc::rlim_t::try_from(value).unwrap_or(libc::rlim_t::MAX).min(now.rlim_max);
        // At the hard limit of processor time the kernel says KILL and not XCPU, which would name what was used up.
        let more = if resource == libc::RLIMIT_CPU { CPU_GRACE_SECONDS } else { 0 };
        let limit = libc::rlimit { rlim_cur: value, rlim_max: value.saturating_add(more).min(now.rlim_max) };
        libc::setrlimit(resource, &raw const limit) == 0
    }
}

fn execute(program: &OsStr, args: impl Iterator<Item = OsString>, proxy: Option<String>, channel: &OwnedFd) -> i32 {
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(tool_variables());
    if let Some(proxy) = proxy {
        command.envs(PROXY_VARIABLES.map(|name| (name, &proxy)));
    }
    let error = command.exec();
    failed(channel, &format!("cannot start {program:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_the_command_line() {
        let mut full = Options::new(&Network::Hosts(Vec::new()), &Limits::default(), 7);
        full.mounts = vec![("/w".into(), Some(Id { device: 1, inode: 2 })), ("/usr".into(), None)];
        full.landlock = Some(rules::Rules { abi: 7, read: vec!["/usr".into()], ..rules::Rules::default() });
        for options in [Options::default(), Options::new(&Network::None, &Limits::default(), 0), full] {
            let mut args = options.to_args().into_iter().chain(["bash".into(), "--cpu".into()]);
            assert_eq!(args.next().unwrap(), INSIDE_ARG);
            assert_eq!(Options::take(&mut args), Ok(options));
            assert_eq!(args.collect::<Vec<_>>(), ["bash", "--cpu"]);
        }
        for (args, wrong) in
            [(&["bash"][..], "bash"), (&["--cpu"], "--cpu"), (&["--cpu", "x"], "--cpu"), (&["--read", "/"], "--read")]
        {
            assert_eq!(Options::take(&mut args.iter().map(OsString::from)), Err(OsString::from(wrong)), "{args:?}");
        }
        assert_eq!(Options::take(&mut std::iter::empty()), Err(OsString::new()), "no end");
    }

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        let point = |line: &str| mount_point(line.as_bytes());
        let line = "80 79 0:45 /irq /proc/a\\040b\\134c ro,nosuid - proc proc rw";
        assert_eq!(point(line), Some(PathBuf::from("/proc/a b\\c")));
        assert_eq!(point("80 79 0:45 /irq /x\\04 ro"), Some(PathBuf::from("/x\\04")), "no three digits");
        assert_eq!(point(""), None);
    }

    /// The mounts of this test are the machine's: none that is expected is there, and many are that are not.
    #[test]
    fn a_mount_that_is_missing_changed_or_not_asked_for_is_an_error() {
        let check = |expected: &[(&str, Option<Id>)], what: &str| {
            let expected: Vec<_> = expected.iter().map(|(path, id)| (PathBuf::from(path), *id)).collect();
            let error = check_mounts(&expected).unwrap_err();
            assert!(error.contains(what), "{error}");
        };
        let root = Id::of(&fs::metadata("/").unwrap());
        check(&[("/no-mount", None)], "/no-mount was changed");
        check(&[("/", Some(Id { inode: root.inode + 1, ..root }))], "/ was changed");
        check(&[("/", Some(root))], "not asked for");
        assert_eq!(check_mounts(&[]), Ok(()));
    }
}
