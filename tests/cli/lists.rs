//! `ls` and `ps`.

use super::house::{HELLO, House, agent};
use duragent_core::json::{self, Value};

#[test]
fn agents_are_listed_and_a_broken_one_says_why() {
    let house = House::new(HELLO);
    house.write(".duragent/agents/sad/agent.yaml", &agent("sad", "nowhere"));
    let out = house.good(&["ls"]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "AGENT  MODEL   TOOLS  DESCRIPTION");
    assert_eq!(lines[1], "bot    tape/m  1      Says what it is told");
    assert!(lines[2].starts_with("sad    -       -      broken: ") && lines[2].contains("nowhere"), "{out}");

    let json = json::parse(&house.good(&["ls", "--json"])).expect("JSON");
    let Some(Value::Array(agents)) = json.get("agents") else { panic!("{json}") };
    assert_eq!(agents.len(), 2);
    assert_eq!(agents[0].get("error"), None);
    assert!(agents[1].get("error").and_then(Value::as_str).is_some());
}

#[test]
fn empty_lists_say_what_to_do_next() {
    let house = House::new(HELLO);
    std::fs::remove_dir_all(house.dir().join("agents")).expect("it is there");
    for (args, said) in [
        (&["ls"] as &[&str], "no agents yet; make one with: duragent init"),
        (&["ps"], "no sessions yet; begin one with: duragent run"),
        (&["ps", "--status", "idle"], "no session matches; see them all with: duragent ps"),
    ] {
        let ended = house.run(args);
        assert_eq!((ended.code, ended.out.as_str()), (Some(0), ""), "{args:?}");
        assert!(ended.err.starts_with(said), "{args:?}: {}", ended.err);
    }
    assert_eq!(house.good(&["ps", "--json"]), "{\"sessions\":[]}\n");
    assert_eq!(house.good(&["ls", "--json"]), "{\"agents\":[]}\n");
}

#[test]
fn sessions_are_listed_newest_first_with_what_is_wrong_with_them() {
    let house = House::new(HELLO);
    house.session("older", &["one", "two"]);
    house.session("bent", &["one"]);
    house.session("newer", &[]);
    house.damage("bent", 2);
    let out = house.good(&["ps"]);
    let words: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["SESSION", "AGENT", "STATUS", "TURNS", "LAST", "CONTEXT", "TITLE"]);
    assert_eq!((words[1][0], words[1][2], words[1][3]), ("newer", "idle", "0"));
    assert!(out.contains("bent") && out.contains("damaged"), "{out}");
    let older = words.iter().find(|line| line[0] == "older").expect("it is listed");
    assert_eq!((older[1], older[2], older[3]), ("bot", "idle", "2"));
    assert_eq!(older[older.len() - 3..], ["10", "about", "older"]);

    let listed = |args: &[&str]| -> Vec<String> {
        let json = json::parse(&house.good(args)).expect("JSON");
        let Some(Value::Array(sessions)) = json.get("sessions") else { panic!("{json}") };
        sessions.iter().map(|s| s.get("id").and_then(Value::as_str).expect("an id").to_owned()).collect()
    };
    assert_eq!(listed(&["ps", "--json", "--status", "damaged"]), ["bent"]);
    assert_eq!(listed(&["ps", "--json", "--agent", "bot", "--status", "idle"]), ["newer", "older"]);
    assert_eq!(listed(&["ps", "--json", "--agent", "nobody"]), [""; 0]);

    // A server says the same.
    let server = house.serve();
    assert_eq!(listed(&["ps", "--json", "--status", "idle"]), ["newer", "older"]);
    server.stop();
}
