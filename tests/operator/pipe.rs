//! A supervisor that stops reading our standard error stops nothing.

use crate::house::{House, drain, until};
use std::io::Read;
use std::process::{Command, Stdio};

#[test]
fn a_log_that_nobody_reads_is_dropped_and_counted() {
    let house = House::new("log: {level: debug}");
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = house.command(&[], &[]);
    let server = house.start(command.stderr(writer.try_clone().expect("a descriptor")));
    // Dropped with it, so that the pipe has no writer left when the server has ended.
    drop(command);
    let requests_until_full = until("lines to be dropped", || {
        for _ in 0..100 {
            assert_eq!(server.ask("GET", "/livez", "").status, 200);
        }
        Some(server.metrics().get("http_requests_total")).filter(|_| dropped(&server) > 0.0)
    });
    assert!(requests_until_full > 100.0, "a pipe takes more than that");
    // A turn works as ever, every line of it dropped.
    server.session("a", "tool");
    assert_eq!(server.turn("a"), "completed");

    // The control: somebody who writes as one does by default stops here for good. More than a page, which finds no room
    // beside what is in the last one.
    let mut naive = Command::new("sh")
        .args(["-c", "echo before; printf '%05000d\\n' 0 >&2"])
        .stderr(writer)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh starts");
    naive.stdout.take().expect("piped").read_exact(&mut [0; 6]).expect("it begins");
    until("the naive one to wait", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", naive.id())).expect("it is there");
        stat.contains(") S ").then_some(())
    });
    assert_eq!(server.turn("a"), "completed");
    assert!(naive.try_wait().expect("it can be asked").is_none(), "it waits still");

    // Somebody reads again: the naive one ends, and the next line says how many are missing.
    let mut taken = vec![0; 256 * 1024];
    let n = reader.read(&mut taken).expect("it is full");
    assert!(n > 4096);
    until("the naive one to end", || naive.try_wait().expect("it can be asked"));
    let missing = dropped(&server);
    server.stop();
    let rest = drain(reader);
    let line =
        rest.lines().find(|line| line.contains("lines of this log were dropped")).unwrap_or_else(|| panic!("{rest}"));
    let count: f64 = line.rsplit_once("count=").expect("a count").1.parse().expect("a number");
    // The page that said so was itself the first line, or came before a line of its own.
    assert!((count - missing).abs() <= 1.0, "{count} {missing}");
    for line in rest.lines().skip(1).filter(|line| !line.starts_with('0')) {
        assert!(line.starts_with("duragent: "), "{line:?}");
    }
}

fn dropped(server: &crate::house::Served) -> f64 {
    server.metrics().get("log_lines_dropped_total")
}
