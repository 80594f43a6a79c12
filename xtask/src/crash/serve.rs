//! The same story told through the server: one process for all four turns, messages by HTTP, a subscriber to the events.
//!
//! The client does what a good client does: it says each message under an idempotency key until it has an answer, and a
//! subscriber that was cut off comes back with the last id it saw.

use super::client::Client;
use super::families::{Case, Extent, Family, Survey};
use super::inject::{Fault, Point, RUN_TIME_MAX, Running, counts};
use super::oracle;
use super::play::{Calm, Verdict, compare};
use super::random::Random;
use super::scene::{PROMPTS, SESSION, Scene};
use crate::{Failure, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Relative to the scene's folder; unix socket paths are short.
pub const SOCKET: &str = "s";

/// Servers in one performance: the disturbed one and those after it.
const SERVERS_MAX: usize = 4;

/// The command line of a server that listens in the scene's folder.
pub fn arguments(scene: &Scene) -> [String; 5] {
    let socket = scene.folder.join(SOCKET);
    ["--dir", ".duragent", "serve", "--listen", &format!("unix:{}", socket.display())].map(str::to_owned)
}

fn start(scene: &Scene, point: Option<&Point>) -> Result<Running> {
    let args = arguments(scene);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match point {
        Some(point) => scene.program.start_with(&args, point),
        None => scene.program.start(&args),
    }
}

/// How often each call is made by the busiest thread of a server that tells the whole story.
fn watch(root: &Path, survey: &Survey) -> Result<BTreeMap<String, u64>> {
    let scene = survey.calm.before[0].copy(root)?;
    let args = arguments(&scene);
    let mut server = scene.program.start_surveyed(&args.iter().map(String::as_str).collect::<Vec<_>>())?;
    let client = Client::new(&scene.folder.join(SOCKET));
    let mut verdict = Verdict::default();
    for number in 0..PROMPTS.len() {
        if !tell(&client, &mut server, number)? {
            let ended = server.stop()?;
            return Err(Failure::new(format!("the server under strace: {}: {}", ended.describe(), ended.err)));
        }
    }
    shut_down(&client, &mut verdict);
    Ok(counts(&server.end()?.trace, None))
}

/// SIGKILL at the calls of a server.
///
/// # Errors
/// If the server does not tell the story undisturbed.
pub fn kills<'a>(root: &Path, survey: &'a Survey, extent: Extent, random: &mut Random) -> Result<Family<'a>> {
    let mut points = Vec::new();
    for (call, count) in watch(&root.join("watched-server"), survey)?.iter().filter(|(call, _)| *call != "execve") {
        points.extend((1..=*count).map(|when| Point { call: call.clone(), when, fault: Fault::Kill }));
    }
    let points = random.sample(points, extent.cases_max / 2);
    let cases: Vec<Case<'a>> = points
        .into_iter()
        .map(|point| Case {
            name: format!("the server: {point}"),
            run: Box::new(move |root| perform(&survey.calm.before[0].copy(root)?, &point, &survey.calm)),
        })
        .collect();
    let hits_min = cases.len() / 2;
    Ok(Family { name: "serve", about: "SIGKILL of a server, with clients that come back", cases, hits_min })
}

/// Tells the story to servers, the first of which is disturbed.
fn perform(scene: &Scene, point: &Point, calm: &Calm) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let client = Client::new(&scene.folder.join(SOCKET));
    let subscriber = Subscriber::new(&client, SESSION);
    let (mut next, mut servers) = (0, 0);
    let mut server = start(scene, Some(point))?;
    while next < PROMPTS.len() {
        if tell(&client, &mut server, next)? {
            next += 1;
            continue;
        }
        let ended = server.end()?;
        servers += 1;
        verdict.hits += usize::from(servers == 1 && ended.was_hit(point));
        if (servers > 1 || !ended.was_killed()) || servers >= SERVERS_MAX {
            verdict.find(format!("server {servers}: {}: {}", ended.describe(), ended.err.trim_end()));
            return Ok(verdict);
        }
        between(&mut verdict, scene, &subscriber)?;
        server = start(scene, None)?;
    }
    if servers == 0 && !server.is_alive()? {
        verdict.hits += 1;
        server.end()?;
        server = start(scene, None)?;
        wait_until_ready(&client, &mut server)?;
    }
    subscriber.wait_for(scene)?;
    shut_down(&client, &mut verdict);
    let ended = server.end()?;
    if ended.code() != Some(0) && !ended.was_hit(point) {
        verdict.find(format!("at shutdown: {}: {}", ended.describe(), ended.err.trim_end()));
    }
    between(&mut verdict, scene, &subscriber)?;
    if let Ok(log) = scene.log()? {
        verdict.findings.extend(oracle::check(&log, true));
    }
    // A fault that did not hit the server may have hit a tool, whose result it is then.
    if verdict.hits > 0 {
        compare(&mut verdict, scene, calm)?;
    }
    Ok(verdict)
}

/// What can be said while no server runs.
fn between(verdict: &mut Verdict, scene: &Scene, subscriber: &Subscriber) -> Result<()> {
    match scene.log()? {
        Ok(log) => {
            verdict.findings.extend(oracle::check(&log, false));
            verdict.findings.extend(oracle::effects(&log, &scene.effects()?));
            verdict.findings.extend(oracle::acknowledged(&log, &subscriber.seen()));
        }
        Err(damage) => verdict.find(format!("the log is damaged: {damage}")),
    }
    Ok(())
}

/// Makes the session if need be and says message `number`, until there is an answer. False if the server is gone.
///
/// # Errors
/// If the answer is neither success nor silence.
pub fn tell(client: &Client, server: &mut Running, number: usize) -> Result<bool> {
    if !wait_until_ready(client, server)? {
        return Ok(false);
    }
    let session = format!("{{\"agent\":\"witness\",\"id\":\"{SESSION}\"}}");
    match client.ask("POST", "/api/v1/sessions", &[], &session) {
        Some(answer) if matches!(answer.status, 201 | 409) => {}
        Some(answer) => return Err(Failure::new(format!("making a session: {} {}", answer.status, answer.body))),
        None => return Ok(false),
    }
    let key = format!("message-{number}");
    let path = format!("/api/v1/sessions/{SESSION}/messages?wait=30");
    let body = format!("{{\"content\":\"{}\"}}", PROMPTS[number]);
    match client.ask("POST", &path, &[("Idempotency-Key", &key)], &body) {
        Some(answer) if answer.status == 200 && answer.json().text("reason") == "completed" => Ok(true),
        Some(answer) => Err(Failure::new(format!("message {number}: {} {}", answer.status, answer.body))),
        None => Ok(false),
    }
}

/// Waits until the server answers. False if it has ended instead.
///
/// # Errors
/// If its state cannot be asked for.
pub fn wait_until_ready(client: &Client, server: &mut Running) -> Result<bool> {
    let start = Instant::now();
    while start.elapsed() < RUN_TIME_MAX {
        if client.ask("GET", "/readyz", &[], "").is_some_and(|answer| answer.status == 200) {
            return Ok(true);
        }
        if !server.is_alive()? {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(false)
}

/// Asks the server to end.
pub fn shut_down(client: &Client, verdict: &mut Verdict) {
    match client.ask("POST", "/api/admin/v1/shutdown", &[], "") {
        Some(answer) if answer.status >= 300 => verdict.find(format!("shutdown: {} {}", answer.status, answer.body)),
        // Gone before it could say so is what was asked for.
        Some(_) | None => {}
    }
}

/// Follows the events of a session, over as many servers as there are.
pub struct Subscriber {
    seen: Arc<Mutex<(Vec<String>, bool)>>,
}

impl Subscriber {
    /// Starts to listen.
    #[must_use]
    pub fn new(client: &Client, session: &str) -> Self {
        Self::after(client, session, Vec::new())
    }

    /// Goes on behind what was seen.
    #[must_use]
    pub fn after(client: &Client, session: &str, lines: Vec<String>) -> Self {
        let path = format!("/api/v1/sessions/{session}/events");
        let seen = Arc::new(Mutex::new((lines, false)));
        let (client, shared) = (client.clone(), Arc::clone(&seen));
        std::thread::spawn(move || {
            let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
            while !lock().1 {
                let after = last_seq(&lock().0);
                client.follow(&path, after, &mut |line| {
                    let mut seen = lock();
                    // What comes after the end is nothing that anybody has seen.
                    if !seen.1 {
                        seen.0.push(line.to_owned());
                    }
                });
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self { seen }
    }

    /// Sees nothing from now on.
    pub fn close_eyes(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
    }

    /// The lines so far.
    #[must_use]
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Waits until it has seen what is in the log: nothing may be kept from those who listen.
    fn wait_for(&self, scene: &Scene) -> Result<()> {
        let lines = scene.log()?.map_or(0, |log| log.entries.len());
        let start = Instant::now();
        while self.seen().len() < lines {
            if start.elapsed() > RUN_TIME_MAX {
                return Err(Failure::new(format!("the subscriber has {} events of {lines}", self.seen().len())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

fn last_seq(lines: &[String]) -> u64 {
    lines.last().and_then(|line| super::json::parse(line).ok()?.number("seq")).unwrap_or(0)
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        // Its thread ends when the stream does, which may be with the server.
        self.close_eyes();
    }
}
