//! A board that runs: QEMU, its serial line in a file, its ports on loopback.

use super::image::{Image, TOKEN, path_of_root};
use super::kind::MEMORY_MIB;
use crate::crash::client::Client;
use crate::repo::{self, at};
use crate::{Failure, Result};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest boot, and longest wait for anything on a board: machines that emulate without help of the processor are slow, and
/// others use them as well.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Longest silence of a board before a request counts as lost.
const SILENCE_MAX: Duration = Duration::from_secs(90);

/// How a board is started.
#[derive(Debug, Clone, Copy, Default)]
pub struct Start {
    /// Syncs of the workspace's disk do nothing: the control.
    pub unsynced: bool,
}

/// A running board. Dropped, it is killed.
pub struct Machine {
    child: Child,
    disk: PathBuf,
    serial: PathBuf,
    start: Instant,
    /// The server's API.
    pub api: Client,
    shell: Client,
}

impl Machine {
    /// Switches it on.
    ///
    /// # Errors
    /// If the emulator is missing.
    pub fn start(image: &Image, disk: &Path, how: Start) -> Result<Self> {
        let (api, shell) = (free_port()?, free_port()?);
        let serial = disk.with_extension("serial");
        let mut command = Command::new("setpriv");
        // Whoever started it may be killed; a board nobody wants would go on for ever.
        command.args(["--pdeathsig", "KILL", image.kind.system]).args(image.kind.machine);
        let unsynced = if how.unsynced { " board.unsynced" } else { "" };
        let memory = MEMORY_MIB.to_string();
        command
            .args(["-m", &memory, "-smp", "1", "-display", "none", "-monitor", "none", "-no-reboot"])
            .args(["-serial", &format!("file:{}", serial.display())])
            .args(["-rtc", "base=utc"])
            .arg("-kernel")
            .arg(&image.kernel)
            .arg("-initrd")
            .arg(&image.initrd)
            .args(["-append", &format!("console=ttyAMA0 quiet panic=-1{unsynced}")])
            .args(drive("system", &image.system, "readonly=on"))
            // Writes stop at the host's memory, which a killed emulator leaves alone; what the guest flushes is synced.
            .args(drive("data", disk, "cache=writeback"))
            .args(["-netdev", &format!("user,id=net{}{}", forward(api, 8410), forward(shell, 2323))])
            .args(["-device", "virtio-net-device,netdev=net"])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = command.spawn().map_err(|e| at("setpriv".as_ref(), &e))?;
        let client = |port, token, silence| Client::tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), token, silence);
        let (api, shell) = (client(api, Some(TOKEN), SILENCE_MAX), client(shell, None, PATIENCE));
        Ok(Self { child, disk: disk.to_path_buf(), serial, start: Instant::now(), api, shell })
    }

    /// Since it was switched on.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.start.elapsed()
    }

    /// Waits until `condition` gives something.
    ///
    /// # Errors
    /// After [`PATIENCE`], or if the emulator ends; with what the board said last.
    pub fn until<T>(&mut self, what: &str, mut condition: impl FnMut(&Self) -> Option<T>) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(found) = condition(self) {
                return Ok(found);
            }
            let ended = self.child.try_wait().map_err(|e| at(&self.serial, &e))?;
            if ended.is_some() || start.elapsed() > PATIENCE {
                let how = ended.map_or_else(|| format!("waited {PATIENCE:?}"), |status| status.to_string());
                return Err(Failure::new(format!("expected {what}: {how}; the board said:\n{}", self.said())));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the server has taken up what was unfinished.
    ///
    /// # Errors
    /// As [`Machine::until`].
    pub fn ready(&mut self) -> Result<()> {
        self.until("the server to be ready", |machine| {
            machine.api.ask("GET", "/readyz", &[], "").filter(|answer| answer.status == 200).map(drop)
        })
    }

    /// Runs a script of the shell as root.
    ///
    /// # Errors
    /// If it does not end with 0.
    pub fn run(&mut self, script: &str) -> Result<String> {
        match self.try_run(script)? {
            (0, text) => Ok(text),
            (code, text) => Err(Failure::new(format!("on the board: {script}: exit {code}: {text}"))),
        }
    }

    /// Runs a script of the shell as root: its exit code, and what it said.
    ///
    /// # Errors
    /// If the board does not answer.
    pub fn try_run(&mut self, script: &str) -> Result<(i32, String)> {
        // Only the question whether there is a shell is asked twice.
        self.until("a shell", |machine| machine.shell.ask("GET", "/", &[], ""))?;
        let answer = self.shell.ask("POST", "/cgi-bin/sh", &[], script);
        let answer = answer.ok_or_else(|| Failure::new(format!("no answer to {script}; it said:\n{}", self.said())))?;
        let (text, code) = answer.body.rsplit_once("\nexit ").unwrap_or((&answer.body, ""));
        let code = code.trim().parse().map_err(|_| Failure::new(format!("a shell on the board: {answer:?}")))?;
        Ok((code, text.to_owned()))
    }

    /// Waits until it has switched itself off.
    ///
    /// # Errors
    /// As [`Machine::until`].
    pub fn off(mut self) -> Result<String> {
        let start = Instant::now();
        while self.child.try_wait().map_err(|e| at(&self.serial, &e))?.is_none() {
            if start.elapsed() > PATIENCE {
                return Err(Failure::new(format!("expected it to switch itself off; it said:\n{}", self.said())));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(self.said())
    }

    /// Pulls the plug. What is wrong with the disk then, its journal replayed as the next boot does it.
    ///
    /// # Errors
    /// If it cannot be killed, or e2fsck not started.
    pub fn pull(mut self) -> Result<Option<String>> {
        self.child.kill().and_then(|()| self.child.wait()).map_err(|e| at(&self.serial, &e))?;
        check(&self.disk)
    }

    /// The last of what it said on its serial line.
    #[must_use]
    pub fn said(&self) -> String {
        let text = fs::read(&self.serial).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).replace('\r', "");
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Checks a copy of a disk: the disk itself is for the board to recover.
fn check(disk: &Path) -> Result<Option<String>> {
    let copy = disk.with_extension("copy");
    repo::run(Command::new("cp").arg("--sparse=always").args([disk, &copy]))?;
    let fsck = |flags: &str| {
        let output = Command::new("e2fsck").arg(flags).arg(&copy).env("PATH", path_of_root()).output();
        output.map_err(|e| at("e2fsck".as_ref(), &e))
    };
    // Replaying the journal may be all that it does: 0, or 1 for a corrected error, which that may be.
    let replayed = fsck("-fp")?;
    let output = if matches!(replayed.status.code(), Some(0 | 1)) { fsck("-fn")? } else { replayed };
    fs::remove_file(&copy).map_err(|e| at(&copy, &e))?;
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    Ok((!output.status.success()).then(|| format!("e2fsck: {}: {text}", output.status)))
}

fn drive(id: &str, file: &Path, more: &str) -> [String; 4] {
    let drive = format!("file={},format=raw,if=none,id={id},{more}", file.display());
    ["-drive".to_owned(), drive, "-device".to_owned(), format!("virtio-blk-device,drive={id}")]
}

fn forward(port: u16, inside: u16) -> String {
    format!(",hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:{inside}")
}

fn free_port() -> Result<u16> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    port.map(|address| address.port()).map_err(|e| Failure::new(format!("loopback: {e}")))
}
