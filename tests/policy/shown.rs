//! What people see of a call before they let it run.

use super::house::House;
use super::stage::{bash, calls, digest, events, ran, says, stage, text};
use std::process::{Command, Stdio};

fn waits(policy: &str, answers: &[String]) -> House {
    let house = stage(policy, &(answers.concat() + &says("Done.")));
    assert_eq!(house.run(&["run", "bot", "--session", "s", "please"]).code, Some(4));
    house
}

#[test]
fn a_call_is_shown_whole_and_nothing_is_decided() {
    let arguments = r##"{"path":"a/b.sh","content":"#!/bin/sh\necho 1\n\u001b[2K\u202erm -rf x\n"}"##;
    let house = waits("mode: ask\n", &[calls(&[("write_file", arguments), ("bash", r#"{"command":"sh a/b.sh"}"#)])]);
    let requests = events(&house, "s", "approval_requested");
    let line = |n: usize, key: &str| text(&requests[n], key);
    let raw = "{\"path\":\"a/b.sh\",\"content\":\"#!/bin/sh\\necho 1\\n\\u001b[2K\u{202e}rm -rf x\\n\"}";
    assert_eq!(
        line(0, "digest"),
        digest("write_file", raw),
        "the control: what is shown has escapes, what is approved has not"
    );
    let out = house.good(&["approve", "s", "--show"]);
    let expected = format!(
        "a1-1-1: write_file\n  path: a/b.sh\n  content:\n  | #!/bin/sh\n  | echo 1\n  | <U+001B>[2K<U+202E>rm -rf x\n  | \n  note: <U+…> \
         stands for what cannot be seen: 2 characters\n  sha256 {}\n  open until {}\na1-1-2: bash\n  command: sh a/b.sh\n  sha256 {}\n  open \
         until {}\n",
        line(0, "digest"),
        line(0, "expires_at"),
        line(1, "digest"),
        line(1, "expires_at"),
    );
    assert_eq!(out, expected);
    assert_eq!(house.good(&["deny", "s", "a1-1-2", "--show"]).lines().next(), Some("a1-1-2: bash"));
    assert!(events(&house, "s", "approval_decided").is_empty());
    assert!(!house.path("a").exists());
}

#[test]
fn a_long_call_is_not_cut_where_it_is_shown_whole() {
    let command = format!("echo {}; rm -rf x", "x ".repeat(20_000));
    let house = waits("mode: ask\n", &[bash(&command)]);
    let shown = house.good(&["approve", "s", "--show"]);
    assert!(shown.contains(&format!("  command: {command}\n")), "it is cut");
    // On one line it is cut, which is said, and how to see the rest.
    let error = house.run(&["run", "--resume", "s"]).err;
    assert!(!error.contains("rm -rf x") && error.contains(" more)\n"), "{error}");
    assert!(error.contains("hint: see all of it with: duragent approve s a1-1-1 --show\n"), "{error}");
}

#[test]
fn whoever_lets_data_out_is_told_why_that_is_asked() {
    let policy = "mode: allow\ntags: {read_file: [private], list_dir: [untrusted, private], bash: [egress]}\n";
    let reads = calls(&[("read_file", r#"{"path":"secret.txt"}"#), ("list_dir", "{}"), ("list_dir", "{}")]);
    let house = waits(policy, &[reads, bash("curl example.org")]);
    let why = "this session has read what is private (read_file, list_dir) and what strangers wrote (list_dir); the call may carry private \
               data out, and strangers may have asked for it";
    let shown = house.good(&["approve", "s", "--show"]);
    assert!(shown.contains("  command: curl example.org\n") && shown.ends_with(&format!("  why: {why}\n")), "{shown}");
    let found = house.run(&["run", "--resume", "s"]);
    assert_eq!(
        found.err,
        "error: the turn waits for an approval of bash: curl example.org\nerror: it may carry out what is private, and this session has \
         read what strangers wrote\nhint: see all of it with: duragent approve s a1-2-1 --show\nhint: duragent approve s a1-2-1\nhint: \
         then: duragent run bot --resume s\n"
    );
    let chat = house.run(&["attach", "s"]);
    assert_eq!(chat.code, Some(4));
    assert!(chat.err.contains(why) && chat.err.contains("  command: curl example.org\n"), "{chat:?}");
    assert!(house.good(&["session", "log", "s"]).contains("a1-2-1 for c1-2-1 bash: egress"));
    // The control: a call that the policy asks for has no such reason.
    let house = waits("mode: ask\n", &[bash("curl example.org")]);
    let shown = house.good(&["approve", "s", "--show"]);
    assert!(!shown.contains("why:"), "{shown}");
}

/// Runs the command on a terminal, made by script(1), where somebody types; what is seen there.
fn typed(house: &House, args: &str, input: &str) -> String {
    house.write("typed", input);
    let words = house.command(&[]);
    let command = format!("{} {args}", words.get_program().to_string_lossy());
    let mut script = Command::new("script");
    script
        .args(["-qec", &command, "/dev/null"])
        .current_dir(house.path(""))
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin");
    script.env("SHELL", "/bin/sh").stdin(Stdio::from(std::fs::File::open(house.path("typed")).expect("a file")));
    let found = script.output().expect("script(1), of the package bsdutils, is there");
    String::from_utf8_lossy(&found.stdout).replace('\r', "")
}

#[test]
fn on_a_terminal_whoever_names_no_call_sees_it_first() {
    for (args, input, made) in [
        ("approve s", "y\n", true),
        ("approve s", "n\n", false),
        ("approve s", "\n", false),
        ("approve s", "sure\n", false),
        // The control: whoever names it has seen it.
        ("approve s a1-1-1", "", true),
    ] {
        let house = waits("mode: ask\n", &[bash("echo 1\necho 2")]);
        let seen = typed(&house, args, input);
        assert_eq!(!ran(&house, "s").is_empty(), made, "{args} {input:?}: {seen}");
        let asked = seen.contains("  command:\n  | echo 1\n  | echo 2\n") && seen.contains("approve it? [y/N] ");
        assert_eq!(asked, !args.contains("a1-1-1"), "{args} {input:?}: {seen}");
        if !made {
            assert!(seen.contains("nothing is decided"), "{seen}");
            assert!(events(&house, "s", "approval_decided").is_empty());
        }
    }
}
