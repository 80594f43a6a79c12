//! What a refusal looks like from outside: a process only sees an error number, and prints it. This reads it back, so that
//! the model is told what stood in its way and what to do, and does not try the same again.
//!
//! Invariant: nothing is called refused that the policy grants. A message about a path that the policy grants is the file
//! system's own.
//!
//! Absent: certainty. A program may print anything, or nothing.

use super::files;
use super::policy::{Grant, Limits, View};
use super::{Ended, Exit, Refusal, RefusalKind};
use std::path::{Component, Path, PathBuf};

/// Lines of output that are looked at, from the end.
const LINES_MAX: usize = 40;

/// What programs print for the errors of a refused path, and what it takes not to be refused.
const PATH_ERRORS: [(&str, Grant); 8] = [
    ("Read-only file system", Grant::Write),
    ("Permission denied", Grant::Write),
    ("Operation not permitted", Grant::Write),
    ("No such file or directory", Grant::Read),
    // As Go and Node have them.
    ("read-only file system", Grant::Write),
    ("permission denied", Grant::Write),
    ("operation not permitted", Grant::Write),
    ("no such file or directory", Grant::Read),
];

/// What a sandbox has one of its own of: a name that is missing there is just missing.
const OWN_PLACES: [&str; 4] = ["/dev", "/dev/shm", "/proc", "/tmp"];

/// What programs print when there is no network.
const NETWORK_ERRORS: [&str; 6] = [
    "Could not resolve host",
    "Temporary failure in name resolution",
    "Name or service not known",
    "Network is unreachable",
    "Address family not supported",
    "bad address",
];

/// What they print where no socket can be made, in a line with nothing else. With a network of any kind, some of these can
/// be a server's own answer.
const SOCKET_ERRORS: [&str; 8] = [
    "socket: Permission denied",
    "socket: permission denied",
    "... failed: Permission denied",
    "connect EACCES",
    "Couldn't connect to server",
    "Could not connect to server",
    "urlopen error [Errno 13] Permission denied",
    "PermissionError: [Errno 13] Permission denied",
];

/// Where bash has its sockets: names that are no files.
const SOCKET_NAMES: [&str; 2] = ["/dev/tcp/", "/dev/udp/"];

/// What they print at a limit, and which it is.
const LIMIT_ERRORS: [(&str, &str); 6] = [
    ("File too large", "file_bytes"),
    ("File size limit exceeded", "file_bytes"),
    ("Too many open files", "open_files"),
    ("Cannot allocate memory", "memory_bytes"),
    ("Resource temporarily unavailable", "processes"),
    ("Cannot fork", "processes"),
];

/// Adds the limit that a signal stands for. A shell, and bwrap, report a signal as 128 and its number.
pub(super) fn with_limits(mut ended: Ended, limits: &Limits) -> Ended {
    let signal = match ended.exit {
        Exit::Signal(signal) => signal,
        Exit::Code(code) => code - 128,
        Exit::Deadline | Exit::Cancelled => 0,
    };
    let refusal = match signal {
        libc::SIGXCPU => Some(limit("cpu_seconds", limits.cpu_seconds, "seconds of processor time")),
        libc::SIGXFSZ => Some(limit("file_bytes", limits.file_bytes, "bytes in one file")),
        libc::SIGSYS => Some(Refusal {
            kind: RefusalKind::Limit,
            what: "system call".to_owned(),
            hint: "a system call of another processor mode is not there in the sandbox".to_owned(),
        }),
        _ => None,
    };
    ended.refusals.extend(refusal);
    ended
}

fn limit(name: &str, value: u64, unit: &str) -> Refusal {
    let hint = format!("the sandbox allows {value} {unit}; use less, or ask the user to raise sandbox.limits.{name}");
    Refusal { kind: RefusalKind::Limit, what: format!("{name}: {value}"), hint }
}

/// The refusal that the output of a command tells of, if there is one: the last.
#[must_use]
pub fn refusal_in(view: &View, output: &str) -> Option<Refusal> {
    output.lines().rev().take(LINES_MAX).find_map(|line| of_line(view, line))
}

fn of_line(view: &View, line: &str) -> Option<Refusal> {
    if let Some(network) = view.network_hint()
        && (NETWORK_ERRORS.iter().any(|error| line.contains(error)) || (!view.has_network() && is_about_socket(line)))
    {
        let hint = format!("{network}; do without it, or ask the user to change sandbox.network");
        return Some(Refusal { kind: RefusalKind::Net, what: host_in(line), hint });
    }
    for (error, needed) in PATH_ERRORS {
        if let Some((before, after)) = line.split_once(error)
            && let Some(path) = named_after(after).or_else(|| named(before)).and_then(|name| at(name, view.workdir()))
            && (view.grant(&path) < needed || (needed == Grant::Write && view.is_beside_protected(&path)))
            && (needed == Grant::Write || is_kept_away(view, &path))
        {
            return Some(Refusal {
                kind: RefusalKind::Fs,
                what: path.display().to_string(),
                hint: hint(view, &path, needed),
            });
        }
    }
    let (_, limit) = LIMIT_ERRORS.iter().find(|(error, _)| view.is_confined() && line.contains(error))?;
    let hint = format!("use less, or ask the user to raise sandbox.limits.{limit}");
    Some(Refusal { kind: RefusalKind::Limit, what: (*limit).to_owned(), hint })
}

fn is_about_socket(line: &str) -> bool {
    // Python names the file, if it is about one.
    let is_at_end = |error: &str| line.trim_end().trim_end_matches(['>', '.']).ends_with(error);
    SOCKET_NAMES.iter().any(|name| line.contains(name) && line.contains("Permission denied"))
        || SOCKET_ERRORS
            .iter()
            .any(|error| if error.ends_with("denied") { is_at_end(error) } else { line.contains(error) })
}

/// The host that a message names, with its port if it is told as bash does.
fn host_in(line: &str) -> String {
    // The first word is the program, or in Python the class of the error, which has a dot as well.
    let rest = line.split_once(' ').map_or("", |(_, rest)| rest);
    let mut words = rest.rsplit(['\'', '"', ' ', ':', '<', '>', '(', ')']);
    let of_bash = |word: &str| SOCKET_NAMES.iter().find_map(|name| Some(word.strip_prefix(name)?.replace('/', ":")));
    let host = words.find_map(|word| of_bash(word).or_else(|| is_host(word).then(|| word.to_owned())));
    host.unwrap_or_else(|| "network".to_owned())
}

fn is_host(word: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    word.trim_matches('.').contains('.') && word.bytes().all(plain) && !word.ends_with('.')
}

/// True if `path` has no name inside because of the sandbox: what is there outside, it or the nearest above it, is not shown.
/// So a new file in a directory outside is refused, and a wrong name beside something that is shown is a wrong name.
fn is_kept_away(view: &View, path: &Path) -> bool {
    let there = path.ancestors().find(|above| above.symlink_metadata().is_ok());
    there.is_some_and(|there| !is_shown(view, there))
}

fn is_shown(view: &View, path: &Path) -> bool {
    let holds_granted =
        || view.entries().iter().any(|entry| entry.grant >= Grant::Read && entry.path.starts_with(path));
    OWN_PLACES.iter().any(|place| path == Path::new(place)) || view.grant(path) >= Grant::Read || holds_granted()
}

/// What to do instead: in the words of the file tools, but for what only processes cannot do.
fn hint(view: &View, path: &Path, needed: Grant) -> String {
    let granted = view.grant(path);
    if granted < needed || !view.is_beside_protected(path) {
        // Most programs that are refused something that is there wanted to read it.
        let wanted = if granted == Grant::None && path.symlink_metadata().is_ok() { Grant::Read } else { needed };
        return files::hint(view, path, wanted);
    }
    "right here a shell makes, renames and removes nothing, because something beside it is protected; use write_file for new files, \
     or work in a subdirectory"
        .to_owned()
}

/// The path that a message names behind its error, as Python (`: '/etc/x'`) and Node (`, open '/etc/x'`) do.
fn named_after(after: &str) -> Option<&str> {
    let rest = after.strip_prefix(": ").or_else(|| after.strip_prefix(", "))?;
    let (_, rest) = rest.split_once('\'')?;
    rest.split('\'').next()
}

/// The path that a message names before its error: `cat: 'a b': `, `bash: line 1: /etc/x: `, `touch: cannot touch /x: `.
fn named(before: &str) -> Option<&str> {
    let before = before.trim_end().trim_end_matches(':').trim_end();
    let quotes = [('\'', '\''), ('"', '"'), ('\u{2018}', '\u{2019}'), ('`', '\'')];
    let quoted = quotes.iter().find_map(|(open, close)| {
        let inside = before.strip_suffix(*close)?;
        inside.rfind(*open).and_then(|at| inside.get(at + open.len_utf8()..))
    });
    match quoted {
        Some(text) => Some(text),
        None => before.rsplit(": ").next()?.rsplit(' ').next(),
    }
}

/// `name` from `workdir` on.
fn at(name: &str, workdir: &Path) -> Option<PathBuf> {
    if name.is_empty() {
        return None;
    }
    let mut path = PathBuf::new();
    for part in workdir.join(name).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::super::policy::{Network, Place, Policy};
    use super::*;

    fn view(network: Network) -> View {
        let policy = Policy { network, ..Policy::default() };
        View::new(&policy, Place { workdir: Path::new("/w"), artifacts: Path::new("/a") })
    }

    #[test]
    fn messages_of_programs_are_read_back() {
        let check = |line: &str, expected: Option<(RefusalKind, &str)>| {
            let found = refusal_in(&view(Network::None), line);
            assert_eq!(found.as_ref().map(|found| (found.kind, found.what.as_str())), expected, "{line}");
        };
        let (fs, net, limit) = (RefusalKind::Fs, RefusalKind::Net, RefusalKind::Limit);
        check("bash: line 1: /etc/x: Read-only file system", Some((fs, "/etc/x")));
        check("touch: cannot touch '/usr/a b': Read-only file system", Some((fs, "/usr/a b")));
        check("touch: cannot touch \u{2018}/usr/a\u{2019}: Permission denied", Some((fs, "/usr/a")));
        check("sh: 1: cannot create ../x: Permission denied", Some((fs, "/x")));
        check(
            "sh: 1: cannot create .git/hooks/pre-commit: Read-only file system",
            Some((fs, "/w/.git/hooks/pre-commit")),
        );
        check("cat: /etc/shadow: No such file or directory", Some((fs, "/etc/shadow")));
        check("cat: /etc/no-such-file-anywhere: No such file or directory", None);
        check("cat: /tmp/no-such-file-anywhere: No such file or directory", None);
        check("bash: line 1: /no-such-directory/x: No such file or directory", None);
        check("cat: secret: Permission denied", None);
        check("cat: .duragent/x: Permission denied", Some((fs, "/w/.duragent/x")));
        check("curl: (6) Could not resolve host: example.com", Some((net, "example.com")));
        check("ping: connect: Network is unreachable", Some((net, "network")));
        check("bash: line 1: /dev/tcp/127.0.0.1/80: Permission denied", Some((net, "127.0.0.1:80")));
        check("bash: line 1: example.com: Temporary failure in name resolution", Some((net, "example.com")));
        check(
            "curl: (7) Failed to connect to 10.0.0.1 port 80 after 0 ms: Couldn't connect to server",
            Some((net, "10.0.0.1")),
        );
        check("Connecting to 127.0.0.1:80... failed: Permission denied.", Some((net, "127.0.0.1")));
        check("dial tcp 10.0.0.1:80: socket: permission denied", Some((net, "10.0.0.1")));
        check("urllib.error.URLError: <urlopen error [Errno 13] Permission denied>", Some((net, "network")));
        check("socket.gaierror: [Errno -3] Temporary failure in name resolution", Some((net, "network")));
        check("PermissionError: [Errno 13] Permission denied", Some((net, "network")));
        check("PermissionError: [Errno 13] Permission denied: '/etc/shadow'", Some((fs, "/etc/shadow")));
        check("FileNotFoundError: [Errno 2] No such file or directory: '/etc/shadow'", Some((fs, "/etc/shadow")));
        check("FileNotFoundError: [Errno 2] No such file or directory: 'missing'", None);
        check("Error: EACCES: permission denied, open '/etc/shadow'", Some((fs, "/etc/shadow")));
        check("panic: open /etc/shadow: permission denied", Some((fs, "/etc/shadow")));
        check("bash: fork: retry: Resource temporarily unavailable", Some((limit, "processes")));
        check("sh: 1: Cannot fork", Some((limit, "processes")));
        check("all is well", None);
        check("", None);
        check("first\ncat: /etc/shadow: No such file or directory\nlast", Some((fs, "/etc/shadow")));
    }

    /// A directory outside has no name inside, so making a file in it fails as a wrong name does.
    #[test]
    fn a_new_file_in_a_directory_that_is_not_shown_is_refused() {
        let outside = std::env::temp_dir().join(format!("duragent-explain-{}", std::process::id()));
        std::fs::create_dir_all(&outside).unwrap();
        let line = |name: &str| format!("bash: line 1: {}: No such file or directory", outside.join(name).display());
        let found = refusal_in(&view(Network::None), &line("new"));
        let deep = refusal_in(&view(Network::None), &line("deep/new"));
        let policy = Policy { read: vec![outside.clone()], ..Policy::default() };
        let place = Place { workdir: Path::new("/w"), artifacts: Path::new("/a") };
        let granted = refusal_in(&View::new(&policy, place), &line("new"));
        std::fs::remove_dir_all(&outside).unwrap();
        assert_eq!(found.map(|found| found.what), Some(outside.join("new").display().to_string()));
        assert!(deep.is_some());
        assert_eq!(granted, None, "a wrong name is a wrong name where one may look");
    }

    /// What Landlock cannot grant is told with what can be done instead.
    #[test]
    fn new_files_beside_protected_ones_are_told_apart() {
        let folder = std::env::temp_dir().join(format!("duragent-explain-{}", std::process::id()));
        std::fs::create_dir_all(folder.join(".duragent")).unwrap();
        std::fs::create_dir_all(folder.join("sub")).unwrap();
        let place = Place { workdir: &folder, artifacts: Path::new("/a") };
        let line = |name: &str| format!("bash: line 1: {name}: Permission denied");
        let stiff = View::new(&Policy::default(), place).without_new_files();
        let found = refusal_in(&stiff, &line("new.txt")).unwrap();
        assert_eq!((found.kind, found.what), (RefusalKind::Fs, folder.join("new.txt").display().to_string()));
        assert!(found.hint.contains("write_file"), "{}", found.hint);
        assert_eq!(refusal_in(&stiff, &line("sub/new.txt")), None, "the file system's own");
        assert_eq!(refusal_in(&View::new(&Policy::default(), place), &line("new.txt")), None, "bubblewrap mounts");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_is_granted_is_never_called_refused() {
        let everything = View::everything(Place { workdir: Path::new("/w"), artifacts: Path::new("/a") });
        for line in [
            "touch: cannot touch '/etc/x': Read-only file system",
            "curl: (6) Could not resolve host: example.com",
            "bash: fork: retry: Resource temporarily unavailable",
        ] {
            assert_eq!(refusal_in(&everything, line), None, "{line}");
        }
        for line in ["curl: (7) Failed to connect to 127.0.0.1 port 1: Couldn't connect to server", "connect EACCES"] {
            assert_eq!(refusal_in(&view(Network::Loopback), line), None, "a server may say no: {line}");
            assert!(refusal_in(&view(Network::None), line).is_some(), "the control: {line}");
        }
        assert_eq!(refusal_in(&view(Network::All), "curl: (6) Could not resolve host: example.com"), None);
    }

    #[test]
    fn signals_of_limits_are_named() {
        let limits = Limits::default();
        let check = |exit, expected: &[&str]| {
            let ended = with_limits(Ended { exit, refusals: Vec::new() }, &limits);
            assert_eq!(ended.refusals.iter().map(|r| r.what.as_str()).collect::<Vec<_>>(), expected, "{exit:?}");
        };
        check(Exit::Signal(libc::SIGXCPU), &["cpu_seconds: 600"]);
        check(Exit::Code(128 + libc::SIGXFSZ), &["file_bytes: 1073741824"]);
        check(Exit::Signal(libc::SIGSYS), &["system call"]);
        check(Exit::Code(1), &[]);
        check(Exit::Deadline, &[]);
    }
}
