//! What is wrong on a command line, or in what it names: exit code and text, and nothing on standard output.

use super::house::{HELLO, House};

#[test]
fn command_lines_that_cannot_be_understood() {
    let house = House::new(HELLO);
    for (args, said) in [
        (&["frobnicate"] as &[&str], "error: unknown command \"frobnicate\"\nhint: there are: "),
        (&["--bad"], "error: invalid option '--bad'\n"),
        (&["ls", "--bad"], "error: invalid option '--bad'\nhint: usage: duragent ls [--json]\n"),
        (&["ls", "extra"], "error: unexpected argument \"extra\"\nhint: usage: duragent ls [--json]\n"),
        (&["ls", "--json=yes"], "error: unexpected argument for option '--json': \"yes\"\nhint: usage: duragent ls "),
        (&["ps", "--agent"], "error: missing argument for option '--agent'\nhint: usage: duragent ps "),
        (&["ps", "--agent", "No/Body"], "error: --agent: expected an id matching "),
        (&["ps", "--status", "sad"], "error: --status: cannot read \"sad\"\nhint: expected idle, running, "),
        (&["session"], "error: expected a command for the session, found none\nhint: there are: show, log, "),
        (&["session", "--bad"], "error: invalid option '--bad'\nhint: usage: duragent session COMMAND "),
        (&["session", "paint"], "error: unknown command \"session paint\"\nhint: there are: show, log, "),
        (&["session", "show"], "error: expected a session, found none\nhint: usage: duragent session show SESSION"),
        (&["session", "show", "a", "b"], "error: unexpected argument \"b\"\nhint: usage: duragent session show "),
        (&["session", "log", "--bad"], "error: invalid option '--bad'\nhint: usage: duragent session log SESSION [-f]"),
        (&["session", "cancel"], "error: expected a session, found none\nhint: usage: duragent session cancel SESSION"),
        (&["session", "close"], "error: expected a session, found none\nhint: usage: duragent session close SESSION"),
        (&["session", "fork", "a", "--at", "x"], "error: --at: expected a whole number, found \"x\"\n"),
        (&["session", "fork", "a", "--at"], "error: missing argument for option '--at'\nhint: usage: "),
        (
            &["session", "verify"],
            "error: expected a session, found none\nhint: usage: duragent session verify SESSION|--all",
        ),
        (&["session", "verify", "--all", "a"], "error: unexpected argument \"a\"\n"),
        (&["session", "repair"], "error: expected a session, found none\n"),
        (&["session", "export", "-o"], "error: missing argument for option '-o'\n"),
        (&["session", "export"], "error: expected a session, found none\n"),
        (&["session", "import"], "error: expected a file, found none\nhint: usage: duragent session import FILE"),
        (&["session", "import", "x", "--id", "No"], "error: --id: expected an id matching "),
        (&["approve"], "error: expected a session, found none\nhint: usage: duragent approve SESSION"),
        (&["approve", "a", "b", "c"], "error: unexpected argument \"c\"\n"),
        (
            &["deny", "a", "--scope", "ever"],
            "error: --scope: cannot read \"ever\"\nhint: expected once, session or always\n",
        ),
        (&["doctor", "x"], "error: unexpected argument \"x\"\nhint: usage: duragent doctor [--json]\n"),
        (&["reload", "x"], "error: unexpected argument \"x\"\nhint: usage: duragent reload\n"),
        (&["completions"], "error: expected a shell, found none\nhint: expected bash, zsh or fish\n"),
        (&["completions", "csh"], "error: cannot write for \"csh\"\nhint: expected bash, zsh or fish\n"),
    ] {
        let error = house.bad(2, args);
        assert!(error.starts_with(said), "{args:?}: {error}");
    }
}

/// Every command that names a session, with `SESSION` for it.
const ON_SESSIONS: &[&[&str]] = &[
    &["session", "show", "SESSION"],
    &["session", "log", "SESSION"],
    &["session", "log", "-f", "SESSION"],
    &["session", "cancel", "SESSION"],
    &["session", "close", "SESSION"],
    &["session", "fork", "SESSION"],
    &["session", "verify", "SESSION"],
    &["session", "repair", "SESSION"],
    &["session", "export", "SESSION"],
    &["approve", "SESSION"],
    &["deny", "SESSION"],
];

fn named<'a>(args: &[&'a str], session: &'a str) -> Vec<&'a str> {
    args.iter().map(|arg| if *arg == "SESSION" { session } else { arg }).collect()
}

#[test]
fn sessions_that_are_not_there_or_not_clear() {
    let house = House::new(HELLO);
    house.session("twin-a", &[]);
    house.session("twin-b", &[]);
    for args in ON_SESSIONS {
        for missing in ["nobody", "../../etc", "", "TWIN-A"] {
            let error = house.bad(1, &named(args, missing));
            assert_eq!(error, format!("error: no session {missing:?}\nhint: see them with: duragent ps\n"), "{args:?}");
        }
        let error = house.bad(1, &named(args, "twin"));
        assert_eq!(error, "error: \"twin\" is not unique: twin-a, twin-b\nhint: type more of it\n", "{args:?}");
    }
}

#[test]
fn damaged_sessions_say_where_and_what_to_do() {
    let house = House::new(HELLO);
    house.session("bent", &["one"]);
    house.damage("bent", 3);
    let before = house.log("bent");
    for args in ON_SESSIONS.iter().filter(|args| !matches!(args[1], "show" | "repair")) {
        let error = house.bad(1, &named(args, "bent"));
        assert!(error.starts_with("error: sessions/bent/events.jsonl:3: expected seq 3 at byte "), "{args:?}: {error}");
        assert!(error.contains("\nhint: ") && error.contains("duragent session repair"), "{args:?}: {error}");
    }
    let out = house.good(&["session", "show", "bent"]);
    assert!(out.contains("status   damaged\ndamage   sessions/bent/events.jsonl:3: "), "{out}");
    assert_eq!(house.log("bent"), before);
}

#[test]
fn no_workspace() {
    let house = House::new(HELLO);
    let commands = [
        &["ls"] as &[&str],
        &["ps"],
        &["doctor"],
        &["reload"],
        &["check"],
        &["session", "import", "x"],
        &["session", "verify", "--all"],
    ];
    for args in commands.into_iter().chain(ON_SESSIONS.iter().copied()) {
        let mut all = vec!["--dir", "nowhere"];
        all.extend(args);
        let error = house.bad(3, &all);
        let hint = "hint: make one with: duragent init, or name one with --dir or DURAGENT_DIR\n";
        assert_eq!(error, format!("error: there is no workspace at nowhere\n{hint}"), "{args:?}");
    }
}

#[test]
fn files_that_cannot_be_read_or_written() {
    let house = House::new(HELLO);
    house.session("talk", &[]);
    let error = house.bad(1, &["session", "import", "nothing.jsonl"]);
    assert!(error.starts_with("error: cannot read nothing.jsonl: "), "{error}");
    let error = house.bad(1, &["session", "export", "talk", "-o", "nowhere/x.jsonl"]);
    assert!(error.starts_with("error: cannot write nowhere/x.jsonl: "), "{error}");
    let error = house.bad(1, &["session", "export", "talk", "-o", "."]);
    assert!(error.starts_with("error: cannot write .: "), "{error}");
}

#[test]
fn a_wrong_configuration_is_exit_code_3() {
    let house = House::new(HELLO);
    house.write(".duragent/duragent.yaml", "sandbox: {mode: trust}\nlimit: 1\n");
    for args in [&["ls"] as &[&str], &["ps"], &["session", "show", "x"], &["approve", "x"]] {
        let error = house.bad(3, args);
        assert!(
            error.starts_with("error: duragent.yaml:2:1: unknown key \"limit\"") && error.contains("\nhint: "),
            "{error}"
        );
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let house = House::new(HELLO);
    let messages: Vec<&str> = std::iter::repeat_n("again", 40).collect();
    house.session("long", &messages);
    for args in [&["session", "export", "long"] as &[&str], &["session", "log", "-f", "long"], &["ps"]] {
        let mut child = house.command(args).stdout(std::process::Stdio::piped()).spawn().expect("it starts");
        drop(child.stdout.take());
        assert_eq!(child.wait().expect("it ends").code(), Some(0), "{args:?}");
    }
}
