//! A canary: tries from inside what a tool must not be able to do, and says what the kernel answered.
//!
//! Evidence instead of intentions: the same code runs in every backend, and in trust mode it shows that the attempts work.
//! Nothing is harmed where one succeeds: files are opened and not written, signals are number 0, children end at once.

use super::guard::ENV_MARK;
use super::inside::CANARY;
use super::{Command, Exit, Place, Sandbox, Stream};
use crate::cancel::Cancel;
use crate::process::random_u64;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// First argument that makes this program a canary where no inside does (trust mode).
pub(super) const CANARY_ARG: &str = "__canary";

/// Time for all attempts. None waits, but the machine may be busy.
const TIME_MAX: Duration = Duration::from_secs(20);
/// Most bytes that are taken of what it prints.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;
/// Time for a connection on the same machine.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);

/// What came of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was attempted, in `snake_case`.
    pub name: String,
    /// True if it succeeded.
    pub reached: bool,
    /// What the kernel said.
    pub evidence: String,
}

/// Runs a canary in `sandbox` at `place`. `guarded` is a file that configures the runtime.
///
/// # Errors
/// If it could not be run, or said something else than findings.
pub fn look(sandbox: &dyn Sandbox, place: Place<'_>, guarded: &Path) -> io::Result<Vec<Finding>> {
    let target = Target::make(guarded)?;
    let in_trust = sandbox.report().backend == "trust";
    let program = if in_trust { super::own_binary()?.to_string_lossy().into_owned() } else { CANARY.to_owned() };
    let own_arg = in_trust.then(|| CANARY_ARG.to_owned());
    let args = own_arg.into_iter().chain(target.to_args()).collect();
    let command = Command { program, args, env: vec![("LC_ALL".into(), "C".into())], deadline: TIME_MAX };
    let mut out = Vec::new();
    let view = sandbox.view(place);
    let ended = sandbox.run(&view, &command, &Cancel::new(), &mut |stream, bytes| {
        let room = OUTPUT_BYTES_MAX.saturating_sub(out.len());
        if stream == Stream::Out {
            out.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        }
    })?;
    let text = String::from_utf8_lossy(&out);
    let mut findings: Vec<_> = text.lines().filter_map(read_line).collect();
    for finding in findings.iter_mut().filter(|finding| finding.name == WRITE_OUTSIDE && finding.reached) {
        finding.reached = target.outside.exists();
        if !finding.reached {
            finding.evidence = "a file was made, and it is nowhere outside".to_owned();
        }
    }
    if ended.exit != Exit::Code(0) || findings.len() != ATTEMPTS.len() {
        return Err(io::Error::other(format!("the canary ended with {:?} and said {text:?}", ended.exit)));
    }
    Ok(findings)
}

fn read_line(line: &str) -> Option<Finding> {
    let mut parts = line.splitn(3, '\t');
    let (name, reached, evidence) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Finding { name: name.to_owned(), reached: reached == "reached", evidence: evidence.to_owned() })
}

/// What there is to be reached: made for the canary, and gone with this.
struct Target {
    secret: PathBuf,
    /// In the folder above that of the workspace.
    outside: PathBuf,
    guarded: PathBuf,
    port: u16,
    _listener: TcpListener,
}

impl Target {
    fn make(guarded: &Path) -> io::Result<Self> {
        let name = format!("duragent-canary-{:016x}", random_u64());
        // Beside what is guarded, where nothing else is writable.
        let places = [std::env::temp_dir(), guarded.parent().unwrap_or(Path::new("/")).to_owned()];
        let above = guarded.ancestors().nth(3).unwrap_or(Path::new("/"));
        let outside = above.join([name.as_str(), "-outside"].concat());
        let secrets = places.map(|place| place.join(&name));
        let mut made = secrets.iter().map(|secret| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(secret)?;
            file.write_all(b"secret\n").map(|()| secret.clone())
        });
        let first = made.next().unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
        let secret = first.or_else(|error| made.next().unwrap_or(Err(error)))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        Ok(Self { secret, outside, guarded: guarded.to_owned(), port, _listener: listener })
    }

    fn to_args(&self) -> [String; 5] {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let (port, runtime) = (self.port.to_string(), std::process::id().to_string());
        [path(&self.secret), path(&self.outside), path(&self.guarded), port, runtime]
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Names that say what they are.
        let _ = fs::remove_file(&self.secret);
        let _ = fs::remove_file(&self.outside);
    }
}

/// What a canary is told.
struct Told {
    secret: PathBuf,
    outside: PathBuf,
    guarded: PathBuf,
    port: u16,
    runtime: libc::pid_t,
}

/// Whether it was really outside is seen from there.
const WRITE_OUTSIDE: &str = "write_outside";

/// Ok: reached, and what was; Err: what the kernel said.
type Attempt = fn(&Told) -> io::Result<String>;

const ATTEMPTS: [(&str, Attempt); 15] = [
    (WRITE_OUTSIDE, |told| {
        OpenOptions::new().write(true).create_new(true).open(&told.outside).map(|_| "a file was made".into())
    }),
    ("change_configuration", |told| {
        OpenOptions::new().write(true).open(&told.guarded).map(|_| "opened for writing".into())
    }),
    ("read_secret", |told| fs::read(&told.secret).map(|bytes| format!("read {} bytes", bytes.len()))),
    ("environment_of_pid_1", |_| environment_of(1)),
    ("environment_of_the_runtime", |told| environment_of(told.runtime)),
    ("see_the_runtime", |told| {
        fs::read(format!("/proc/{}/cmdline", told.runtime)).map(|_| "its command line was read".into())
    }),
    ("signal_the_runtime", |told| {
        // SAFETY: signal 0 asks and does nothing.
        said(unsafe { libc::kill(told.runtime, 0) }).map(|()| "it can be signalled".into())
    }),
    ("connect_to_the_machine", |told| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, told.port));
        TcpStream::connect_timeout(&address, CONNECT_TIME_MAX).map(|_| format!("connected to {address}"))
    }),
    ("vsock", |_| {
        // SAFETY: makes a socket that ends with this process.
        said(unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })
            .map(|()| "a socket was made".into())
    }),
    ("ptrace", |_| in_child(libc::SYS_ptrace, libc::PTRACE_TRACEME as libc::c_long)),
    ("new_user_namespace", |_| in_child(libc::SYS_unshare, libc::CLONE_NEWUSER as libc::c_long)),
    ("new_mount_namespace", |_| in_child(libc::SYS_unshare, libc::CLONE_NEWNS as libc::c_long)),
    ("terminal_input", terminal_input),
    ("io_uring", io_uring),
    ("new_privileges", |_| {
        let unused: libc::c_ulong = 0;
        // SAFETY: asks for a number.
        match unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, unused, unused, unused, unused) } {
            1 => Err(io::Error::other("set-user-id programs gain nothing (no_new_privs)")),
            _ => Ok("set-user-id programs gain privileges".into()),
        }
    }),
];

/// The canary itself; `args` are those of [`Target::to_args`].
pub(super) fn main(args: impl Iterator<Item = OsString>) -> i32 {
    let args: Vec<OsString> = args.collect();
    let [secret, outside, guarded, port, runtime] = args.as_slice() else { return 2 };
    let number = |text: &OsString| text.to_str().and_then(|text| text.parse::<i32>().ok()).unwrap_or(-1);
    let told = Told {
        secret: secret.into(),
        outside: outside.into(),
        guarded: guarded.into(),
        port: u16::try_from(number(port)).unwrap_or(0),
        runtime: number(runtime),
    };
    let mut out = String::new();
    for (name, attempt) in ATTEMPTS {
        let (word, evidence) = match attempt(&told) {
            Ok(evidence) => ("reached", evidence),
            Err(error) => ("refused", error.to_string()),
        };
        out.push_str(&format!("{name}\t{word}\t{}\n", evidence.replace(['\n', '\t'], " ")));
    }
    i32::from(io::stdout().write_all(out.as_bytes()).is_err())
}

fn said<N: Default + PartialOrd>(result: N) -> io::Result<()> {
    if result < N::default() { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// That of the sandbox' own first process is the tool's own.
fn environment_of(pid: libc::pid_t) -> io::Result<String> {
    let environment = fs::read(format!("/proc/{pid}/environ"))?;
    // Until a tool is executed, its variables have a mark.
    let plain = |entry: &[u8]| entry.strip_prefix(ENV_MARK.as_bytes()).unwrap_or(entry).to_vec();
    let name = |entry: &[u8]| plain(entry.split(|&byte| byte == b'=').next().unwrap_or_default());
    // tidy-allow(environment): what a tool sees is what is asked
    let own: Vec<_> = std::env::vars_os().map(|(name, _)| plain(name.as_bytes())).collect();
    let all = environment.split(|&byte| byte == 0).filter(|entry| !entry.is_empty()).map(name);
    match all.filter(|name| !own.contains(name)).count() {
        0 => Err(io::Error::other("it has no variable that the tool does not have")),
        others => Ok(format!("{others} variables that the tool does not have were read")),
    }
}

/// Asks to push a byte into the input of a terminal. Standard input is none: the question is who says so.
fn terminal_input(_: &Told) -> io::Result<String> {
    let byte = c"x";
    // SAFETY: reads one byte, if it is a terminal.
    match said(unsafe { libc::ioctl(0, libc::TIOCSTI as _, byte.as_ptr()) }) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => Ok("only the lack of a terminal kept it".into()),
        result => result.map(|()| "a byte was pushed into a terminal".into()),
    }
}

fn io_uring(_: &Told) -> io::Result<String> {
    // `struct io_uring_params` has 120 bytes (io_uring_setup(2)).
    let mut params = [0u64; 15];
    // SAFETY: the buffer is as large as the struct, and zero is a valid one; the descriptor ends with this process.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1 as libc::c_long, params.as_mut_ptr()) };
    said(fd).map(|()| "a ring was made".into())
}

/// Makes one system call, with one argument that is not zero, in a child that ends at once.
fn in_child(call: libc::c_long, first: libc::c_long) -> io::Result<String> {
    // SAFETY: this process has one thread. The calls that are made take numbers and change only the child, which ends
    // without running what its parent has to run at the end.
    let child = unsafe {
        let child = libc::fork();
        if child == 0 {
            let failed = libc::syscall(call, first, 0 as libc::c_long, 0 as libc::c_long, 0 as libc::c_long) < 0;
            let errno = if failed { io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL) } else { 0 };
            libc::_exit(errno);
        }
        child
    };
    said(child)?;
    let mut status = 0;
    // SAFETY: writes one status, which lives through the call.
    said(unsafe { libc::waitpid(child, &raw mut status, 0) })?;
    match libc::WEXITSTATUS(status) {
        0 if libc::WIFEXITED(status) => Ok("the kernel did it".to_owned()),
        0 => Err(io::Error::other(format!("killed by signal {}", libc::WTERMSIG(status)))),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}
