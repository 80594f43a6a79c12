//! What takes too long is said, with its time and what it was about; what does not is not.

use crate::house::{House, Served, require, until};
use duragent::session::{Agents, DeviceLimits, Runtime, Setup, Slow};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What was counted as slow, by operation.
fn slow(server: &Served, operation: &str) -> f64 {
    server.metrics().get(&format!("slow_operations_total{{operation=\"{operation}\"}}"))
}

/// A number of a line.
fn number(line: &str, key: &str) -> u64 {
    let (_, rest) = line.split_once(&format!(" {key}=")).unwrap_or_else(|| panic!("no {key} in {line}"));
    rest.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

/// Thresholds so far away that only what waits for them on purpose can reach them.
const FAR: &str =
    "log: {slow: {fsync_ms: 600000, model_ms: 600000, tool_call_ms: 600000, request_ms: 600000, stall_ms: 600000}}";

fn check_silent(server: Served) {
    for operation in ["fsync", "model", "tool_call", "request", "stall"] {
        assert_eq!(slow(&server, operation), 0.0, "{operation}");
    }
    let log = server.log.clone();
    server.stop();
    assert_eq!(log.lines_with("slow operation"), Vec::<String>::new());
}

#[test]
fn nothing_is_slow_that_is_not() {
    let house = House::new(FAR);
    let server = house.serve(&[]);
    for agent in ["hello", "nap"] {
        server.session(agent, agent);
        server.turn(agent);
    }
    server.signal("STOP");
    server.signal("CONT");
    check_silent(server);
    // Nor is anything if nobody wants to know.
    let house = House::new("log: {slow: {fsync_ms: 0, model_ms: 0, tool_call_ms: 0, request_ms: 0, stall_ms: 0}}");
    let server = house.serve(&[]);
    server.session("a", "nap");
    server.turn("a");
    check_silent(server);
}

#[test]
fn a_slow_sync_is_told_and_the_request_that_waits_for_it() {
    require("strace", "strace");
    // As it is by default: a second for either.
    let house = House::new("");
    let inject = "inject=fdatasync:delay_enter=1500000";
    let trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", inject];
    let server = house.start(&mut house.command(&trace, &[]));
    server.session("a", "hello");
    server.send("a");
    let line = server.log.wait_for("operation=fsync");
    assert!(line.starts_with("duragent: slow operation ") && line.contains(" session=a"), "{line}");
    assert!(number(&line, "duration_ms") >= 1500 && number(&line, "slow_ms") == 1000, "{line}");
    assert!(number(&line, "bytes") > 0, "{line}");
    let line = server.log.wait_for("operation=request");
    assert!(line.contains(" method=POST") && line.contains(" path=/api/v1/sessions"), "{line}");
    assert!(slow(&server, "fsync") >= 2.0 && slow(&server, "request") >= 2.0);
    let page = server.metrics();
    assert!(page.get("fsync_seconds_bucket{le=\"1\"}") < page.get("fsync_seconds_bucket{le=\"3\"}"), "{page:?}");
}

#[test]
fn a_slow_tool_and_a_slow_model_are_told() {
    let house = House::new("log: {slow: {tool_call_ms: 200, model_ms: 200}}");
    let slowly = "{\"repeat\":true}\n{\"deltas\":[\"a\",\"b\"],\"delay_ms\":300}\n";
    house.write("agents/hello/tape.jsonl", slowly);
    let server = house.serve(&[]);
    for agent in ["nap", "hello"] {
        server.session(agent, agent);
        assert_eq!(server.turn(agent), "completed");
    }
    let line = server.log.wait_for("operation=tool_call");
    assert!(line.contains(" session=nap tool=bash") && number(&line, "duration_ms") >= 300, "{line}");
    let line = server.log.wait_for("operation=model");
    assert!(line.contains(" session=hello provider=hello"), "{line}");
    // To the first piece, not to the last.
    assert!((300..10_000).contains(&number(&line, "duration_ms")), "{line}");
    assert_eq!(slow(&server, "tool_call"), 1.0);
}

#[test]
fn a_server_that_was_held_up_says_so() {
    let house = House::new("log: {slow: {stall_ms: 100}}");
    let server = house.serve(&[]);
    let stalls = until("a stall", || {
        // A server is watched only for a while after something happened.
        server.ask("GET", "/livez", "");
        server.signal("STOP");
        std::thread::sleep(Duration::from_millis(400));
        server.signal("CONT");
        Some(slow(&server, "stall")).filter(|n| *n > 0.0)
    });
    assert!(stalls >= 1.0);
    let line = server.log.wait_for("operation=stall");
    assert!(number(&line, "duration_ms") > 100, "{line}");
}

#[test]
fn a_task_that_blocks_the_executor_is_a_stall_and_an_idle_server_is_left_alone() {
    let folder = std::env::temp_dir().join(format!("duragent-operator-stall-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let slow = Some(Slow([0, 0, 0, 0, 100]));
    let limits = DeviceLimits { slow, ..DeviceLimits::default() };
    let reload = Box::new(|| Ok(Agents::default()));
    let runtime = Runtime::new(Setup { sessions: folder.clone(), agents: Agents::default(), reload, limits });
    smol::spawn(runtime.clone().watch_executor()).detach();
    let stalls = |runtime: &Runtime| {
        let mut found = 0;
        runtime.tally().counts.each(&mut |family, cells| {
            if family.name == "slow_operations" {
                found = cells[4].load(Ordering::Relaxed);
            }
        });
        found
    };
    until("a stall", || {
        runtime.tally().active();
        // Nobody else of this process uses the executor.
        smol::block_on(smol::spawn(async { std::thread::sleep(Duration::from_millis(300)) }));
        (stalls(&runtime) > 0).then_some(())
    });
    std::fs::remove_dir_all(&folder).ok();
}

#[test]
fn a_server_with_nothing_to_do_is_not_woken() {
    let house = House::new("log: {slow: {stall_ms: 20}}");
    let server = house.serve(&[]);
    server.session("a", "hello");
    server.turn("a");
    // The watch ends by itself; then no thread of the process gets the processor any more.
    until("silence", || {
        let before = switches(server.child.id());
        std::thread::sleep(Duration::from_secs(1));
        (switches(server.child.id()) == before).then_some(())
    });
    // The control: watched, it does.
    let before = switches(server.child.id());
    server.ask("GET", "/livez", "");
    std::thread::sleep(Duration::from_millis(500));
    assert!(switches(server.child.id()) > before + 10, "a watch every 10 ms");
}

/// How often the threads of a process have waited and gone on.
fn switches(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let of = |status: String| -> u64 {
        let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:").map(str::to_owned));
        line.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
    };
    tasks.flatten().map(|task| std::fs::read_to_string(task.path().join("status")).map(of).unwrap_or(0)).sum()
}
