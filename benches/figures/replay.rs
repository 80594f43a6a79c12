//! Opening a long log: how fast every line is verified and applied, and what memory that takes.
//!
//! Each opening runs in a process of its own, since the peak of memory belongs to a process.

use crate::failure::{Failure, Result, doing, fail};
use crate::made::{self, Made};
use crate::proc;
use crate::scene::Place;
use crate::stats::Sample;
use crate::table::{Aim, Row};
use duragent::store::file::FileStore;
use duragent_core::event::Event;
use duragent_core::session::State;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

/// First argument of the process that opens a log.
pub const CHILD: &str = "--open";

const ROUNDS: usize = 7;
/// Turns of the long log: 100,000 events with the first one.
const TURNS: u64 = 11_111;
/// Turns of the log that memory is compared with; it too fills the window of conversation that a session keeps.
const TURNS_FEW: u64 = 1_111;

/// What the child says.
struct Opened {
    open: f64,
    verify: f64,
    grown: f64,
}

/// Figure 10: opening a log of 100,000 events.
pub fn replay(place: &Place) -> Result<Vec<Row>> {
    let folder = place.folder()?;
    let long = made::session(&folder, "long", TURNS)?;
    let short = made::session(&folder, "short", TURNS_FEW)?;
    let (mut opens, mut verifies, mut events) = (Vec::new(), Vec::new(), Vec::new());
    let (mut grown, mut grown_short) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let opened = open(&folder, "long", &long)?;
        grown_short.push(open(&folder, "short", &short)?.grown / 1e6);
        opens.push(long.bytes as f64 / 1e6 / opened.open);
        verifies.push(long.bytes as f64 / 1e6 / opened.verify);
        events.push(long.events as f64 / opened.open);
        grown.push(opened.grown / 1e6);
    }
    let (grown, grown_short) = (Sample::new(grown), Sample::new(grown_short));
    let more = (grown.median() - grown_short.median()).max(0.0);
    let what = format!("{} events, {:.0} MB", crate::table::number(long.events as f64), long.bytes as f64 / 1e6);
    let few = crate::table::number(short.events as f64);
    Ok(vec![
        Row::median(
            &format!("opening a log of {what}: verify, decode, apply"),
            &Sample::new(opens),
            "MB/s",
            Aim::AtLeast(200.0),
        ),
        Row::median("the same", &Sample::new(events), "events/s", Aim::Shown),
        Row::median("the same without applying: verify and decode", &Sample::new(verifies), "MB/s", Aim::Shown),
        Row::median("growth of peak memory while opening it", &grown, "MB", Aim::Shown),
        Row::median(&format!("the same for {few} events"), &grown_short, "MB", Aim::Shown),
        Row::one("growth for ten times the events", more, "MB", Aim::AtMost(0.1)),
    ])
}

fn open(folder: &Path, session: &str, made: &Made) -> Result<Opened> {
    let own = std::env::current_exe().map_err(doing("finding this program"))?;
    let output = Command::new(own).arg(CHILD).arg(folder).arg(session).output().map_err(doing("opening a log"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    match numbers[..] {
        [events, open, verify, grown] if events == made.events as f64 => Ok(Opened { open, verify, grown }),
        _ => fail(format!("expected {} events, found {text}{}", made.events, String::from_utf8_lossy(&output.stderr))),
    }
}

/// The process that opens a log and says how many events it has, the seconds of opening and of verifying alone, and by
/// how many bytes its peak of memory grew.
pub fn child(folder: &str, session: &str) -> ExitCode {
    match open_here(Path::new(folder), session) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(Failure(text)) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn open_here(folder: &Path, session: &str) -> Result<String> {
    let store = FileStore::new(folder.to_path_buf(), u64::MAX);
    let before = proc::peak(std::process::id())?;
    let (start, mut state) = (Instant::now(), State::default());
    let opened = store.open(session, &mut |event: Event| state.apply(&event)).map_err(doing("opening"))?;
    let open = start.elapsed().as_secs_f64();
    let grown = proc::peak(std::process::id())? - before;
    drop(opened);
    let start = Instant::now();
    let found = store.verify(session, &mut |_| {}).map_err(doing("verifying"))?;
    let verify = start.elapsed().as_secs_f64();
    if found.seq != state.last_seq {
        return fail(format!("expected seq {}, found {}", found.seq, state.last_seq));
    }
    Ok(format!("{} {open} {verify} {grown}", state.last_seq))
}
