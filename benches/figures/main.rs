//! The figures of the project, measured on the machine at hand and printed as one Markdown table.
//!
//! Job: what a release binary costs (bytes, start, memory, idle processor time), what a turn costs (rate, delay, bytes
//! and syncs), what the store costs over the bare disk, and what the front door bears beside an axum server and nginx. The binary is a black box: a process, its sockets, `/proc`. The
//! store is measured as a library. A figure has an aim, and where others have measured the peer (giosakti/duragent 0.5.4,
//! on a two-core x86_64 machine) its number is cited beside ours: another machine, so a ratio to it is an order of
//! magnitude. What counts on any machine are the ratios to the bare disk and to the bare model, measured in the same run,
//! in turns, on the same file system.
//!
//! Invariants: a figure that cannot be measured says why and fails the run. An aim that is missed is said in the table and
//! fails nothing. Servers are killed and folders removed however the run ends.
//!
//! Run it by `cargo xtask bench` or `cargo bench`: both hand over the binary that `cargo build --release` makes.
//!
//! Absent: micro-benchmarks, history, graphs.

mod bare;
mod client;
mod cost;
mod enclosed;
mod failure;
mod footprint;
mod front;
mod machine;
mod made;
mod ollama;
mod proc;
mod replay;
mod rest;
mod scene;
mod start;
mod stats;
mod store;
mod table;
mod turns;
mod wear;

use failure::{Failure, Result};
use scene::Place;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use table::Row;

/// Measures one group of figures.
type Measure = fn(&Place) -> Result<Vec<Row>>;

/// The figures by number, in the order in which they are measured.
const FIGURES: [(u32, &str, Measure); 16] = [
    (1, "size of the binary", start::size),
    (2, "start to first answer", start::start),
    (3, "idle memory", rest::memory),
    (4, "idle processor time", rest::processor),
    (5, "turns per second", turns::rates),
    (6, "delay of a streamed turn", turns::streamed),
    (7, "bytes and commits per turn", cost::written),
    (8, "memory while a tool prints", cost::flood),
    (9, "commits per second", store::commits),
    (10, "replay of a long log", replay::replay),
    (11, "cost of a sandbox", enclosed::cost),
    (12, "requests per second", front::requests),
    (13, "memory of subscribers", front::subscribers),
    (14, "fan-out", front::fan_out),
    (15, "prompt footprint", footprint::first_request),
    (16, "what a turn costs the flash", wear::cost),
];

const USAGE: &str = "\
usage: cargo xtask bench [--only N]… [--write FILE]
       figures [--only N]… [--binary FILE] [--peer FILE] [--dir FOLDER]

  --only N       measure this figure; may be given several times
  --binary FILE  the duragent binary; without it the release binary that cargo built beside this
  --peer FILE    the axum server of benches/peers/axum; without it where `cargo xtask bench` builds it
  --dir FOLDER   where temporary files go, and with them what disk is measured
";

/// What the command line asks for.
struct Options {
    only: Vec<u32>,
    binary: PathBuf,
    peer: PathBuf,
    dir: PathBuf,
}

/// Exit codes: 0 all was measured, 1 something was not, 2 the command line is wrong, 130 interrupted.
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // What some figures start us for.
    match args.as_slice() {
        [child] if child == start::NOTHING => return ExitCode::SUCCESS,
        [child, folder, session] if child == replay::CHILD => return replay::child(folder, session),
        _ => {}
    }
    if let Err(Failure(text)) = machine::raise_descriptors(&args) {
        eprintln!("error: {text}");
        return ExitCode::FAILURE;
    }
    let options = match options(&args) {
        Ok(options) => options,
        Err(Failure(text)) => {
            eprint!("error: {text}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Failure(text)) => {
            eprintln!("error: {text}");
            ExitCode::FAILURE
        }
    }
}

fn options(args: &[String]) -> Result<Options> {
    let mut options = Options {
        only: Vec::new(),
        binary: env!("CARGO_BIN_EXE_duragent").into(),
        peer: concat!(env!("CARGO_TARGET_TMPDIR"), "/../peers/release/duragent-peer-axum").into(),
        dir: env!("CARGO_TARGET_TMPDIR").into(),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| Failure(format!("expected a value after {arg}")));
        match arg.as_str() {
            // What `cargo bench` says to every benchmark.
            "--bench" => {}
            "--only" => {
                let text = value()?;
                let known = |n: &u32| FIGURES.iter().any(|(number, ..)| number == n);
                let number = text.parse().ok().filter(known);
                options.only.push(number.ok_or_else(|| {
                    Failure(format!("expected a figure from 1 to {}, found {text:?}", FIGURES.len()))
                })?);
            }
            "--binary" => options.binary = value()?.into(),
            "--peer" => options.peer = value()?.into(),
            "--dir" => options.dir = value()?.into(),
            other => return Err(Failure(format!("unknown argument {other:?}"))),
        }
    }
    Ok(options)
}

/// Measures what is asked for and prints it. False if something could not be measured.
fn run(options: &Options) -> Result<bool> {
    scene::clean_up_on_signals()?;
    let place = Place::new(&options.binary, &options.peer, &options.dir)?;
    let begin = machine::Begin::now()?;
    let (mut rows, mut complete) = (Vec::new(), true);
    for (number, name, measure) in FIGURES {
        if !options.only.is_empty() && !options.only.contains(&number) {
            continue;
        }
        let start = Instant::now();
        eprint!("{number:>2}. {name} …");
        let found = measure(&place).unwrap_or_else(|Failure(why)| {
            complete = false;
            vec![Row::failed(name, &why)]
        });
        scene::rest_if_interrupted();
        eprintln!(" {:.0} s", start.elapsed().as_secs_f64());
        rows.extend(found.into_iter().map(|row| (number, row)));
    }
    let mut facts = machine::facts(&place)?;
    facts.push(begin.describe()?);
    print!("{}", table::markdown(&facts, &rows));
    Ok(complete)
}
