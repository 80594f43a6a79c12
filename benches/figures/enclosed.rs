//! What a sandbox costs: the time to run `true` in each backend beside trust mode, and beside bwrap by hand, in turns, so that
//! whatever else the machine does meets all of them.

use crate::failure::{Failure, Result, doing};
use crate::scene::Place;
use crate::stats::Sample;
use crate::table::{Aim, Row};
use duragent_platform::cancel::Cancel;
use duragent_platform::sandbox::{self, Command, Enforcement, Exit, Mode, Policy, Sandbox};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rounds that are measured, one run of each backend in every round.
const ROUNDS: usize = 60;

/// Figure 11.
pub fn cost(place: &Place) -> Result<Vec<Row>> {
    let trust = Ran::new(place, Mode::Trust)?;
    let mut others = [
        (Ran::new(place, Mode::Bubblewrap)?, "bubblewrap", 5.0, Vec::new()),
        (Ran::new(place, Mode::Landlock)?, "landlock", 1.0, Vec::new()),
    ];
    let (mut base, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let without = trust.once()?;
        base.push(without);
        bare.push(bare_bwrap()? - bare_true()?);
        for (ran, _, _, added) in &mut others {
            added.push(ran.once()? - without);
        }
    }
    let mut rows = vec![
        Row::median("`true` in trust mode", &Sample::new(base), "ms", Aim::Shown),
        Row::median(
            "what bare `bwrap` with `/dev`, `/proc`, `/tmp` adds to `true`",
            &Sample::new(bare),
            "ms",
            Aim::Shown,
        ),
    ];
    for (_, name, aim, added) in others {
        let name = format!("what {name} adds to that");
        rows.push(Row::median(&name, &Sample::new(added), "ms", Aim::AtMost(aim)));
    }
    Ok(rows)
}

/// Milliseconds for `true`.
fn bare_true() -> Result<f64> {
    timed(&mut std::process::Command::new("/bin/true"))
}

/// Milliseconds for `true` behind the least that is a sandbox: what the namespaces cost, whoever asks for them.
fn bare_bwrap() -> Result<f64> {
    let mut command = std::process::Command::new("bwrap");
    command.args(["--unshare-user", "--unshare-all", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]);
    timed(command.args(["--tmpfs", "/tmp", "/bin/true"]))
}

fn timed(command: &mut std::process::Command) -> Result<f64> {
    let start = Instant::now();
    let status = command.status().map_err(doing("starting a process"))?;
    let took = start.elapsed();
    if status.success() { Ok(took.as_secs_f64() * 1e3) } else { Err(Failure(format!("{command:?}: {status}"))) }
}

struct Ran {
    sandbox: Arc<dyn Sandbox>,
    workdir: std::path::PathBuf,
}

impl Ran {
    fn new(place: &Place, mode: Mode) -> Result<Self> {
        let required = if mode == Mode::Trust { Enforcement::None } else { Enforcement::Full };
        let said = |unavailable: sandbox::Unavailable| Failure(unavailable.to_string());
        let sandbox = sandbox::find(mode, &place.binary, required).and_then(|b| b.sandbox(Policy::default()));
        let workdir = place.root.canonicalize().map_err(doing("finding the folder"))?;
        Ok(Self { sandbox: sandbox.map_err(said)?, workdir })
    }

    /// Milliseconds for one run.
    fn once(&self) -> Result<f64> {
        let place = sandbox::Place { workdir: &self.workdir, artifacts: &self.workdir };
        let command = Command {
            program: "/bin/true".into(),
            args: Vec::new(),
            env: Vec::new(),
            deadline: Duration::from_secs(60),
        };
        let start = Instant::now();
        let view = self.sandbox.view(place);
        let ended = self.sandbox.run(&view, &command, &Cancel::new(), &mut |_, _| {}).map_err(doing("running true"))?;
        let took = start.elapsed();
        match ended.exit {
            Exit::Code(0) => Ok(took.as_secs_f64() * 1e3),
            other => Err(Failure(format!("true ended with {other:?}"))),
        }
    }
}
