//! What tools may reach: plain data from the configuration, the same for every backend, and the one function that says
//! what it means for a path.
//!
//! Invariant: a backend and the file tools ask the same [`View`], so a shell and `write_file` are told the same.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What the tools of an agent may reach beyond the system's own programs and libraries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Files and directories that may be read, with all below. Absolute.
    pub read: Vec<PathBuf>,
    /// Files and directories that may be changed as well. Absolute. The working directory always may.
    pub write: Vec<PathBuf>,
    /// What configures the runtime, or is its secret: neither read nor changed, whatever stands above it. Absolute.
    pub hidden: Vec<PathBuf>,
    /// What may be read where something above it may, and is never changed. Absolute.
    pub read_only: Vec<PathBuf>,
    /// What may be reached over the network.
    pub network: Network,
    /// What a call may use.
    pub limits: Limits,
}

/// What may be reached over the network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Network {
    /// Nothing: no internet sockets at all.
    #[default]
    None,
    /// The processes of one call reach each other on 127.0.0.1; this is a loopback of their own, not the machine's.
    Loopback,
    /// Everything that the machine reaches, its own loopback included.
    All,
    /// These, through a proxy that asks for each connection.
    Hosts(Vec<Endpoint>),
}

/// A place on the network that may be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// A name in lower case, `*.` and a name for all names below it, or an address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// What one call may use. Zero of anything is no limit of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Seconds of processor time of one process (`RLIMIT_CPU`).
    pub cpu_seconds: u64,
    /// Bytes of address space of one process (`RLIMIT_AS`).
    pub memory_bytes: u64,
    /// Processes and threads at a time, all together (`RLIMIT_NPROC`; a pids control group if the runtime is root).
    pub processes: u64,
    /// Bytes of one file that is written (`RLIMIT_FSIZE`).
    pub file_bytes: u64,
    /// Open descriptors of one process (`RLIMIT_NOFILE`).
    pub open_files: u64,
    /// Bytes in `/tmp`, and as many in `/dev/shm`: this is memory (bubblewrap).
    pub tmp_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_seconds: 600,
            // Runtimes of languages reserve far more than they use.
            memory_bytes: if cfg!(target_pointer_width = "64") { 8 << 30 } else { 2 << 30 },
            processes: 256,
            file_bytes: 1 << 30,
            open_files: 1024,
            tmp_bytes: 64 << 20,
        }
    }
}

/// Where one session's tools are at home. Both absolute, without symbolic links.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The working directory: the default of what may be changed.
    pub workdir: &'a Path,
    /// Large outputs of this session: may be read, though the workspace around it may not.
    pub artifacts: &'a Path,
}

/// What may be done to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grant {
    /// Nothing.
    None,
    /// Reading.
    Read,
    /// Reading and changing.
    Write,
}

/// Programs, libraries and the little of `/etc` that they ask for. What is missing is left out. Each costs a mount, so what few
/// programs want is for `read` in the configuration.
pub const SYSTEM_READ: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/etc/alternatives",
    "/etc/gitconfig",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    // Not to have it is fine, not to be allowed to read it ends every program with OpenSSL (Landlock).
    "/etc/pki/tls",
    "/etc/ssl/openssl.cnf",
];

/// Beside these if there is a network beyond a loopback: how names are looked up, and who is trusted.
pub const NETWORK_READ: &[&str] = &[
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/certs",
];

/// Below each directory that may be changed: what a shell, git or an editor runs by itself later, outside. Read-only.
pub const RUN_BY_OTHERS: &[&str] = &[
    ".bash_aliases",
    ".bash_login",
    ".bash_logout",
    ".bash_profile",
    ".bashrc",
    ".config/fish",
    ".config/systemd",
    ".config/autostart",
    ".envrc",
    ".git/commondir",
    ".git/config",
    ".git/config.worktree",
    ".git/hooks",
    ".gitconfig",
    ".idea",
    ".inputrc",
    ".kshrc",
    ".mcp.json",
    ".pam_environment",
    ".profile",
    ".ssh",
    ".vscode",
    ".xprofile",
    ".xsessionrc",
    ".zlogin",
    ".zlogout",
    ".zprofile",
    ".zshenv",
    ".zshrc",
];

/// A workspace of Duragent: hidden in every directory that may be changed, whoever it belongs to.
pub const WORKSPACE_NAME: &str = ".duragent";

/// What [`View::network_hint`] says for [`Network::None`].
const NO_NETWORK: &str = "the sandbox has no network";

/// One rule about a path and all below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Absolute.
    pub path: PathBuf,
    /// What is granted.
    pub grant: Grant,
    /// True: takes away what stands above grants, down to `grant`. False: grants, whatever stands above.
    pub limits: bool,
}

/// A policy at a place, laid out by path.
#[derive(Debug, Clone)]
pub struct View {
    workdir: PathBuf,
    network_hint: Option<&'static str>,
    /// [`View::without_new_files`].
    is_stiff: bool,
    /// Sorted: what holds comes before what it holds, and what grants before what limits. `None`: all may be changed.
    entries: Option<Vec<Entry>>,
}

impl View {
    /// No policy at all: trust mode.
    #[must_use]
    pub fn everything(place: Place<'_>) -> Self {
        Self { workdir: place.workdir.to_owned(), network_hint: None, is_stiff: false, entries: None }
    }

    /// Reading `root` with all below it but what is `hidden`, and nothing else, not even the system. Relative paths start at
    /// `root`. All absolute, without symbolic links.
    #[must_use]
    pub fn only(root: &Path, hidden: &[PathBuf]) -> Self {
        let rule = |path: &Path, grant, limits| Entry { path: path.to_owned(), grant, limits };
        let hidden = hidden.iter().filter(|path| path.starts_with(root)).map(|path| rule(path, Grant::None, true));
        let entries = std::iter::once(rule(root, Grant::Read, false)).chain(hidden).collect();
        Self { workdir: root.to_owned(), network_hint: Some(NO_NETWORK), is_stiff: false, entries: Some(entries) }
    }

    /// `policy` at `place`.
    #[must_use]
    pub fn new(policy: &Policy, place: Place<'_>) -> Self {
        let mut entries: Vec<Entry> = Vec::new();
        // Of two grants for one path the larger comes last and counts; of two limits both do.
        let mut add = |path: PathBuf, grant, limits| {
            let before = |known: &Entry| (&known.path, known.limits, known.grant) < (&path, limits, grant);
            let at = entries.partition_point(before);
            entries.insert(at, Entry { path, grant, limits });
        };
        let lookup = if matches!(policy.network, Network::All | Network::Hosts(_)) { NETWORK_READ } else { &[] };
        SYSTEM_READ.iter().chain(lookup).for_each(|path| add(path.into(), Grant::Read, false));
        policy.read.iter().for_each(|path| add(path.clone(), Grant::Read, false));
        add(place.artifacts.to_owned(), Grant::Read, false);
        for root in policy.write.iter().map(PathBuf::as_path).chain([place.workdir]) {
            add(root.to_owned(), Grant::Write, false);
            add(root.join(WORKSPACE_NAME), Grant::None, true);
            RUN_BY_OTHERS.iter().for_each(|name| add(root.join(name), Grant::Read, true));
        }
        policy.read_only.iter().for_each(|path| add(path.clone(), Grant::Read, true));
        policy.hidden.iter().for_each(|path| add(path.clone(), Grant::None, true));
        let network_hint = match policy.network {
            Network::All => None,
            Network::None => Some(NO_NETWORK),
            Network::Loopback => Some("the sandbox has a loopback of its own and no other network"),
            Network::Hosts(_) => Some("the sandbox reaches listed hosts, and those only through HTTP_PROXY"),
        };
        Self { workdir: place.workdir.to_owned(), network_hint, is_stiff: false, entries: Some(entries) }
    }

    /// Where relative paths start.
    #[must_use]
    pub fn workdir(&self) -> &Path {
        &self.workdir
    }

    /// What there is of a network, if it is not all.
    #[must_use]
    pub fn network_hint(&self) -> Option<&'static str> {
        self.network_hint
    }

    /// False if no internet socket can be made at all.
    #[must_use]
    pub fn has_network(&self) -> bool {
        self.network_hint != Some(NO_NETWORK)
    }

    /// Notes that processes cannot make, rename or remove anything right in a directory that leads to something protected: what
    /// is granted there is granted entry by entry. File tools can.
    #[must_use]
    pub fn without_new_files(self) -> Self {
        Self { is_stiff: true, ..self }
    }

    /// True if `path` is, or would be, right in such a directory.
    #[must_use]
    pub fn is_beside_protected(&self, path: &Path) -> bool {
        let above = path.parent().unwrap_or(path);
        let leads =
            |entry: &Entry| entry.limits && entry.path.starts_with(above) && entry.path.symlink_metadata().is_ok();
        self.is_stiff && self.grant(path) == Grant::Write && self.entries().iter().any(leads)
    }

    /// False if nothing is enforced.
    #[must_use]
    pub fn is_confined(&self) -> bool {
        self.entries.is_some()
    }

    /// The rules in the order in which they apply; none if everything is granted.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        self.entries.as_deref().unwrap_or_default()
    }

    /// What may be done to `path`, which is absolute and has neither symbolic links nor `..` in it.
    #[must_use]
    pub fn grant(&self, path: &Path) -> Grant {
        let Some(entries) = &self.entries else { return Grant::Write };
        let mut granted = Grant::None;
        let mut root = Path::new("");
        for entry in entries.iter().filter(|entry| path.starts_with(&entry.path)) {
            if entry.limits {
                granted = granted.min(entry.grant);
            } else {
                (granted, root) = (granted.max(entry.grant), &entry.path);
            }
        }
        // A workspace further down belongs to somebody too.
        let below = path.strip_prefix(root).unwrap_or(path);
        if below.iter().any(|part| part == OsStr::from_bytes(WORKSPACE_NAME.as_bytes())) {
            return Grant::None;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(change: impl FnOnce(&mut Policy)) -> View {
        let mut policy = Policy { hidden: vec!["/w/.duragent".into()], ..Policy::default() };
        change(&mut policy);
        let place = Place { workdir: Path::new("/w"), artifacts: Path::new("/w/.duragent/sessions/s/artifacts") };
        View::new(&policy, place)
    }

    fn check(view: &View, expected: &[(&str, Grant)]) {
        for (path, grant) in expected {
            assert_eq!(view.grant(Path::new(path)), *grant, "{path}");
        }
    }

    #[test]
    fn the_working_directory_may_be_changed_and_what_runs_outside_may_not() {
        check(
            &view(|_| {}),
            &[
                ("/w", Grant::Write),
                ("/w/a/b", Grant::Write),
                ("/w/.git/index", Grant::Write),
                ("/w/.git/hooks", Grant::Read),
                ("/w/.git/hooks/pre-commit", Grant::Read),
                ("/w/.bashrc", Grant::Read),
                ("/w/a/.bashrc", Grant::Write),
                ("/w/.duragent", Grant::None),
                ("/w/.duragent/policy.yaml", Grant::None),
                ("/w/.duragent/sessions/t/artifacts/c.txt", Grant::None),
                ("/w/.duragent/sessions/s/artifacts/c.txt", Grant::Read),
                ("/w/deep/.duragent/duragent.yaml", Grant::None),
                ("/wx", Grant::None),
                ("/", Grant::None),
                ("/etc/shadow", Grant::None),
                ("/etc/passwd", Grant::Read),
                ("/usr/bin/true", Grant::Read),
                ("/etc/resolv.conf", Grant::None),
            ],
        );
    }

    #[test]
    fn lists_add_and_limits_take_away_wherever_they_stand() {
        let view = view(|policy| {
            policy.read = vec!["/data".into(), "/w".into()];
            policy.write = vec!["/data/out".into(), "/data/out/.ssh".into()];
            policy.read_only = vec!["/w/prompt.md".into(), "/unseen/x".into()];
            policy.hidden.push("/w/token".into());
            policy.hidden.push("/usr/share/secret".into());
            policy.network = Network::All;
        });
        check(
            &view,
            &[
                ("/data/in", Grant::Read),
                ("/data/out/x", Grant::Write),
                ("/data/out/.ssh/id", Grant::Read),
                ("/data/out/.duragent/x", Grant::None),
                ("/w/x", Grant::Write),
                ("/w/prompt.md", Grant::Read),
                ("/unseen/x", Grant::None),
                ("/w/token", Grant::None),
                ("/usr/share/secret/x", Grant::None),
                ("/etc/resolv.conf", Grant::Read),
            ],
        );
    }

    #[test]
    fn a_service_works_inside_its_workspace() {
        let policy = Policy { hidden: vec!["/var/lib/duragent".into()], ..Policy::default() };
        let (workdir, artifacts) = ("/var/lib/duragent/sessions/s/work", "/var/lib/duragent/sessions/s/artifacts");
        let view = View::new(&policy, Place { workdir: Path::new(workdir), artifacts: Path::new(artifacts) });
        check(
            &view,
            &[
                ("/var/lib/duragent/sessions/s/work/x", Grant::Write),
                ("/var/lib/duragent/sessions/s/artifacts/x", Grant::Read),
                ("/var/lib/duragent/sessions/s/events.jsonl", Grant::None),
                ("/var/lib/duragent/duragent.yaml", Grant::None),
            ],
        );
    }

    #[test]
    fn one_directory_and_nothing_else() {
        let view = View::only(Path::new("/w/.duragent/skills/a"), &["/w".into(), "/w/.duragent/skills/a/key".into()]);
        check(
            &view,
            &[
                ("/w/.duragent/skills/a", Grant::Read),
                ("/w/.duragent/skills/a/b/c", Grant::Read),
                ("/w/.duragent/skills/a/key", Grant::None),
                ("/w/.duragent/skills/a/.duragent/x", Grant::None),
                ("/w/.duragent/skills", Grant::None),
                ("/w/.duragent/skills/ab", Grant::None),
                ("/usr/bin/true", Grant::None),
                ("/etc/passwd", Grant::None),
            ],
        );
    }

    #[test]
    fn trust_grants_everything() {
        let place = Place { workdir: Path::new("/w"), artifacts: Path::new("/a") };
        check(&View::everything(place), &[("/etc/shadow", Grant::Write), ("/w/.duragent/x", Grant::Write)]);
    }
}
