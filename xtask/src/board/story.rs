//! What a board does in a life without accidents: it boots, answers, works, is measured, is told to stop and to start by its init, and
//! is rebooted in the middle of a turn.

use super::Report;
use super::image::{AGENT, Image};
use super::kind::MEMORY_MIB;
use super::machine::{Machine, PATIENCE, Start};
use super::model::Model;
use crate::crash::client::Answer;
use crate::crash::json::{self, Json};
use crate::crash::serve::Subscriber;
use crate::repo::{Repo, at};
use crate::{Failure, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Resident memory of the idle server, and while a turn streams with a tool running, in KiB.
const IDLE_KIB_MAX: u64 = 3 * 1024;
const BUSY_KIB_MAX: u64 = 8 * 1024;

/// Runs `script` of the shell on a booted board, as root, and shows what it says.
pub fn script(repo: &Repo, image: &Image, script: &Path, report: &mut Report) -> Result<()> {
    let text = std::fs::read_to_string(script).map_err(|e| at(script, &e))?;
    let model = Model::start(repo)?;
    let disk = image.data("script", &model.url, &[])?;
    let mut board = Machine::start(image, &disk, Start::default())?;
    board.ready()?;
    let (code, said) = board.try_run(&text)?;
    println!("{said}");
    report.holds(&script.display().to_string(), code == 0, code);
    Ok(())
}

/// The whole life.
///
/// # Errors
/// If the board does not boot or stops answering.
pub fn tell(image: &Image, model: &Model, report: &mut Report) -> Result<()> {
    let landlock = "sandbox: {mode: landlock, enforcement: partial}\n".to_owned();
    let more = [("landlock/duragent.yaml", landlock)];
    let disk = image.data("story", &model.url, &more)?;
    let mut board = Machine::start(image, &disk, Start::default())?;
    board.ready()?;
    let up = board.run("cut -d' ' -f1 /proc/uptime")?;
    report.figure(
        &format!("{}, {MEMORY_MIB} MiB: from power on to ready", image.kind.name),
        &format!("{:.1} s here, {} s on its clock", board.age().as_secs_f64(), up.trim()),
    );
    idle(&mut board, "after the boot", report)?;
    turn(&mut board, report)?;
    busy(&mut board, report)?;
    idle(&mut board, "after the turns", report)?;
    canary(&mut board, report)?;
    init(&mut board, report)?;
    started(&mut board, report)?;
    reboot(board, image, &disk, report)
}

/// The night in which the seconds since 1970 outgrow 32 bits, with a turn before and after it, and a server started behind it: not by
/// the init script, since Debian's BusyBox for armhf does not live that long.
///
/// # Errors
/// If the board does not boot or stops answering.
pub fn later(image: &Image, model: &Model, report: &mut Report) -> Result<()> {
    let disk = image.data("later", &model.url, &[])?;
    let mut board = Machine::start(image, &disk, Start::default())?;
    board.ready()?;
    board.run(
        "cp -r /var/lib/duragent/agents /tmp; mkdir /tmp/w; cp /var/lib/duragent/*.yaml /tmp/w; mv /tmp/agents /tmp/w\n\
         sed -i 's/8410/8411/' /tmp/w/duragent.yaml; chown -R duragent /tmp/w; date -u -s '2038-01-19 03:13:58'",
    )?;
    for (session, before) in [("before", ""), ("after", "sleep 20")] {
        board.run(before)?;
        let answer = say(&board, session, "?wait=200", "call bash {\"command\":\"echo x\"}\nsay fine", &[200])?.json();
        let text = board.run(&format!("tail -n 1 /var/lib/duragent/sessions/{session}/events.jsonl"))?;
        let at = json::parse(text.trim_end()).map(|line| line.text("at").to_owned()).unwrap_or_default();
        let holds = answer.text("reason") == "completed" && at.starts_with("2038-01-19T03:1");
        report.holds(&format!("2038, {session}: a turn ends at {at}"), holds, &answer);
    }
    let (_, text) = board.try_run(
        "su -s /bin/sh duragent -c 'exec duragent --dir /tmp/w serve' >/dev/null 2>&1 &\n\
         n=0; until wget -q -O - http://127.0.0.1:8411/livez 2>/dev/null; do n=$((n + 1)); [ $n -lt 60 ] || exit 9; sleep 1; done; kill $!",
    )?;
    report.holds("2038: a server starts", text.trim() == "ok", text);
    Ok(())
}

/// Sends a message; the answer has to have one of these codes.
pub fn say(board: &Machine, session: &str, query: &str, content: &str, good: &[u16]) -> Result<Answer> {
    let body = format!("{{\"agent\":\"{AGENT}\",\"id\":\"{session}\"}}");
    let ask = |path: &str, body: &str, good: &[u16]| match board.api.ask("POST", path, &[], body) {
        Some(answer) if good.contains(&answer.status) => Ok(answer),
        other => Err(Failure::new(format!("{path}: {other:?}"))),
    };
    ask("/api/v1/sessions", &body, &[201, 409])?;
    let body = format!("{{\"content\":{}}}", quoted(content));
    ask(&format!("/api/v1/sessions/{session}/messages{query}"), &body, good)
}

/// As a JSON string.
#[must_use]
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// A turn with a tool in the sandbox, and somebody who listens.
fn turn(board: &mut Machine, report: &mut Report) -> Result<()> {
    let subscriber = Subscriber::new(&board.api, "turn");
    let script = "call bash {\"command\":\"uname -m; echo kept > kept.txt; cat kept.txt\"}\nsay All is well.";
    let answer = say(board, "turn", "?wait=200", script, &[200])?.json();
    let (reason, reply) = (answer.text("reason").to_owned(), answer.text("reply").to_owned());
    report.holds(
        "a turn against a model of this machine",
        (reason.as_str(), reply.as_str()) == ("completed", "All is well."),
        &answer,
    );
    board.until("the end of the turn on the stream", |_| has(&subscriber.seen(), "turn_finished").then_some(()))?;
    let lines = subscriber.seen();
    let event = |kind: &str| lines.iter().filter_map(|line| json::parse(line).ok()).find(|e| e.text("type") == kind);
    let sandbox = event("tool_started").and_then(|e| e.get("sandbox").cloned());
    let is_walled =
        sandbox.as_ref().is_some_and(|s| (s.text("backend"), s.text("enforcement")) == ("bubblewrap", "full"));
    report.holds("its tool ran in bubblewrap, enforced in full", is_walled, sandbox);
    let result = event("tool_finished").map(|e| e.text("result").to_owned()).unwrap_or_default();
    let machine = board.run("uname -m")?;
    report.holds("the tool worked", result == format!("{}kept\n", machine), result);
    Ok(())
}

fn has(lines: &[String], kind: &str) -> bool {
    lines.iter().any(|line| line.contains(&format!("\"type\":\"{kind}\"")))
}

/// The memory of the server and of the processes below it, in KiB.
#[derive(Debug, Default, Clone)]
struct Memory {
    rss: u64,
    pss: u64,
    anonymous: u64,
    children: Vec<String>,
    children_rss: u64,
    children_pss: u64,
}

/// What `smaps_rollup` says (proc(5)). It takes root, since the server keeps secrets.
fn memory(board: &mut Machine) -> Result<Memory> {
    let text = board.run(
        "echo server $(cat /run/duragent.pid)\n\
         grep -H -E '^(Name|PPid):' /proc/[0-9]*/status 2>/dev/null\n\
         grep -H -E '^(Rss|Pss|Pss_Anon):' /proc/[0-9]*/smaps_rollup 2>/dev/null; true",
    )?;
    // By pid and key.
    let mut found: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("/proc/")) {
        let (Some((pid, rest)), mut words) = (line.split_once('/'), line.split_whitespace()) else { continue };
        let key = rest.split(':').nth(1).unwrap_or_default();
        found.insert((pid, key), words.nth(1).unwrap_or_default());
    }
    let get = |pid: &str, key: &str| found.get(&(pid, key)).copied().unwrap_or_default();
    let number = |pid: &str, key: &str| get(pid, key).parse::<u64>().unwrap_or(0);
    let server = text.lines().next().and_then(|line| line.strip_prefix("server ")).unwrap_or_default().to_owned();
    let mut memory = Memory {
        rss: number(&server, "Rss"),
        pss: number(&server, "Pss"),
        anonymous: number(&server, "Pss_Anon"),
        ..Memory::default()
    };
    let mut open = vec![server.as_str()];
    while let Some(above) = open.pop() {
        for ((pid, _), _) in found.iter().filter(|((_, key), parent)| *key == "PPid" && **parent == above) {
            open.push(pid);
            memory.children_rss += number(pid, "Rss");
            memory.children_pss += number(pid, "Pss");
            memory.children.push(format!("{} {}", get(pid, "Name"), number(pid, "Pss")));
        }
    }
    if memory.rss == 0 {
        return Err(Failure::new(format!("expected the server's smaps_rollup, found {text:?}")));
    }
    Ok(memory)
}

fn idle(board: &mut Machine, when: &str, report: &mut Report) -> Result<()> {
    // Threads that have nothing to do end after five seconds, and give their stacks back.
    std::thread::sleep(Duration::from_secs(7));
    let Memory { rss, pss, anonymous, .. } = memory(board)?;
    report.figure(&format!("idle {when}"), &format!("Rss {rss} KiB, Pss {pss} KiB, of it anonymous {anonymous} KiB"));
    report.holds(&format!("idle {when}: Rss at most {IDLE_KIB_MAX} KiB"), rss <= IDLE_KIB_MAX, rss);
    Ok(())
}

/// One turn streams, in another a tool runs.
fn busy(board: &mut Machine, report: &mut Report) -> Result<()> {
    let subscriber = Subscriber::new(&board.api, "tool");
    let words = "word ".repeat(400);
    say(board, "stream", "", &format!("slow 150 say {words}"), &[202])?;
    say(board, "tool", "", "call bash {\"command\":\"echo at work; sleep 600\"}\nsay over", &[202])?;
    board.until("the tool to start", |_| has(&subscriber.seen(), "tool_started").then_some(()))?;
    // Guard, bwrap twice, and the shell with or without its sleep.
    let start = Instant::now();
    let mut most = memory(board)?;
    while most.children.len() < 4 && start.elapsed() < PATIENCE {
        most = memory(board)?;
    }
    for _ in 0..5 {
        let memory = memory(board)?;
        if memory.rss > most.rss {
            most = memory;
        }
    }
    let streams = board.api.ask("GET", "/api/v1/sessions/stream", &[], "").map(|answer| answer.json());
    let is_running = streams.as_ref().is_some_and(|s| s.text("status") == "running");
    report.holds("a turn streams while a tool runs", is_running && most.children.len() >= 4, (&streams, &most));
    let Memory { rss, pss, anonymous, children, children_rss, children_pss } = most;
    let what = "a turn streams, a tool runs";
    report.figure(what, &format!("Rss {rss} KiB, Pss {pss} KiB, of it anonymous {anonymous} KiB"));
    let names = children.join(", ");
    report.figure(
        "its children beside it",
        &format!("Rss {children_rss} KiB, Pss {children_pss} KiB; Pss of each: {names}"),
    );
    report.holds(&format!("busy: Rss at most {BUSY_KIB_MAX} KiB"), rss <= BUSY_KIB_MAX, rss);
    for session in ["stream", "tool"] {
        let path = format!("/api/v1/sessions/{session}/cancel");
        let answer = board.api.ask("POST", &path, &[], "");
        if answer.as_ref().is_none_or(|answer| answer.status >= 300) {
            return Err(Failure::new(format!("{path}: {answer:?}")));
        }
    }
    board.until("the cancelled turns to end", |board| {
        let idle = |session: &str| {
            let answer = board.api.ask("GET", &format!("/api/v1/sessions/{session}"), &[], "");
            answer.is_some_and(|answer| answer.json().text("status") == "idle")
        };
        (idle("stream") && idle("tool")).then_some(())
    })
}

/// What `doctor` sees from inside, as the user that the server is. Debian's kernel has Landlock of a version that lets tools signal
/// the runtime, and `doctor` has to say so.
fn canary(board: &mut Machine, report: &mut Report) -> Result<()> {
    for (name, workspace, backend, reached) in [
        ("bubblewrap", "/var/lib/duragent", "bubblewrap, enforcement full", &[][..]),
        ("landlock", "/var/lib/duragent/landlock", "landlock, enforcement partial", &["canary signal_the_runtime"]),
    ] {
        let command = format!("su -s /bin/sh duragent -c 'duragent --dir {workspace} doctor --json'");
        let (code, text) = board.try_run(&command)?;
        let json = text.lines().find_map(|line| json::parse(line).ok()).unwrap_or(Json::Plain("null".into()));
        let checks = json.list("checks");
        let failed: Vec<&str> =
            checks.iter().filter(|check| check.text("status") == "FAIL").map(|check| check.text("name")).collect();
        let canaries = checks.iter().filter(|check| check.text("name").starts_with("canary ")).count();
        let head =
            checks.iter().find(|check| check.text("name") == "sandbox").map_or("", |check| check.text("evidence"));
        let is_right = failed == reached && code == i32::from(!reached.is_empty());
        let holds = is_right && canaries >= 10 && head.starts_with(backend);
        report.holds(&format!("doctor, an ordinary user, {name}: {head}"), holds, (code, failed, canaries, &text));
    }
    Ok(())
}

/// The script of the init, on its init.
fn init(board: &mut Machine, report: &mut Report) -> Result<()> {
    const SCRIPT: &str = "/etc/init.d/S90duragent";
    let mut step = |board: &mut Machine, what: &str, script: &str, wanted: i32| -> Result<()> {
        let (code, text) = board.try_run(script)?;
        report.holds(&format!("init: {what}"), code == wanted, (code, text));
        Ok(())
    };
    let pid = "pid() { cat /run/duragent.pid; }\n";
    step(
        board,
        "the server runs as its user, with init above it",
        &format!("{pid}[ \"$(stat -c %U /proc/$(pid))\" = duragent ] && grep -q '^PPid:.1$' /proc/$(pid)/status"),
        0,
    )?;
    step(board, "status", &format!("{SCRIPT} status"), 0)?;
    step(
        board,
        "start while it runs changes nothing",
        &format!("{pid}a=$(pid); {SCRIPT} start && [ $a = $(pid) ]"),
        0,
    )?;
    step(board, "reload", &format!("{pid}a=$(pid); {SCRIPT} reload && [ $a = $(pid) ]"), 0)?;
    step(
        board,
        "reload of a wrong file is refused, and the server stays",
        &format!(
            "{pid}a=$(pid); f=/var/lib/duragent/duragent.yaml; cp $f /tmp/kept; echo 'adress: 1' >> $f; \
         {SCRIPT} reload; code=$?; cat /tmp/kept > $f; [ $code != 0 ] && [ $a = $(pid) ] && {SCRIPT} status"
        ),
        0,
    )?;
    step(board, "stop", &format!("{pid}a=$(pid); {SCRIPT} stop && ! grep -q '^State:.[^Z]' /proc/$a/status"), 0)?;
    step(board, "it stays stopped", &format!("sleep 4; {SCRIPT} status"), 3)?;
    step(board, "start, and it is ready", &format!("{SCRIPT} start && {SCRIPT} status"), 0)?;
    board.ready()?;
    step(board, "restart", &format!("{pid}a=$(pid); {SCRIPT} restart && [ $a != $(pid) ] && {SCRIPT} status"), 0)?;
    board.ready()?;
    step(
        board,
        "kill -9, and init starts it again",
        &format!(
            "{pid}a=$(pid); kill -9 $a; n=0; until [ \"$(pid)\" != $a ] && {SCRIPT} status; do n=$((n+1)); [ $n -lt 120 ] || exit 9; sleep 1; done"
        ),
        0,
    )?;
    board.ready()
}

/// From exec to listening and ready, on the board's own clock: `ts` notes when it reads a line, and says so at the end.
fn started(board: &mut Machine, report: &mut Report) -> Result<()> {
    let text = board.run(
        "mkdir /tmp/w; cd /var/lib/duragent; cp -r duragent.yaml policy.yaml agents /tmp/w/; cd /tmp\n\
         sed -i 's/8410/8411/' /tmp/w/duragent.yaml; chown -R duragent /tmp/w\n\
         serve='exec duragent --dir /tmp/w serve --ready-fd 1 --pid-file /tmp/w/pid 2>/tmp/w/err'\n\
         for n in 1 2 3 4 5; do\n\
           { echo start; exec su -s /bin/sh duragent -c \"$serve\"; } | ts -s %.S >/tmp/times &\n\
           n=0; until grep -q ready /tmp/w/err; do n=$((n + 1)); [ $n -lt 300 ] || break; sleep 0.2; done 2>/dev/null\n\
           kill $(cat /tmp/w/pid); wait; cat /tmp/times; rm -f /tmp/w/err\n\
         done; rm -r /tmp/w",
    )?;
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let times: Vec<(f64, bool)> =
        words.filter_map(|words| Some((words.first()?.parse().ok()?, words.get(1) == Some(&"start")))).collect();
    let mut spans: Vec<f64> =
        times.windows(2).filter(|pair| pair[0].1 && !pair[1].1).map(|pair| pair[1].0 - pair[0].0).collect();
    spans.sort_by(f64::total_cmp);
    report.holds("start to ready was measured", spans.len() == 5, &text);
    if let Some(median) = spans.get(spans.len() / 2) {
        let what = "start of the process, through su, to listening and ready, emulated, median of 5";
        report.figure(what, &format!("{:.0} ms", median * 1000.0));
    }
    Ok(())
}

/// A reboot in the middle of a turn, with a client that comes back with the last id it saw.
fn reboot(mut board: Machine, image: &Image, disk: &Path, report: &mut Report) -> Result<()> {
    let subscriber = Subscriber::new(&board.api, "reboot");
    let script = "call write_file {\"path\":\"a.txt\",\"content\":\"x\"}\nwait 600000 say never\n";
    say(&board, "reboot", "", script, &[202])?;
    board.until("the second question to the model", |_| (asked(&subscriber.seen()) == 2).then_some(()))?;
    let before = subscriber.seen();
    board.run("(sleep 1; reboot) >/dev/null 2>&1 &")?;
    let said = board.off()?;
    report.holds("a reboot stops what runs and lets go of the disk", said.contains("BOARD: down"), said);
    subscriber.close_eyes();
    let mut board = Machine::start(image, disk, Start::default())?;
    board.ready()?;
    let subscriber = Subscriber::after(&board.api, "reboot", before);
    board.until("the model to be asked again", |_| (asked(&subscriber.seen()) == 3).then_some(()))?;
    let lines = subscriber.seen();
    let seqs: Vec<u64> = lines.iter().filter_map(|line| json::parse(line).ok()?.number("seq")).collect();
    report.holds(
        "the stream goes on behind Last-Event-ID, over the reboot",
        seqs.iter().copied().eq(1..=seqs.len() as u64),
        seqs,
    );
    report.holds("the stop was in good order: the turn paused", has(&lines, "session_paused"), &lines);
    board.run("(sleep 1; poweroff) >/dev/null 2>&1 &")?;
    board.off().map(drop)
}

fn asked(lines: &[String]) -> usize {
    lines.iter().filter(|line| line.contains("\"type\":\"model_requested\"")).count()
}
