//! The place that an attempt is made in: a project with a workspace in it, things outside that are none of a tool's
//! business, a process to be harmed, sockets to be reached. Each attempt has a house of its own.
//!
//! Layout below the folder of the house:
//!
//! ```text
//! project/                  the working directory
//!   .duragent/              the workspace: configuration, agents, sessions
//!   .git/ .bashrc notes.txt
//! service/                  a workspace as a service has it; working directory sessions/mine/work
//! outside/ home/            not in the policy
//! ```

use crate::inside;
use duragent_platform::sandbox::policy::RUN_BY_OTHERS;
use duragent_platform::sandbox::{Place, Policy};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// In the environment of the runtime and of the victim, and never in a tool's.
pub const SECRET_NAME: &str = "DURAGENT_ESCAPE_SECRET";

/// What a secret file holds.
pub const SECRET: &str = "the secret of the house\n";

/// Directories of the machine in which attempts make a file with the house's unique name.
pub const HOST_DIRECTORIES: [&str; 7] = ["/", "/etc", "/usr", "/run", "/var/tmp", "/dev/shm", "/tmp"];

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Where the working directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A project that holds its workspace: `duragent run` in a checkout.
    Project,
    /// A workspace that holds the working directory: a service.
    Service,
}

/// Houses that are as they were built. Most attempts change nothing, and building is what costs most.
pub struct Houses {
    base: PathBuf,
    free: Mutex<Vec<House>>,
}

impl Houses {
    /// To be built below `base`, with the programs in its `bin`.
    pub fn new(base: &Path) -> Self {
        Self { base: base.to_owned(), free: Mutex::default() }
    }

    pub fn take(&self, layout: Layout) -> House {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        match free.iter().position(|house| house.layout == layout) {
            Some(index) => free.swap_remove(index),
            None => {
                drop(free);
                House::build(&self.base, layout)
            }
        }
    }

    /// For the next one, if there is nothing to be seen of the last.
    pub fn give_back(&self, mut house: House) {
        if house.all() == house.pristine && house.harm().is_empty() {
            self.free.lock().unwrap_or_else(PoisonError::into_inner).push(house);
        }
    }
}

/// One house.
pub struct House {
    pub root: PathBuf,
    pub layout: Layout,
    /// A file name that nobody else uses.
    pub mark: String,
    bin: PathBuf,
    pristine: Snapshot,
    victim: Victim,
    tcp: TcpListener,
    udp: UdpSocket,
    abstract_unix: UnixListener,
    unix: UnixListener,
}

impl House {
    fn build(base: &Path, layout: Layout) -> Self {
        let mark = mark(std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = base.join(&mark);
        for (path, mode, contents) in FILES {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, contents).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        for path in ["outside/open", "project/src", "service/sessions/mine/work"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        let address = SocketAddr::from_abstract_name(&mark).unwrap();
        let mut house = Self {
            layout,
            bin: base.join("bin"),
            victim: Victim::start(),
            tcp: TcpListener::bind("127.0.0.1:0").unwrap(),
            udp: UdpSocket::bind("127.0.0.1:0").unwrap(),
            abstract_unix: UnixListener::bind_addr(&address).unwrap(),
            unix: UnixListener::bind(root.join("outside/unix.sock")).unwrap(),
            root,
            mark,
            pristine: Snapshot::default(),
        };
        house.tcp.set_nonblocking(true).unwrap();
        house.udp.set_nonblocking(true).unwrap();
        house.abstract_unix.set_nonblocking(true).unwrap();
        house.unix.set_nonblocking(true).unwrap();
        house.pristine = house.all();
        house
    }

    /// Where the first house of the process `pid` is.
    pub fn first_of(base: &Path, pid: u32) -> PathBuf {
        base.join(mark(pid, 0))
    }

    pub fn workdir(&self) -> PathBuf {
        match self.layout {
            Layout::Project => self.root.join("project"),
            Layout::Service => self.root.join("service/sessions/mine/work"),
        }
    }

    fn workspace(&self) -> PathBuf {
        match self.layout {
            Layout::Project => self.root.join("project/.duragent"),
            Layout::Service => self.root.join("service"),
        }
    }

    pub fn artifacts(&self) -> PathBuf {
        self.workspace().join("sessions/mine/artifacts")
    }

    /// Calls `use_place` with where the tools are at home.
    pub fn with_place<T>(&self, use_place: impl FnOnce(Place<'_>) -> T) -> T {
        let artifacts = canonical(self.artifacts());
        use_place(Place { workdir: &self.workdir(), artifacts: &artifacts })
    }

    /// The policy as a runtime would have it: the workspace hidden, and the program of the attempts readable.
    pub fn policy(&self) -> Policy {
        Policy {
            read: vec![self.bin.clone()],
            hidden: vec![canonical(self.workspace()), self.root.join("outside/token")],
            ..Policy::default()
        }
    }

    pub fn tcp_port(&self) -> u16 {
        self.tcp.local_addr().unwrap().port()
    }

    /// The environment by which an attempt finds its way: nothing in it is secret.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut environment = vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())];
        let mut add = |name: &str, value: String| environment.push((format!("{}{name}", inside::PREFIX), value));
        add("ROOT", self.root.display().to_string());
        add("BIN", self.bin.display().to_string());
        add("MARK", self.mark.clone());
        add("RUNTIME", std::process::id().to_string());
        add("VICTIM", self.victim.child.id().to_string());
        add("VICTIM_AT", self.victim.at.to_string());
        add("VICTIM_SHARED", self.victim.shared.to_string());
        add("TCP", self.tcp_port().to_string());
        add("UDP", self.udp.local_addr().unwrap().port().to_string());
        environment
    }

    /// What must never change: all of the house but the free part of the project.
    pub fn snapshot(&self) -> Snapshot {
        let mut found = self.all();
        found.0.retain(|path, _| is_protected(path));
        found
    }

    fn all(&self) -> Snapshot {
        let mut found = BTreeMap::new();
        record(&self.root, &self.root, &mut found);
        Snapshot(found)
    }

    /// What an attempt did to things that are none of its business. Cleans up what it left on the machine.
    pub fn damage(&mut self, before: &Snapshot) -> Vec<String> {
        let mut damage = before.differences(&self.snapshot());
        damage.extend(self.harm());
        damage
    }

    /// What was done to the machine, the victim and the sockets.
    fn harm(&mut self) -> Vec<String> {
        let mut damage = Vec::new();
        for directory in HOST_DIRECTORIES {
            let path = Path::new(directory).join(&self.mark);
            if path != self.root && path.symlink_metadata().is_ok() {
                damage.push(format!("{} is on the machine", path.display()));
                let _ = fs::remove_file(&path);
            }
        }
        if self.victim.child.try_wait().unwrap().is_some() {
            damage.push("the victim was killed".to_owned());
        } else if let Some(change) = self.victim.change() {
            damage.push(change);
        }
        let mut reached = |what: &str, was: bool| {
            if was {
                damage.push(format!("{what} was reached"));
            }
        };
        reached("the TCP listener", self.tcp.accept().is_ok());
        reached("the UDP socket", self.udp.recv(&mut [0; 16]).is_ok());
        reached("the abstract socket", self.abstract_unix.accept().is_ok());
        reached("the unix socket", self.unix.accept().is_ok());
        damage
    }
}

fn mark(pid: u32, number: u32) -> String {
    format!("duragent-escape-{pid}-{number}")
}

/// A runtime names places without links; what is not there it names as it would be.
fn canonical(path: PathBuf) -> PathBuf {
    path.canonicalize().unwrap_or(path)
}

/// What stands in a new house: path, mode, contents.
const FILES: &[(&str, u32, &str)] = &[
    ("project/.duragent/duragent.yaml", 0o644, "sandbox:\n  mode: auto\n"),
    ("project/.duragent/policy.yaml", 0o644, "default: ask\n"),
    ("project/.duragent/token", 0o600, SECRET),
    ("project/.duragent/agents/helper/agent.yaml", 0o644, "name: helper\n"),
    ("project/.duragent/agents/helper/skills/one.md", 0o644, "a skill\n"),
    ("project/.duragent/sessions/mine/events.jsonl", 0o644, "{\"seq\":1}\n"),
    ("project/.duragent/sessions/mine/artifacts/big.txt", 0o644, "a large output\n"),
    ("project/.duragent/sessions/other/events.jsonl", 0o644, SECRET),
    ("project/.git/HEAD", 0o644, "ref: refs/heads/main\n"),
    ("project/.git/config", 0o644, "[core]\n"),
    ("project/.git/hooks/pre-commit", 0o755, "#!/bin/sh\n"),
    ("project/.bashrc", 0o644, "# start-up\n"),
    ("project/notes.txt", 0o644, "notes\n"),
    ("project/deep/.duragent/duragent.yaml", 0o644, SECRET),
    ("service/duragent.yaml", 0o644, SECRET),
    ("service/agents/helper/agent.yaml", 0o644, "name: helper\n"),
    ("service/sessions/mine/events.jsonl", 0o644, "{\"seq\":1}\n"),
    ("service/sessions/mine/artifacts/big.txt", 0o644, "a large output\n"),
    ("service/sessions/other/events.jsonl", 0o644, SECRET),
    ("outside/secret-0600", 0o600, SECRET),
    ("outside/secret-0644", 0o644, SECRET),
    ("outside/token", 0o600, SECRET),
    ("home/.profile", 0o644, "# start-up\n"),
];

/// Everything but what a tool may change in its working directory.
fn is_protected(path: &Path) -> bool {
    let Ok(below) = path.strip_prefix("project") else {
        return !path.starts_with("service/sessions/mine/work");
    };
    // A .git can be a file or a link.
    below == Path::new(".git")
        || below.iter().any(|part| part == ".duragent")
        || RUN_BY_OTHERS.iter().any(|name| below.starts_with(name))
}

/// Paths below the house and what is there, in a line.
#[derive(Default, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<PathBuf, String>);

impl Snapshot {
    fn differences(&self, now: &Self) -> Vec<String> {
        let gone =
            self.0.keys().filter(|path| !now.0.contains_key(*path)).map(|path| format!("{} is gone", path.display()));
        let new = now.0.iter().filter_map(|(path, found)| match self.0.get(path) {
            None => Some(format!("{} is new: {found}", path.display())),
            Some(old) if old != found => Some(format!("{} was {old}, is {found}", path.display())),
            Some(_) => None,
        });
        gone.chain(new).collect()
    }
}

fn record(root: &Path, path: &Path, found: &mut BTreeMap<PathBuf, String>) {
    let Ok(metadata) = path.symlink_metadata() else { return };
    let kind = metadata.file_type();
    let what = if kind.is_dir() {
        format!("a directory, {:o}", metadata.mode())
    } else if kind.is_symlink() {
        format!("a link to {}", fs::read_link(path).unwrap_or_default().display())
    } else if kind.is_file() {
        let contents = fs::read(path).unwrap_or_default();
        format!("{:?}, {:o}, {} links", String::from_utf8_lossy(&contents), metadata.mode(), metadata.nlink())
    } else {
        "special".to_owned()
    };
    if let Ok(below) = path.strip_prefix(root)
        && below != Path::new("")
    {
        found.insert(below.to_owned(), what);
    }
    if kind.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            record(root, &entry.path(), found);
        }
    }
}

/// A process of the same user that a tool must not touch.
struct Victim {
    child: Child,
    /// Where its secret is in its memory.
    at: usize,
    /// The number of its shared memory (shmget(2)).
    shared: usize,
    /// Its limits and scheduling when it started.
    state: String,
}

impl Victim {
    fn start() -> Self {
        let mut command = Command::new("/proc/self/exe");
        // Its standard output is also the descriptor that attempts try to take.
        command.arg("__victim").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let numbers: Vec<usize> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
        let state = state_of(child.id());
        Self { child, at: numbers[0], shared: numbers[1], state }
    }

    fn change(&self) -> Option<String> {
        let now = state_of(self.child.id());
        (now != self.state).then(|| format!("the victim's limits or priority: {:?} became {now:?}", self.state))
    }
}

/// What one process may change of another without ptrace(2): limits, priority, processors.
fn state_of(pid: u32) -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let limits = read("limits");
    let open_files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    let status = read("status");
    let processors = status.lines().find(|line| line.starts_with("Cpus_allowed:")).unwrap_or_default();
    let stat = read("stat");
    let nice = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(16)).unwrap_or_default();
    format!("{open_files}; {processors}; nice {nice}")
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The victim's own code: says where its secret is and the number of its shared memory, and waits for the end of the house.
pub fn victim() {
    let secret = SECRET.as_bytes().to_vec().into_boxed_slice();
    crate::kernel::allow_tracers();
    println!("{} {}", crate::kernel::at(&*secret), crate::kernel::share_memory().unwrap());
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0; 1]);
    std::hint::black_box(secret);
}
