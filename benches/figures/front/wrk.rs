//! Load by wrk, which measures, too: the load is not ours, and so is the clock.
//!
//! One thread makes it, whatever the connections: on a board with few cores what the client takes the server does not have.
//! Percentiles are wrk's, corrected for what a late answer kept from being asked (coordinated omission).

use crate::failure::{Failure, Result, at, doing, fail};
use crate::proc;
use crate::scene::{MESSAGE, Server, go_on};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Seconds of one load; wrk takes whole ones.
const SECONDS: u32 = 2;
/// What begins the line that the scripts print.
const MARK: &str = "figures ";

/// Prints what came of it: requests and microseconds, p50 and p99 in microseconds, then failures by kind.
const DONE: &str = r#"
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("figures %d %d %d %d %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect, e.read, e.write, e.status, e.timeout))
end
"#;

/// Says something new with every request, to one session after another.
const POST: &str = r#"
local sessions, said = 1, 0
function init(args)
  sessions = tonumber(args[1])
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
end
function request()
  said = said + 1
  local path = "/api/v1/sessions/post-" .. said % sessions .. "/messages"
  return wrk.format(nil, path, nil, '{"content":"MESSAGE ' .. said .. '"}')
end
"#;

/// The program and its scripts.
pub struct Wrk {
    get: PathBuf,
    post: PathBuf,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Load<'a> {
    /// `GET` of a path.
    Get(&'a str),
    /// Messages to so many sessions in turn, `post-0` and so on.
    Post(usize),
}

/// What came of a load.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Requests a second.
    pub rate: f64,
    /// Milliseconds that half of them took at most.
    pub p50: f64,
    /// Milliseconds that 99 of a hundred took at most.
    pub p99: f64,
    /// Microseconds of the server's processor time for each.
    pub cost: f64,
}

impl Wrk {
    /// Writes the scripts to `folder`.
    pub fn new(folder: &Path) -> Result<Self> {
        let put = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).map_err(at(&path)).map(|()| path)
        };
        let post = [&POST.replace("MESSAGE", MESSAGE), DONE].concat();
        Ok(Self { get: put("get.lua", DONE.to_owned())?, post: put("post.lua", post)? })
    }

    /// Loads `server` over so many connections. An answer that is no success is a failure.
    pub fn run(&self, server: &Server, load: Load<'_>, connections: usize) -> Result<Outcome> {
        go_on()?;
        let mut command = Command::new("wrk");
        command.args(["--threads", "1", "--latency", "--timeout", "10s", "--duration", &format!("{SECONDS}s")]);
        command.args(["--connections", &connections.to_string(), "--script"]);
        match load {
            Load::Get(path) => command.arg(&self.get).arg(format!("http://{}{path}", server.address)),
            Load::Post(sessions) => {
                let url = format!("http://{}/", server.address);
                command.arg(&self.post).args([url.as_str(), "--", &sessions.to_string()])
            }
        };
        let before = proc::ticks(server.pid)?;
        let output = command.output().map_err(|error| match error.kind() {
            ErrorKind::NotFound => Failure("wrk: not found; install the Debian package wrk".to_owned()),
            _ => doing("wrk")(error),
        })?;
        let ticks = proc::ticks(server.pid)? - before;
        let said = String::from_utf8_lossy(&output.stdout);
        let Some([requests, micros, p50, p99, failures @ ..]) = numbers(&said) else {
            let said = [said, String::from_utf8_lossy(&output.stderr)].concat();
            return fail(format!("wrk: {}: expected a line of nine numbers, found {said:?}", output.status));
        };
        if requests == 0.0 || failures != [0.0; 5] {
            return fail(format!(
                "{load:?} with {connections} connections: {requests} answers; failed to connect, read, write, succeed, be in \
                 time: {failures:?}"
            ));
        }
        // A tick is 10 ms.
        Ok(Outcome {
            rate: requests / micros * 1e6,
            p50: p50 / 1e3,
            p99: p99 / 1e3,
            cost: ticks as f64 * 1e4 / requests,
        })
    }
}

fn numbers(text: &str) -> Option<[f64; 9]> {
    let line = text.lines().find_map(|line| line.strip_prefix(MARK))?;
    let numbers: Vec<f64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().ok()
}
