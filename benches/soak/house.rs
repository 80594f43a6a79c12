//! The workspace, the server in its control group, and what the kernel says of both.

use duragent_testkit::cgroup::MemoryGroup;
use duragent_testkit::{Json, ask};
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Far above anything that works.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Everything small, so that it comes round often: segments, the log file, sessions in memory.
const CONFIG: &str = "\
profile: gateway-armv7
server:
  connections_max: 64
limits:
  sessions_live_max: LIVE
  session_idle_seconds: IDLE
  log_segment_bytes_max: 65536
  artifact_bytes_max: 65536
  turn_seconds_max: 120
  tool_seconds_max: 20
log:
  level: debug
  file: duragent.log
  file_bytes_max: 65536
  files_max: 2
sandbox:
  mode: auto
  enforcement: partial
providers:
  near:
    kind: ollama
    base_url: http://MODEL
    context_tokens: 4096
    first_byte_seconds_max: 10
";

const AGENT: &str = "\
apiVersion: duragent/v1alpha1
kind: Agent
metadata:
  name: worker
spec:
  model:
    provider: near
    name: m
  tools: [bash]
";

const POLICY: &str = "apiVersion: duragent/v1alpha1\nkind: Policy\nmode: allow\n";

/// A workspace; removed at the end.
pub struct House {
    pub folder: PathBuf,
    binary: PathBuf,
}

/// A running server; killed when it is dropped.
pub struct Server {
    child: Child,
    pub pid: u32,
    pub address: SocketAddr,
    pub group: MemoryGroup,
}

/// What the kernel says of the server's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Bytes of anonymous memory (`smaps_rollup`).
    pub anonymous: u64,
    /// Bytes of resident memory, what belongs to files included.
    pub resident: u64,
    pub descriptors: u64,
    pub threads: u64,
}

impl House {
    /// A workspace below `dir` with one agent on the model at `model`. With `leak`, sessions never leave memory.
    pub fn new(dir: &Path, binary: &Path, model: SocketAddr, leak: bool) -> Result<Self, String> {
        let folder = dir.join(format!("duragent-soak-{}", std::process::id()));
        let house = Self { folder, binary: binary.to_owned() };
        let (live, idle) = if leak { ("65536", "86400") } else { ("8", "3") };
        let config = CONFIG.replace("MODEL", &model.to_string()).replace("LIVE", live).replace("IDLE", idle);
        house.put(".duragent/duragent.yaml", &config)?;
        house.put(".duragent/policy.yaml", POLICY)?;
        house.put(".duragent/agents/worker/agent.yaml", AGENT)?;
        Ok(house)
    }

    fn put(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.folder.join(name);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
        made.map_err(|error| format!("{}: {error}", path.display()))
    }

    /// A command on the workspace.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--dir").arg(self.folder.join(".duragent")).args(args).env_remove("DURAGENT_PROFILE");
        command
    }

    /// Starts the server in a group of so many bytes, and waits until it is ready.
    pub fn serve(&self, bytes: u64) -> Result<Server, String> {
        let group = MemoryGroup::new(bytes)?;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.map_err(|error| format!("a free port: {error}"))?;
        let errors = File::create(self.folder.join("stderr")).map_err(|error| format!("stderr: {error}"))?;
        let mut command = group.command(&self.binary);
        command.arg("--dir").arg(self.folder.join(".duragent")).args(["serve", "--listen", &address.to_string()]);
        command.current_dir(&self.folder).env_remove("DURAGENT_PROFILE").env_remove("JOURNAL_STREAM");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let child = command.spawn().map_err(|error| format!("sh: {error}"))?;
        let server = Server { pid: child.id(), child, address, group };
        let start = Instant::now();
        while !server.get("/readyz").is_ok_and(|(status, _)| status == 200) {
            if start.elapsed() > PATIENCE {
                let said = fs::read_to_string(self.folder.join("stderr")).unwrap_or_default();
                return Err(format!("the server is not ready: {said}"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Server {
    /// Asks it once, on a connection of its own.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> std::io::Result<(u16, Json)> {
        let answered = ask(method, &format!("http://{}{path}", self.address), "Connection: close\r\n", body)?;
        if answered.cut {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let body = answered.json();
        Ok((answered.status, if body.is_null() { Json::String(answered.body) } else { body }))
    }

    pub fn get(&self, path: &str) -> std::io::Result<(u16, Json)> {
        self.ask("GET", path, "")
    }

    /// A number of `/metrics`.
    pub fn metric(&self, name: &str) -> Result<u64, String> {
        let (_, text) = self.get("/metrics").map_err(|error| format!("/metrics: {error}"))?;
        let text = text.str().unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
        value.ok_or_else(|| format!("/metrics has no {name}"))
    }

    pub fn size(&self) -> Result<Size, String> {
        let read = |name: &str| {
            let path = format!("/proc/{}/{name}", self.pid);
            fs::read_to_string(&path)
                .map_err(|error| format!("{path}: {error} (the server is gone, or this is not root)"))
        };
        let number = |text: &str, key: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let (memory, status) = (read("smaps_rollup")?, read("status")?);
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.pid)).map_err(|error| format!("fd: {error}"))?;
        Ok(Size {
            anonymous: number(&memory, "Anonymous:") * 1024,
            resident: number(&memory, "Rss:") * 1024,
            descriptors: descriptors.count() as u64,
            threads: number(&status, "Threads:"),
        })
    }

    pub fn signal(&self, name: &str) -> Result<(), String> {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid.to_string()]).status();
        sent.map_err(|error| format!("kill: {error}")).and_then(|status| match status.success() {
            true => Ok(()),
            false => Err(format!("kill -{name}: the server is gone")),
        })
    }

    /// Stops it in good order; what is left in its group afterwards.
    pub fn stop(mut self) -> Result<Vec<u32>, String> {
        self.signal("TERM")?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Ok(Some(status)) = self.child.try_wait() {
                // Those who were its children end with it, a little later.
                let left = || self.group.processes();
                let end = Instant::now() + Duration::from_secs(5);
                while !left().is_empty() && Instant::now() < end {
                    thread::sleep(Duration::from_millis(50));
                }
                return if status.success() { Ok(left()) } else { Err(format!("the server ended with {status}")) };
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err("the server does not stop".to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
