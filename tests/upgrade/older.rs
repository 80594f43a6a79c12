//! State of earlier versions is read, goes on, and what is there stays as it is, byte for byte.

use super::house::{House, Served, until};
use super::states::{EARLIER, TORN, chained, left_by, lines};
use duragent_core::json::Value;
use std::collections::BTreeMap;
use std::fs;

/// What is in every segment of every session.
fn logs(house: &House) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for session in fs::read_dir(house.path(".duragent/sessions")).expect("sessions").flatten() {
        for entry in fs::read_dir(session.path()).into_iter().flatten().flatten() {
            let name = format!("{}/{}", session.file_name().display(), entry.file_name().display());
            if name.ends_with(".jsonl") {
                found.insert(name, fs::read(entry.path()).expect("readable"));
            }
        }
    }
    found
}

fn status(server: &Served, id: &str) -> String {
    let session = server.get(&format!("/api/v1/sessions/{id}"));
    session.get("status").and_then(Value::as_str).expect("a status").to_owned()
}

#[test]
fn workspaces_of_earlier_builds_are_whole_and_go_on() {
    for build in EARLIER {
        let house = left_by(build);
        assert!(house.good(&["check"]).contains("configuration ok"), "{build}");
        let verified = house.good(&["session", "verify", "--all"]);
        assert!(
            verified.contains("torn: intact, 10 events") && verified.contains("were never acknowledged"),
            "{build}: {verified}"
        );
        let before = logs(&house);
        for id in ["plain", "granted", "closed", "torn"] {
            let shown = house.good(&["session", "show", id]);
            assert!(shown.contains("There it is."), "{build} {id}: {shown}");
        }
        assert_eq!(house.good(&["session", "export", "plain"]).as_bytes(), before["plain/events.jsonl"], "{build}");

        house.write(".duragent/policy.yaml", "mode: ask\nallow: [list_dir, \"bash:*\"]\n");
        let server = house.serve();
        assert_eq!(
            (status(&server, "waiting").as_str(), status(&server, "closed").as_str()),
            ("waiting", "closed"),
            "{build}"
        );
        server.say("plain", "and now?");
        server.say("torn", "and now?");
        let fork = server.post("/api/v1/sessions/granted/fork", "");
        server.say(fork.get("id").and_then(Value::as_str).expect("an id"), "and now?");
        let asked = server.get("/api/v1/sessions/waiting/approvals");
        let Some(Value::Array(asked)) = asked.get("approvals") else { panic!("{build}: {asked}") };
        let id = asked[0].get("approval_id").and_then(Value::as_str).expect("an id").to_owned();
        server.post(&format!("/api/v1/sessions/waiting/approvals/{id}"), r#"{"decision":"grant"}"#);
        until("the turn to rest", || (status(&server, "waiting") == "idle").then_some(()));
        drop(server);

        let after = logs(&house);
        for (name, text) in before {
            let text = if name.starts_with("torn/") { &text[..text.len() - TORN.len()] } else { &text };
            assert!(after[&name].starts_with(text), "{build} {name}: what was there has changed");
        }
        house.good(&["session", "verify", "--all"]);
    }
}

/// Steps that an earlier build had begun when it was killed: its own lines, cut behind them.
#[test]
fn turns_that_an_earlier_build_has_begun_are_brought_to_their_end() {
    for build in EARLIER {
        for last in ["model_requested", "model_responded", "approval_decided", "tool_started", "tool_finished"] {
            let house = left_by(build);
            let mark = format!("\"type\":\"{last}\"");
            let all = lines(&house, "granted");
            let end = all.iter().rposition(|line| line.contains(&mark)).expect(last);
            fs::write(house.log_path("granted"), chained(&all[..=end])).expect("written");
            let server = house.serve();
            until("the turn to rest", || (status(&server, "granted") == "idle").then_some(()));
            let events = lines(&house, "granted");
            assert!(events.last().expect("events").contains("\"reason\":\"completed\""), "{build} {last}: {events:#?}");
            // What may run only once did not run again.
            let interrupted = events.iter().any(|line| line.contains("\"type\":\"tool_interrupted\""));
            assert_eq!(interrupted, last == "tool_started", "{build} {last}");
            drop(server);
        }
    }
}

#[test]
fn exports_of_earlier_builds_are_imported_or_refused_for_what_would_be_lost() {
    for build in EARLIER {
        let (house, other) = (left_by(build), House::new());
        for id in ["plain", "granted", "closed"] {
            let ended = other.run(&["session", "import", &house.log_path(id).display().to_string()]);
            if ended.code == Some(0) {
                assert_eq!(fs::read(other.log_path(id)).ok(), fs::read(house.log_path(id)).ok(), "{build} {id}");
            } else {
                assert!(ended.err.contains("would lose"), "{build} {id}: {ended:?}");
                assert!(!other.log_path(id).exists(), "{build} {id}");
            }
        }
    }
}

#[test]
fn a_backup_of_an_earlier_workspace_is_that_workspace() {
    for build in EARLIER {
        let house = left_by(build);
        house.good(&["backup", "-o", "b.tar"]);
        house.good(&["restore", "b.tar", "--dir", "r"]);
        let fresh = House::empty();
        fs::rename(house.path("r"), fresh.path(".duragent")).expect("renamed");
        for (name, text) in logs(&fresh) {
            let truth = fs::read(house.path(&format!(".duragent/sessions/{name}"))).expect("readable");
            assert!(truth.starts_with(&text) && truth.len() - text.len() <= TORN.len(), "{build} {name}");
        }
    }
}
