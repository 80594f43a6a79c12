//! One attempt in one backend: runs it, and compares what the kernel said and what is seen from outside.

use crate::attempts::{Attempt, Control, OK};
use crate::house::{House, Houses};
use crate::kernel::signal_name;
use duragent_platform::cancel::Cancel;
use duragent_platform::sandbox::{Backend, Command, Exit, Stream};
use std::path::Path;
use std::time::{Duration, Instant};

/// Far more than an attempt takes; a busy machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long the harm that a control does may take to be seen.
const HARM_MAX: Duration = Duration::from_secs(5);

/// How long harm is waited for that must not come although the attempt was told that it worked.
const NO_HARM: Duration = Duration::from_millis(100);

/// Bytes of output that are kept for a failure's message.
const OUTPUT_BYTES_MAX: usize = 4096;

/// The user that the tests run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    Root,
    Ordinary,
}

impl User {
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Ordinary => "user",
        }
    }
}

/// A backend that was found, and where the programs and houses are.
pub struct Ground<'a> {
    pub backend: &'a Backend,
    pub user: User,
    pub houses: &'a Houses,
    /// The folder of this user.
    pub base: &'a Path,
}

impl Ground<'_> {
    pub fn name(&self) -> &'static str {
        self.backend.report().backend
    }

    pub fn is_control(&self) -> bool {
        self.name() == "trust"
    }

    pub fn bin(&self) -> std::path::PathBuf {
        self.base.join("bin")
    }
}

/// What is wrong, or a word for the list.
pub type Outcome = Result<&'static str, String>;

/// Runs `attempt`.
pub fn run(ground: &Ground<'_>, attempt: &Attempt) -> Outcome {
    let mut house = ground.houses.take(attempt.layout);
    (attempt.prepare)(&house);
    let before = house.snapshot();
    let (answer, output) = match attempt.control {
        Control::Plain if ground.is_control() => run_plain(&house, ground, attempt),
        _ => run_in(&house, ground, attempt),
    };
    let expected = match ground.name() {
        "bubblewrap" => attempt.bubblewrap,
        "landlock" => attempt.landlock,
        _ => attempt.trust[usize::from(ground.user == User::Ordinary)],
    };
    let must_hurt = attempt.hurts && ground.is_control() && answer == OK;
    let (start, mut damage) = (Instant::now(), house.damage(&before));
    // A signal takes a moment to arrive. Where the harm must not come, a part of that time has to do.
    let patience = if must_hurt { HARM_MAX } else { NO_HARM };
    while attempt.hurts && answer == OK && damage.is_empty() && start.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(5));
        damage = house.damage(&before);
    }
    let known = answer == OK && !ground.is_control();
    let may_hurt = ground.is_control() || (answer == OK && attempt.granted);
    // What Landlock refuses root, is on a read-only mount as well.
    let read_only = ground.name() == "landlock" && ground.user == User::Root && answer == "EROFS";
    let is_expected = |one: &str| one == answer || (read_only && one == "EACCES");
    let wrong = if !expected.split('|').any(is_expected) {
        Some(format!("expected {expected}, found {answer}{output}"))
    } else if must_hurt && damage.is_empty() {
        Some("the control did no harm: the attempt proves nothing".to_owned())
    } else if !may_hurt && !damage.is_empty() {
        Some(format!("answered {answer}, and from outside: {}", damage.join("; ")))
    } else {
        None
    };
    match wrong {
        Some(wrong) => Err(wrong),
        None => {
            ground.houses.give_back(house);
            Ok(if attempt.limit && known { "ok, a known limit" } else { "ok" })
        }
    }
}

/// The command that makes the attempt.
fn command(house: &House, ground: &Ground<'_>, attempt: &Attempt) -> Command {
    let mut env = house.environment();
    env.extend((attempt.environment)(house));
    Command {
        program: ground.bin().join("sandbox").display().to_string(),
        args: vec!["__attempt".into(), attempt.name.into()],
        env,
        deadline: PATIENCE,
    }
}

/// The answer, and what else was printed.
fn run_in(house: &House, ground: &Ground<'_>, attempt: &Attempt) -> (String, String) {
    let mut policy = house.policy();
    (attempt.policy)(house, &mut policy);
    let sandbox = match ground.backend.sandbox(policy) {
        Ok(sandbox) => sandbox,
        Err(error) => return ("not started".to_owned(), format!(": {error}; {}", error.remedy)),
    };
    let view = house.with_place(|place| sandbox.view(place));
    let mut output = Vec::new();
    let mut sink = |_: Stream, bytes: &[u8]| {
        let room = OUTPUT_BYTES_MAX.saturating_sub(output.len());
        output.extend_from_slice(&bytes[..bytes.len().min(room)]);
    };
    let ended = sandbox.run(&view, &command(house, ground, attempt), &Cancel::new(), &mut sink);
    let output = String::from_utf8_lossy(&output).into_owned();
    match ended {
        Ok(ended) => (answer_of(ended.exit, &output), said(&output)),
        Err(error) => ("not run".to_owned(), format!(": {error}{}", said(&output))),
    }
}

fn run_plain(house: &House, ground: &Ground<'_>, attempt: &Attempt) -> (String, String) {
    let command = command(house, ground, attempt);
    let mut plain = std::process::Command::new(&command.program);
    let output = plain.args(&command.args).env_clear().envs(command.env).current_dir(house.workdir()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let exit = output.status.code().map_or(Exit::Signal(0), Exit::Code);
    (answer_of(exit, &text), said(&text))
}

fn answer_of(exit: Exit, output: &str) -> String {
    if let Some(answer) = output.lines().find_map(|line| line.strip_prefix("answer: ")) {
        return answer.to_owned();
    }
    match exit {
        Exit::Signal(number) => signal_name(number),
        // By which bwrap tells that a signal ended the tool.
        Exit::Code(code @ 129..=192) => signal_name(code - 128),
        other => format!("{other:?}"),
    }
}

fn said(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!("; it printed {output:?}") }
}
