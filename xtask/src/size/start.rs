//! How long the server takes from its start to listening, on this machine.
//!
//! The best of many: what a busy machine adds is not the server's. Without a sandbox, since a start with one tries it out,
//! which takes as long as bubblewrap takes; that figure is told beside it, without a budget.

use crate::repo::{self, at};
use crate::{Failure, Result};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Starts of which the best counts.
const STARTS: usize = 20;

/// The best start in trust mode, and the best with the sandbox that `duragent init` chooses.
///
/// # Errors
/// If the server does not start.
pub fn best(binary: &Path, folder: &Path) -> Result<(Duration, Duration)> {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).map_err(|e| at(folder, &e))?;
    repo::capture(command(binary, folder).arg("init"))?;
    let walled = best_of(binary, folder, STARTS / 4)?;
    let config = folder.join(".duragent/duragent.yaml");
    let text = std::fs::read_to_string(&config).map_err(|e| at(&config, &e))?;
    let trusting = text.replacen("mode: auto", "mode: trust", 1);
    if text == trusting {
        return Err(Failure::new(format!("{}: expected `mode: auto`, found none", config.display())));
    }
    std::fs::write(&config, trusting).map_err(|e| at(&config, &e))?;
    let bare = best_of(binary, folder, STARTS)?;
    std::fs::remove_dir_all(folder).map_err(|e| at(folder, &e))?;
    Ok((bare, walled))
}

fn best_of(binary: &Path, folder: &Path, starts: usize) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..starts {
        best = best.min(once(binary, folder)?);
    }
    Ok(best)
}

/// From before the process is made to the line feed that says that it listens.
fn once(binary: &Path, folder: &Path) -> Result<Duration> {
    let start = Instant::now();
    let mut server = command(binary, folder);
    server.args(["serve", "--listen", "127.0.0.1:0", "--ready-fd", "1"]).stdout(Stdio::piped());
    let mut server = server.spawn().map_err(|e| at(binary, &e))?;
    let read = server.stdout.take().map(|mut told| told.read(&mut [0]));
    let took = start.elapsed();
    let ended = server.kill().and_then(|()| server.wait());
    match (read, ended) {
        (Some(Ok(1)), Ok(_)) => Ok(took),
        (read, ended) => Err(Failure::new(format!("expected a server that is ready, found {read:?}, {ended:?}"))),
    }
}

fn command(binary: &Path, folder: &Path) -> Command {
    let mut command = Command::new(binary);
    command.current_dir(folder).env_remove("DURAGENT_DIR").stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}
