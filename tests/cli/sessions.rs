//! `session …`

use super::house::{HELLO, House, files, signal, until};
use duragent_core::json::{self, Value};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// A call that the policy of the house asks about, then an answer.
const TOOL: &str = "{\"deltas\":[\"Let me look.\"],\"tool_calls\":[{\"name\":\"bash\",\"arguments\":{\"command\":\"echo found it\"}}]}\n\
                    {\"deltas\":[\"There it is.\"]}\n";

#[test]
fn a_conversation_is_shown() {
    let house = House::new(HELLO);
    house.session("talk", &["say\\nhello \\u001b[31m"]);
    let out = house.good(&["session", "show", "ta"]);
    for part in [
        "session  talk\ntitle    about talk\nagent    bot\nstatus   idle\ncreated  ",
        "\nturns    1\ntokens   7 in, 3 out, 10 in the context\n",
        "\n#2 user\n  say\n  hello \u{fffd}[31m\n",
        "assistant\n  Hello there.\n",
    ] {
        assert!(out.contains(part), "{part:?} is not in {out}");
    }
    let json = json::parse(&house.good(&["session", "show", "talk", "--json"])).expect("JSON");
    let Some(Value::Array(messages)) = json.get("messages") else { panic!("{json}") };
    assert_eq!((json.get("id").and_then(Value::as_str), messages.len()), (Some("talk"), 2));
}

#[test]
fn calls_and_results_are_shown() {
    let house = House::new(TOOL);
    house.write(".duragent/policy.yaml", "apiVersion: duragent/v1alpha1\nkind: Policy\nmode: allow\n");
    house.session("work", &["look"]);
    let out = house.good(&["session", "show", "work"]);
    for part in [
        "  Let me look.\n  ",
        " → bash {\"command\":\"echo found it\"}\n",
        " ← exit 0\n    found it\n",
        "  There it is.\n",
    ] {
        assert!(out.contains(part), "{part:?} is not in {out}");
    }
    let log = house.good(&["session", "log", "work"]);
    for part in [
        "session_created    bot \"about work\"",
        "tool_started",
        "(trust, enforced: none)",
        "exit 0",
        "turn 1 completed",
    ] {
        assert!(log.contains(part), "{part:?} is not in {log}");
    }
    assert_eq!(log.lines().count(), house.log("work").lines().count());
}

#[test]
fn a_log_is_printed_as_it_is() {
    let house = House::new(HELLO);
    let messages: Vec<&str> = std::iter::repeat_n("again", 60).collect();
    house.session("long", &messages);
    let log = house.log("long");
    assert!(log.lines().count() > 200, "more than a page");
    for args in [&["session", "log", "long", "--json"] as &[&str], &["session", "export", "long"]] {
        assert_eq!(house.good(args), log, "{args:?}");
    }
    let server = house.serve();
    assert_eq!(house.good(&["session", "log", "long", "--json"]), log);
    server.stop();
    assert_eq!(house.good(&["session", "export", "long", "-o", "long.jsonl"]), "");
    assert_eq!(fs::read_to_string(house.path("long.jsonl")).expect("written"), log);
}

#[test]
fn a_log_is_followed_over_the_death_of_the_server_until_ctrl_c() {
    let house = House::new(HELLO);
    house.session("live", &["one"]);
    let server = house.serve();
    let mut child =
        house.command(&["session", "log", "-f", "--json", "live"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map(|line| line.expect("a line"));
    let mut seen = String::new();
    let mut see = |log: &str| {
        while seen.lines().count() < log.lines().count() {
            seen.push_str(&lines.next().expect("more lines"));
            seen.push('\n');
        }
        assert_eq!(seen, log);
    };
    see(&house.log("live"));
    server.say("live", "two");
    see(&house.log("live"));
    server.kill();
    let server = house.serve();
    server.say("live", "three");
    see(&house.log("live"));
    server.stop();
    // Without a server the files are followed.
    signal("INT", &child);
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
}

#[test]
fn a_log_is_followed_without_a_server() {
    let house = House::new(HELLO);
    house.session("live", &["one"]);
    let mut child = house.command(&["session", "log", "-f", "live"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map(|line| line.expect("a line"));
    assert!(lines.next().expect("a line").contains("session_created"));
    house.good(&["session", "close", "live"]);
    assert!(lines.any(|line| line.contains("session_closed")));
    signal("INT", &child);
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
}

#[test]
fn a_session_is_closed_once_and_a_turn_cancelled() {
    let house = House::new(TOOL);
    house.session("open", &["look"]);
    assert_eq!(house.good(&["session", "cancel", "open"]), "turn 1 of session open is cancelled\n");
    assert!(house.bad(1, &["session", "cancel", "open"]).contains("no turn under way"));
    assert_eq!(house.good(&["session", "close", "open"]), "session open is closed\n");
    house.bad(1, &["session", "close", "open"]);
    assert!(house.log("open").contains("\"type\":\"session_closed\""));
}

#[test]
fn a_fork_begins_as_its_parent() {
    let house = House::new(HELLO);
    house.session("base", &["one", "two"]);
    let whole = house.good(&["session", "fork", "base"]);
    let first = house.good(&["session", "fork", "base", "--at", "7"]);
    let turns = |id: &str| {
        let json = json::parse(&house.good(&["session", "show", id.trim(), "--json"])).expect("JSON");
        json.get("turns").and_then(Value::as_u64)
    };
    assert_eq!((turns(&whole), turns(&first)), (Some(2), Some(1)));
    assert!(
        house.log(first.trim()).starts_with("{\"seq\":1,")
            && house.log(first.trim()).contains("\"parent\":{\"session\":\"base\"")
    );
}

#[test]
fn verify_tells_intact_torn_and_damaged_apart() {
    let house = House::new(HELLO);
    house.session("a", &["one"]);
    house.session("b", &["one"]);
    let log = house.log("a");
    let counts = format!("{} events, {} bytes, 1 segment", log.lines().count(), log.len());
    assert_eq!(house.good(&["session", "verify", "a"]), format!("a: intact, {counts}\n"));
    assert_eq!(house.good(&["session", "verify", "--all"]).lines().count(), 2);

    fs::write(house.log_path("a"), format!("{log}{{\"seq\":99")).expect("it can be written");
    let torn = house.good(&["session", "verify", "a"]);
    assert!(torn.contains("the last 9 bytes were never acknowledged and will be cut off"), "{torn}");

    house.damage("b", 3);
    let byte: usize = house.log("b").lines().take(2).map(|line| line.len() + 1).sum();
    let error = house.bad(1, &["session", "verify", "b"]);
    let place = format!("error: sessions/b/events.jsonl:3: expected seq 3 at byte {byte}: expected crc ");
    assert!(error.starts_with(&place), "{error}");
    assert!(error.ends_with("with: duragent session repair b\n"), "{error}");
    let all = house.bad(1, &["session", "verify", "--all"]);
    assert!(all.starts_with(&place) && all.contains("error: 1 of 2 sessions not intact\n"), "{all}");
}

#[test]
fn verify_and_repair_need_no_configuration() {
    let house = House::new(HELLO);
    house.session("a", &["one"]);
    house.damage("a", 3);
    house.write(".duragent/duragent.yaml", "nonsense: [\n");
    house.bad(3, &["ps"]);
    house.bad(1, &["session", "verify", "a"]);
    house.good(&["session", "repair", "a"]);
    house.good(&["session", "verify", "a"]);
}

#[test]
fn repair_keeps_what_is_intact_and_the_original_and_says_so_in_the_log() {
    let house = House::new(HELLO);
    house.session("bent", &["one", "two"]);
    let whole = house.log("bent");
    assert_eq!(house.good(&["session", "repair", "bent"]), "session bent is intact, nothing was changed\n");
    assert_eq!(house.log("bent"), whole);
    house.damage("bent", 4);
    let damaged = house.log("bent");
    let intact: String = damaged.lines().take(3).map(|line| format!("{line}\n")).collect();
    let dropped = damaged.len() - intact.len();

    let out = house.good(&["session", "repair", "bent"]);
    let original = house.dir().join("sessions/bent/events.jsonl.damaged-1");
    assert!(out.starts_with("repaired bent: sessions/bent/events.jsonl:4: expected seq 4"), "{out}");
    let rest = format!("kept     3 events\ndropped  {dropped} bytes\noriginal {}\n", original.display());
    assert!(out.ends_with(&rest), "{out}");
    assert_eq!(fs::read_to_string(original).expect("it is kept"), damaged);

    let log = house.log("bent");
    assert!(log.starts_with(&intact) && log.lines().count() == 4, "{log}");
    let last = log.lines().last().expect("a line");
    let event = format!(
        "\"type\":\"session_recovered\",\"reason\":\"repaired\",\"dropped_bytes\":{dropped},\"saved_as\":\"events.jsonl.damaged-1\""
    );
    assert!(last.contains(&event), "{last}");
    house.good(&["session", "verify", "bent"]);

    // The turn that was cut short goes on.
    let server = house.serve();
    until("the turn to rest", || (server.status("bent") == "idle").then_some(()));
    server.stop();
}

#[test]
fn a_session_in_use_is_not_repaired_under_its_owner() {
    let house = House::new(HELLO);
    house.session("held", &["one"]);
    let server = house.serve();
    server.say("held", "two");
    house.damage("held", 2);
    let before = house.log("held");
    let error = house.bad(1, &["session", "repair", "held"]);
    assert!(
        error.starts_with("error: session \"held\" is in use by process ") && error.contains("\nhint: "),
        "{error}"
    );
    assert_eq!(house.log("held"), before);
    server.kill();
    house.good(&["session", "repair", "held"]);
}

#[test]
fn a_log_without_an_intact_line_is_left_as_it_is() {
    let house = House::new(HELLO);
    house.session("lost", &[]);
    house.damage("lost", 1);
    let before = files(&house.dir().join("sessions"));
    let error = house.bad(1, &["session", "repair", "lost"]);
    assert!(
        error.contains("not even its first line is intact") && error.contains("hint: nothing was changed"),
        "{error}"
    );
    assert_eq!(files(&house.dir().join("sessions")), before);
}

#[test]
fn a_session_is_carried_to_another_workspace_byte_for_byte() {
    let house = House::new(HELLO);
    house.session("talk", &["one", "two"]);
    let export = house.path("talk.jsonl").display().to_string();
    house.good(&["session", "export", "talk", "-o", &export]);
    let other = House::new(HELLO);
    let events = house.log("talk").lines().count();
    assert_eq!(other.good(&["session", "import", &export]), format!("talk: {events} events imported\n"));
    assert_eq!(other.log("talk"), house.log("talk"));
    other.good(&["session", "verify", "talk"]);
    let server = other.serve();
    server.say("talk", "three");
    server.stop();
    assert!(other.log("talk").starts_with(&house.log("talk")));

    let taken = house.bad(1, &["session", "import", &export]);
    assert_eq!(taken, "error: session \"talk\" exists already\nhint: give it another id with: --id NEW\n");
    house.good(&["session", "import", &export, "--id", "copy"]);
    let copy = house.log("copy");
    assert!(copy.contains(&format!("\"session\":\"copy\",\"agent\":\"bot\",\"title\":\"about talk\",\"parent\":{{\"session\":\"talk\",\"seq\":{events}}}")), "{copy}");
    assert_eq!(copy.lines().count(), events);
    house.good(&["session", "verify", "copy"]);
}

#[test]
fn what_is_not_a_whole_log_is_not_imported() {
    let house = House::new(HELLO);
    house.session("talk", &["one"]);
    let log = house.log("talk");
    let lines: Vec<&str> = log.lines().collect();
    let without = |n: usize| lines.iter().enumerate().filter(|(i, _)| *i != n).map(|(_, l)| format!("{l}\n")).collect();
    let cases: [(&str, String, &str); 7] = [
        ("empty", String::new(), ":1: expected a line of the log with a line feed, found the end of the file"),
        ("a line is missing", without(2), ":3: expected crc "),
        ("the first line is missing", without(0), ":1: expected crc "),
        ("a letter is another", log.replace("Hello", "hello"), ": expected crc "),
        ("the end is missing", log[..log.len() - 5].to_owned(), ": expected a line of the log with a line feed"),
        ("no log at all", "{}\n".to_owned(), ":1: expected the line to end in \"crc\""),
        ("not text", "\u{0}\u{0}\n".to_owned(), ":1: "),
    ];
    let before = files(&house.dir().join("sessions"));
    for (what, text, said) in cases {
        house.write("import.jsonl", &text);
        let error = house.bad(1, &["session", "import", "import.jsonl", "--id", "new"]);
        assert!(error.starts_with("error: import.jsonl:") && error.contains(said), "{what}: {error}");
        assert!(error.contains("hint: nothing was imported"), "{what}: {error}");
        assert_eq!(files(&house.dir().join("sessions")), before, "{what}");
    }
    // The control: the same way in is open for what is whole.
    house.write("import.jsonl", &log);
    house.good(&["session", "import", "import.jsonl", "--id", "new"]);
}

#[test]
fn what_would_be_lost_is_not_imported() {
    let house = House::new(HELLO);
    let line = |seq: u64, rest: &str, before: u32, out: &mut String| {
        let body = format!("{{\"seq\":{seq},\"at\":\"2026-11-22T10:00:00.123Z\",{rest}");
        let crc = duragent_core::crc::Crc32c::default()
            .update(format!("{before:08x}").as_bytes())
            .update(body.as_bytes())
            .value();
        out.push_str(&format!("{body},\"crc\":\"{crc:08x}\"}}\n"));
        crc
    };
    let created = "\"type\":\"session_created\",\"v\":1,\"session\":\"s\",\"agent\":\"bot\"";
    for (second, said) in [
        ("\"type\":\"turn_started\",\"turn\":1", None),
        (
            "\"type\":\"moon_rose\",\"phase\":3",
            Some("import.jsonl:2: this moon_rose holds something that this build does not know"),
        ),
        (
            "\"type\":\"turn_started\",\"turn\":1,\"mood\":\"good\"",
            Some("import.jsonl:2: this turn_started holds something"),
        ),
        (created, Some("import.jsonl:2: expected one session_created")),
    ] {
        let mut text = String::new();
        let crc = line(1, created, 0, &mut text);
        line(2, second, crc, &mut text);
        house.write("import.jsonl", &text);
        match said {
            None => drop(house.good(&["session", "import", "import.jsonl"])),
            Some(said) => {
                let error = house.bad(1, &["session", "import", "import.jsonl", "--id", "new"]);
                assert!(error.contains(said), "{error}");
            }
        }
    }
    let mut newer = String::new();
    line(1, &created.replace("\"v\":1", "\"v\":2"), 0, &mut newer);
    house.write("import.jsonl", &newer);
    assert!(house.bad(1, &["session", "import", "import.jsonl"]).contains(":1: expected log version 1, found 2"));
}
