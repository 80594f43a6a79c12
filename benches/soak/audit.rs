//! What is left when it is over: every acknowledged message in a verified log, every turn ended, every `once` call made at most
//! once, and nothing lying about.

use crate::house::House;
use crate::load::Acknowledged;
use duragent_testkit::Json;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// What the logs hold.
#[derive(Debug, Default)]
pub struct Found {
    pub sessions: usize,
    pub turns: u64,
    pub events: u64,
    pub segments: usize,
    pub completed: u64,
    pub wrong: Vec<String>,
}

/// Reads the logs of all sessions, and holds them against what was acknowledged and done.
pub fn logs(house: &House, acknowledged: &[Acknowledged]) -> Result<Found, String> {
    let mut found = Found::default();
    let verified =
        house.command(&["session", "verify", "--all"]).output().map_err(|error| format!("verify: {error}"))?;
    if !verified.status.success() {
        found.wrong.push(format!("session verify --all: {}", String::from_utf8_lossy(&verified.stderr).trim_end()));
    }
    let mut marks: HashMap<(&str, u64), &str> =
        acknowledged.iter().map(|one| ((one.session.as_str(), one.seq), one.mark.as_str())).collect();
    let sessions = house.folder.join(".duragent/sessions");
    let mut started = HashMap::new();
    for entry in fs::read_dir(&sessions).map_err(|error| format!("{}: {error}", sessions.display()))?.flatten() {
        if entry.path().is_dir() {
            found.sessions += 1;
            let name = entry.file_name().to_string_lossy().into_owned();
            session(&entry.path(), &name, &mut marks, &mut started, &mut found)?;
        }
    }
    let mut lost: Vec<_> = marks.into_iter().collect();
    lost.sort_unstable();
    found.wrong.extend(lost.iter().take(5).map(|lost| format!("acknowledged and not in a log: {lost:?}")));
    once(&house.folder, &started, &mut found);
    Ok(found)
}

/// Reads the segments of one session in their order.
fn session<'m>(
    dir: &Path,
    name: &str,
    marks: &mut HashMap<(&'m str, u64), &'m str>,
    started: &mut HashMap<String, u64>,
    found: &mut Found,
) -> Result<(), String> {
    let mut segments: Vec<_> =
        fs::read_dir(dir).map_err(|error| format!("{name}: {error}"))?.flatten().map(|e| e.path()).collect();
    segments.retain(|path| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.starts_with("events.") && file.ends_with(".jsonl")
    });
    segments.sort();
    found.segments += segments.len();
    let mut open = Vec::new();
    let is_fork = |event: &Json| !event.at("parent").is_null();
    let mut fork = false;
    for segment in segments {
        let text = fs::read_to_string(&segment).map_err(|error| format!("{}: {error}", segment.display()))?;
        for line in text.lines() {
            let event = Json::parse(line).map_err(|error| format!("{}: {error}", segment.display()))?;
            found.events += 1;
            let (kind, turn) = (event.at("type").str().unwrap_or_default(), event.at("turn").u64().unwrap_or(0));
            match kind {
                "session_created" => fork = is_fork(&event),
                "message_received" => {
                    let seq = event.at("seq").u64().unwrap_or(0);
                    let content = event.at("content").str().unwrap_or_default();
                    if let Some((key, mark)) =
                        marks.iter().find(|((s, n), _)| *s == name && *n == seq).map(|(k, m)| (*k, *m))
                    {
                        if !content.contains(&format!("mark {mark} ")) {
                            found.wrong.push(format!("{name} {seq}: expected {mark}, found {content}"));
                        }
                        marks.remove(&key);
                    }
                }
                "turn_started" => open.push(turn),
                "turn_finished" => {
                    found.turns += 1;
                    found.completed += u64::from(event.at("reason").str() == Some("completed"));
                    open.retain(|other| *other != turn);
                }
                "tool_started" if !fork => {
                    let arguments = event.at("arguments");
                    let command = arguments.at("command").str().or(arguments.str()).unwrap_or_default();
                    if let Some((_, mark)) = command.split_once("echo ").filter(|_| command.contains("once.log")) {
                        let mark = mark.split(' ').next().unwrap_or_default().to_owned();
                        *started.entry(mark).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
    }
    if !open.is_empty() {
        found.wrong.push(format!("{name}: turns {open:?} have not ended"));
    }
    Ok(())
}

/// `once.log` has a line for each such call that was made.
fn once(folder: &Path, started: &HashMap<String, u64>, found: &mut Found) {
    let text = fs::read_to_string(folder.join("once.log")).unwrap_or_default();
    let mut done: HashMap<&str, u64> = HashMap::new();
    text.lines().for_each(|mark| *done.entry(mark).or_default() += 1);
    if done.is_empty() {
        found.wrong.push("once.log is empty: nothing was tried".to_owned());
    }
    for (mark, times) in done {
        let begun = started.get(mark).copied().unwrap_or(0);
        if times > 1 || begun != 1 {
            found.wrong.push(format!("once: {mark} was done {times} times, begun {begun} times in the log"));
        }
    }
}

/// Files that nobody needs any more once the server has stopped.
pub fn leftovers(house: &House) -> Vec<String> {
    let mut found = Vec::new();
    walk(&house.folder, &mut |path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.contains(".duragent-")
            || name.ends_with(".sock")
            || name.contains(".torn-")
            || name.contains(".damaged-")
        {
            found.push(path.display().to_string());
        }
    });
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let inside = house.folder.to_string_lossy().into_owned();
    found.extend(mounts.lines().filter(|line| line.contains(&inside)).map(|line| format!("mount: {line}")));
    found
}

fn walk(dir: &Path, each: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        each(&path);
        if path.is_dir() && !path.is_symlink() {
            walk(&path, each);
        }
    }
}

/// Control groups of tool calls of the server `pid` that are there still.
pub fn groups(pid: u32) -> Vec<String> {
    let mut found = Vec::new();
    let name = format!("duragent-{pid}-");
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified"] {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&name) {
                found.push(entry.path().display().to_string());
            }
        }
    }
    found
}

/// Children of the server that have ended and that nobody asked for.
pub fn zombies(pid: u32) -> usize {
    let parent_and_state = |text: &str| {
        let mut fields = text.rsplit(')').next()?.split_whitespace();
        Some((fields.next()? == "Z", fields.next()?.parse::<u32>().ok()?))
    };
    let stats = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = stats.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter(|text| parent_and_state(text) == Some((true, pid))).count()
}
