//! The file tools on real files. `bash` needs a guard and is tested from outside, in `tests/tools.rs`.

use super::NAMES;
use crate::tool::testing::Bench;
use duragent_core::event::Denied;
use duragent_core::json::ObjectWriter;
use duragent_platform::sandbox::Policy;
use std::os::unix::fs::symlink;
use std::time::Duration;

fn kind(outcome: &duragent_core::event::ToolOutcome) -> Option<&str> {
    outcome.denied.as_ref().map(|d| d.kind.as_str())
}

#[test]
fn every_tool_refuses_wrong_arguments_in_words() {
    let bench = Bench::new();
    for name in NAMES {
        for arguments in ["[]", "", "{\"nonsense\":1}", "{\"path\":7,\"command\":7,\"text\":7}"] {
            let outcome = bench.run(name, arguments);
            assert!(outcome.result.starts_with("wrong arguments: "), "{name} {arguments}: {}", outcome.result);
            assert!(outcome.result.contains("expected {\""), "{name} {arguments}: {}", outcome.result);
        }
    }
}

/// A file tool on `path`, with arguments that would work.
fn run_on(bench: &Bench, name: &str, path: &str) -> duragent_core::event::ToolOutcome {
    let mut arguments = String::new();
    let mut object = ObjectWriter::new(&mut arguments);
    object.str("path", path);
    match name {
        "write_file" => _ = object.str("content", "x"),
        "edit_file" => _ = object.str("old", "x").str("new", "y"),
        "search_files" => _ = object.str("text", "x"),
        _ => {}
    }
    object.finish();
    bench.run(name, &arguments)
}

#[test]
fn every_file_tool_says_what_is_in_the_way() {
    let bench = Bench::new();
    bench.write("file", "text");
    bench.write("dir/a", "text");
    let check = |name: &str, path: &str, expected: &str| {
        assert_eq!(run_on(&bench, name, path).result, expected, "{name} {path}");
    };
    let missing = "no such file or directory; list_dir shows what is there";
    check("read_file", "none", &format!("cannot read \"none\": {missing}"));
    check("edit_file", "none", &format!("cannot edit \"none\": {missing}"));
    check("list_dir", "none", &format!("cannot list \"none\": {missing}"));
    check("search_files", "none", &format!("cannot search \"none\": {missing}"));
    let directory = "it is a directory; list_dir shows what is in it";
    check("read_file", "dir", &format!("cannot read \"dir\": {directory}"));
    check("write_file", "dir", &format!("cannot write \"dir\": {directory}"));
    check("list_dir", "file", "\"file\" is not a directory; read_file reads files");
    check("read_file", "/dev/zero", "cannot read \"/dev/zero\": not a regular file");
    let part = "a part of the path that should be a directory is a file; list_dir shows what is there";
    check("write_file", "file/below", &format!("cannot write \"file/below\": {part}"));
}

#[test]
fn permission_and_space_are_refusals_with_a_kind() {
    use std::io::{Error, ErrorKind};
    for (error, expected) in [
        (ErrorKind::PermissionDenied, Some("fs")),
        (ErrorKind::ReadOnlyFilesystem, Some("fs")),
        (ErrorKind::StorageFull, Some("limit")),
        (ErrorKind::QuotaExceeded, Some("limit")),
        (ErrorKind::NotFound, None),
        (ErrorKind::Other, None),
    ] {
        assert_eq!(kind(&super::trouble("read", "a", &Error::from(error))), expected, "{error:?}");
    }
}

/// A working directory with a way out, under a policy, and what its paths are.
fn confined() -> (Bench, String, String) {
    let mut bench = Bench::new();
    bench.write("file", "x");
    bench.write(".git/hooks/pre-commit", "x");
    bench.write("../outside/file", "x");
    symlink("../outside/file", bench.path("link")).unwrap();
    let work = bench.path("").canonicalize().unwrap();
    let outside = work.parent().unwrap().join("outside/file");
    bench.policy = Some(Policy { hidden: vec![work.join(".duragent"), work.join("hidden")], ..Policy::default() });
    (bench, work.to_str().unwrap().to_owned(), outside.to_str().unwrap().to_owned())
}

#[test]
fn every_file_tool_is_held_to_the_policy_and_says_what_is_allowed() {
    let (mut bench, work, outside) = confined();
    let artifacts = bench.artifacts();
    let write = format!(
        "the sandbox allows changes only below {work}; use a path there, or ask the user to add it to sandbox.write"
    );
    let read = format!(
        "the sandbox allows reading only below {work}, {}, and in the system's own directories; use a path there, or ask \
         the user to add it to sandbox.read",
        artifacts.display()
    );
    let up = "../outside/file";
    let runtime = "this belongs to the runtime and is never opened from inside the sandbox; ask the user";
    let hooks = "this is run or read outside the sandbox and is never changed from inside; ask the user to change it";
    let hook = &format!("{work}/.git/hooks/pre-commit");
    let config = &format!("{work}/.duragent/duragent.yaml");
    for (name, path, verb, what, hint) in [
        ("write_file", outside.as_str(), "write", &outside, write.as_str()),
        ("write_file", up, "write", &outside, &write),
        ("write_file", "link", "write", &outside, &write),
        ("write_file", ".git/hooks/pre-commit", "write", hook, hooks),
        ("write_file", ".duragent/duragent.yaml", "write", config, runtime),
        ("edit_file", "link", "edit", &outside, &read),
        ("edit_file", ".git/hooks/pre-commit", "write", hook, hooks),
        ("read_file", up, "read", &outside, &read),
        ("read_file", "link", "read", &outside, &read),
        ("read_file", ".duragent/duragent.yaml", "read", config, runtime),
        ("list_dir", up, "list", &outside, &read),
        ("search_files", up, "search", &outside, &read),
    ] {
        let outcome = run_on(&bench, name, path);
        let which = if what.ends_with(path) { String::new() } else { format!(", which is {what:?}") };
        assert_eq!(outcome.result, format!("cannot {verb} {path:?}{which}: {hint}"), "{name} {path}");
        let denied = Denied { kind: "fs".into(), what: what.clone(), hint: hint.into() };
        assert_eq!(outcome.denied, Some(denied), "{name} {path}");
    }
    assert_eq!(bench.read("../outside/file"), "x");
    for name in ["read_file", "edit_file", "write_file", "list_dir", "search_files"] {
        let path = if name == "list_dir" { "." } else { "file" };
        bench.call_id.push('x');
        bench.write("file", "x");
        assert_eq!(kind(&run_on(&bench, name, path)), None, "{name}");
    }
    // Control: what refuses is the policy.
    bench.policy = None;
    bench.check("read_file", r#"{"path":"link"}"#, "x");
    bench.check("write_file", r#"{"path":"link","content":"y"}"#, "wrote 1 bytes to link");
    assert_eq!(bench.read("../outside/file"), "y");
}

#[test]
fn search_files_passes_over_what_the_policy_hides() {
    let (mut bench, ..) = confined();
    bench.write("hidden/file", "needle");
    bench.write("seen/file", "needle");
    let arguments = r#"{"text":"needle"}"#;
    let note = "\n[1 files or directories could not be read]";
    bench.check("search_files", arguments, &format!("seen/file:1: needle\n{note}"));
    bench.policy = None;
    bench.check("search_files", arguments, "hidden/file:1: needle\nseen/file:1: needle\n");
}

#[test]
fn read_file_gives_the_text_or_some_lines() {
    let bench = Bench::new();
    bench.write("a", "one\ntwo\nthree");
    bench.write("empty", "");
    bench.write("blank", "\n\n");
    let check = |arguments: &str, expected: &str| bench.check("read_file", arguments, expected);
    check(r#"{"path":"a"}"#, "one\ntwo\nthree");
    check(r#"{"path":"a","offset":2}"#, "two\nthree");
    check(r#"{"path":"a","offset":0,"limit":99}"#, "one\ntwo\nthree");
    check(r#"{"path":"a","limit":1}"#, "one\n\n[the file of 13 bytes goes on; continue with offset 2]");
    check(r#"{"path":"a","offset":2,"limit":1}"#, "two\n\n[the file of 13 bytes goes on; continue with offset 3]");
    check(r#"{"path":"a","offset":3,"limit":1}"#, "three");
    check(r#"{"path":"a","offset":4}"#, "\"a\" ends at line 3; offset 4 is behind that");
    check(r#"{"path":"a","limit":0}"#, "\n[the file of 13 bytes goes on; continue with offset 1]");
    check(r#"{"path":"empty"}"#, "[the file is empty]");
    check(r#"{"path":"blank"}"#, "\n\n");
    check(r#"{"path":"blank","offset":3}"#, "\"blank\" ends at line 2; offset 3 is behind that");
}

#[test]
fn read_file_cuts_at_lines_and_can_be_continued_without_a_gap() {
    let mut bench = Bench::new();
    let whole: String = (1..=2000).map(|i| format!("line {i} ä\n")).collect();
    bench.write("a", &whole);
    bench.output_bytes_max = 1000;
    let (mut offset, mut collected, mut calls) = (1, String::new(), 0);
    loop {
        let outcome = bench.run("read_file", &format!("{{\"path\":\"a\",\"offset\":{offset}}}"));
        calls += 1;
        match outcome.result.split_once("\n[the file of ") {
            Some((lines, note)) => {
                assert!(outcome.truncated && lines.len() <= 1000, "{lines}");
                collected.push_str(lines);
                offset = note.rsplit(' ').next().unwrap().trim_end_matches(']').parse().unwrap();
            }
            None => {
                assert!(!outcome.truncated);
                collected.push_str(&outcome.result);
                break;
            }
        }
    }
    assert_eq!(collected, whole);
    assert!(calls > 20, "{calls} calls");
}

#[test]
fn read_file_says_binary_long_lines_and_what_is_not_utf8() {
    let mut bench = Bench::new();
    bench.write("binary", b"\x7fELF\0\0");
    bench.write("latin1", b"f\xfcr");
    bench.write("long", "ä".repeat(100) + "\nnext\n");
    bench.check(
        "read_file",
        r#"{"path":"binary"}"#,
        "\"binary\" is a binary file of 6 bytes; bash can look into it (file, xxd, strings)",
    );
    bench.check("read_file", r#"{"path":"latin1"}"#, "f\u{fffd}r");
    bench.output_bytes_max = 11;
    bench.check(
        "read_file",
        r#"{"path":"long"}"#,
        "äääää\n[line 1 is longer than 11 bytes and was cut; bash can show the rest]\n[the file of 206 bytes goes on; continue with offset 2]",
    );
    bench.check("read_file", r#"{"path":"long","offset":2}"#, "next\n");
}

#[test]
fn a_huge_file_is_streamed_and_a_deadline_ends_that() {
    let mut bench = Bench::new();
    // Some lines, and then a hole of a terabyte: reading that would take minutes, and keeping it all memory.
    let text = "0123456789abcde\n".repeat(2 * 1024);
    bench.write("huge", &text);
    let file = std::fs::OpenOptions::new().write(true).open(bench.path("huge")).unwrap();
    file.set_len(1 << 40).unwrap();
    drop(file);
    let outcome = bench.run("read_file", r#"{"path":"huge","limit":2}"#);
    let note = "[the file of 1099511627776 bytes goes on; continue with offset 3]";
    assert_eq!(outcome.result, format!("0123456789abcde\n0123456789abcde\n\n{note}"));

    bench.deadline = Duration::from_millis(50);
    let outcome = bench.run("read_file", r#"{"path":"huge","offset":999999999}"#);
    assert_eq!((kind(&outcome), outcome.truncated), (Some("timeout"), true));
    assert_eq!(outcome.result, "[stopped at the deadline of 1 s]");
    bench.deadline = Duration::from_secs(600);
    bench.cancel.raise();
    bench.check("read_file", r#"{"path":"huge","offset":999999999}"#, "[cancelled]");
}

#[test]
fn write_file_writes_whole_files_and_twice_is_the_same() {
    let bench = Bench::new();
    for _ in 0..2 {
        bench.check("write_file", r#"{"path":"new/a.txt","content":"tö\u0000\n"}"#, "wrote 5 bytes to new/a.txt");
        assert_eq!(bench.read("new/a.txt"), "tö\0\n");
    }
    bench.check("write_file", r#"{"path":"new/a.txt","content":""}"#, "wrote 0 bytes to new/a.txt");
    assert_eq!(bench.read("new/a.txt"), "");
    assert_eq!(bench.names(&bench.path("new")), ["a.txt"]);
}

#[test]
fn edit_file_replaces_exactly_what_it_was_told() {
    let mut bench = Bench::new();
    let mut edit = |before: &str, arguments: &str, result: &str, after: &str| {
        bench.write("a", before);
        bench.call_id.push('x');
        bench.check("edit_file", arguments, result);
        assert_eq!(bench.read("a"), after, "{arguments}");
    };
    edit("one two", r#"{"path":"a","old":"two","new":"three"}"#, "replaced 1 place in a", "one three");
    edit("one two", r#"{"path":"a","old":" two","new":""}"#, "replaced 1 place in a", "one");
    edit("aXbX", r#"{"path":"a","old":"X","new":"XX","all":true}"#, "replaced 2 places in a", "aXXbXX");
    edit(
        "x\ny\nx\n",
        r#"{"path":"a","old":"x","new":"z"}"#,
        "old was found 2 times in \"a\" (lines 1, 3); make it longer until it is unique, or set all",
        "x\ny\nx\n",
    );
    let twenty = "x\n".repeat(20);
    edit(
        &twenty,
        r#"{"path":"a","old":"x","new":"z"}"#,
        "old was found 20 times in \"a\" (lines 1, 2, 3, 4, 5, 6, 7, 8, …); make it longer until it is unique, or set all",
        &twenty,
    );
    edit(
        "one",
        r#"{"path":"a","old":"two","new":"three"}"#,
        "old was not found in \"a\"; it must match exactly, with white space and line ends: read_file shows the file",
        "one",
    );
    edit("a", r#"{"path":"a","old":"","new":"b"}"#, "wrong arguments: old is empty; write_file makes new files", "a");
    edit("a", r#"{"path":"a","old":"a","new":"a"}"#, "wrong arguments: old and new are the same", "a");
}

#[test]
fn edit_file_refuses_what_is_no_text_or_too_large() {
    let bench = Bench::new();
    bench.write("latin1", b"f\xfcr");
    let arguments = r#"{"path":"latin1","old":"f","new":"g"}"#;
    bench.check("edit_file", arguments, "\"latin1\" is not UTF-8 text; edit it with bash (sed)");
    bench.write("large", vec![b'a'; 4 * 1024 * 1024 + 1]);
    let outcome = bench.run("edit_file", r#"{"path":"large","old":"f","new":"g"}"#);
    assert_eq!(outcome.result, "\"large\" has more than 4194304 bytes; edit it with bash (sed)");
    assert_eq!(kind(&outcome), Some("limit"));
}

/// The edits that are not idempotent by themselves: what is new holds what was old, or is nothing.
const TREACHEROUS: [(&str, &str, &str); 3] = [
    ("a b", r#"{"path":"f","old":"a","new":"aa"}"#, "aa b"),
    ("a b", r#"{"path":"f","old":"a ","new":""}"#, "b"),
    ("a b a", r#"{"path":"f","old":"a","new":"ba","all":true}"#, "ba b ba"),
];

#[test]
fn an_edit_that_runs_again_after_a_crash_ends_in_the_same_state() {
    for (before, arguments, after) in TREACHEROUS {
        let bench = Bench::new();
        bench.write("f", before);
        let first = bench.run("edit_file", arguments);
        assert_eq!(bench.read("f"), after);
        // The process died after the file was replaced, and before the result was logged.
        assert_eq!(bench.run("edit_file", arguments), first, "{arguments}");
        assert_eq!(bench.read("f"), after, "{arguments}");
        // The process died after the intent was durable, and before the file was replaced.
        bench.write("f", before);
        assert_eq!(bench.run("edit_file", arguments), first, "{arguments}");
        assert_eq!(bench.read("f"), after, "{arguments}");
    }
}

#[test]
fn without_its_intent_an_edit_that_runs_again_does_harm_or_fails() {
    for (before, arguments, after) in TREACHEROUS {
        let bench = Bench::new();
        bench.write("f", before);
        let first = bench.run("edit_file", arguments);
        std::fs::remove_file(bench.artifacts().join("edits.jsonl")).unwrap();
        let second = bench.run("edit_file", arguments);
        assert!(second != first || bench.read("f") != after, "the intents are not needed: {arguments}");
    }
}

#[test]
fn an_interrupted_edit_keeps_off_a_file_that_somebody_else_changed() {
    let bench = Bench::new();
    let (before, arguments, _) = TREACHEROUS[0];
    bench.write("f", before);
    bench.run("edit_file", arguments);
    bench.write("f", "a third thing with a");
    let result = bench.run("edit_file", arguments).result;
    assert!(result.starts_with("\"f\" was changed by something else while this edit was interrupted"), "{result}");
    assert_eq!(bench.read("f"), "a third thing with a");
}

#[test]
fn another_call_with_the_same_arguments_is_another_edit() {
    let mut bench = Bench::new();
    bench.write("f", "a b");
    for expected in ["aa b", "aaaa b"] {
        bench.call_id.push('x');
        bench.check(
            "edit_file",
            r#"{"path":"f","old":"a","new":"aa","all":true}"#,
            &format!("replaced {} place{} in f", expected.len() / 2 - 1, if expected.len() > 4 { "s" } else { "" }),
        );
        assert_eq!(bench.read("f"), expected);
    }
}

#[test]
fn intents_are_bounded_and_survive_damage() {
    let mut bench = Bench::new();
    bench.write("f", "0");
    for i in 0..100 {
        bench.call_id = format!("call_{i}");
        bench.run("edit_file", &format!("{{\"path\":\"f\",\"old\":\"{i}\",\"new\":\"{}\"}}", i + 1));
    }
    assert_eq!(bench.read("f"), "100");
    let file = bench.artifacts().join("edits.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    let intents = text.lines().filter(|line| !line.is_empty()).count();
    assert!((32..=64).contains(&intents), "{intents}");
    // The last one still counts when lines around it are spoiled.
    std::fs::write(&file, format!("nonsense\n{{\"call\":1}}\n{text}{{")).unwrap();
    bench.check("edit_file", r#"{"path":"f","old":"99","new":"100"}"#, "replaced 1 place in f");
    assert_eq!(bench.read("f"), "100");
    // So does one that is noted behind half a line.
    bench.call_id = "call_100".to_owned();
    let edit = r#"{"path":"f","old":"100","new":"x100"}"#;
    bench.check("edit_file", edit, "replaced 1 place in f");
    bench.check("edit_file", edit, "replaced 1 place in f");
    assert_eq!(bench.read("f"), "x100");
}

#[test]
fn an_edit_whose_intent_cannot_be_kept_does_not_happen() {
    let bench = Bench::new();
    bench.write("f", "a");
    std::fs::write(bench.artifacts(), "in the way").unwrap();
    let result = bench.run("edit_file", r#"{"path":"f","old":"a","new":"b"}"#).result;
    assert!(result.starts_with("cannot "), "{result}");
    assert_eq!(bench.read("f"), "a");
}

#[test]
fn list_dir_is_sorted_and_says_what_things_are() {
    let mut bench = Bench::new();
    bench.check("list_dir", "{}", "[the directory is empty]");
    bench.write("b.txt", "12345");
    bench.write("a/c", "");
    bench.write("with\nnewline", "");
    symlink("nowhere", bench.path("link")).unwrap();
    bench.check("list_dir", "{}", "\"with\\nnewline\" 0\na/\nb.txt 5\nlink@\n");
    bench.check("list_dir", r#"{"path":"a"}"#, "c 0\n");
    bench.check("list_dir", r#"{"path":null}"#, "\"with\\nnewline\" 0\na/\nb.txt 5\nlink@\n");
    bench.output_bytes_max = 30;
    let outcome = bench.run("list_dir", "{}");
    assert_eq!(outcome.result, "\"with\\nnewline\" 0\na/\nb.txt 5\n[3 of 4 entries; bash can show the rest]");
    assert!(outcome.truncated);
    bench.deadline = Duration::ZERO;
    assert_eq!(kind(&bench.run("list_dir", "{}")), Some("timeout"));
}

#[test]
fn list_dir_reads_so_many_entries_and_no_more() {
    let mut bench = Bench::new();
    for i in 0..10_001 {
        bench.write(&format!("many/{i}"), "");
    }
    bench.output_bytes_max = 1024 * 1024;
    let outcome = bench.run("list_dir", r#"{"path":"many"}"#);
    assert!(outcome.truncated);
    assert!(outcome.result.ends_with("[10000 of more than 10000 entries; bash can show the rest]"));
}

/// A tree with one match in every place that is searched, and one in every place that is not.
fn tree() -> Bench {
    let bench = Bench::new();
    bench.write("a.txt", "nothing\n  the Needle is here \nneedle\n");
    bench.write("src/b.rs", "Needle\r\n");
    bench.write("src/deep/c.rs", format!("{}Needle", "x".repeat(300)));
    bench.write("src/no_end", "Needle");
    bench.write("latin1", b"\xfc Needle");
    bench.write("binary", b"Needle\0");
    bench.write(".git/config", "Needle");
    bench.write("src/.duragent/x", "Needle");
    bench.write("../outside/d", "Needle");
    symlink("../outside", bench.path("link")).unwrap();
    symlink("a.txt", bench.path("filelink")).unwrap();
    symlink("..", bench.path("src/loop")).unwrap();
    bench
}

#[test]
fn search_files_finds_lines_and_skips_what_is_not_text() {
    let mut bench = tree();
    let deep = format!("src/deep/c.rs:1: {}…\n", "x".repeat(200));
    let check = |arguments: &str, expected: &str| bench.check("search_files", arguments, expected);
    check(
        r#"{"text":"Needle"}"#,
        &format!(
            "a.txt:2: the Needle is here\nlatin1:1: \u{fffd} Needle\nsrc/b.rs:1: Needle\n{deep}src/no_end:1: Needle\n"
        ),
    );
    check(r#"{"text":"Needle","name":"*.rs"}"#, &format!("src/b.rs:1: Needle\n{deep}"));
    check(r#"{"text":"Needle","path":"src/deep"}"#, &deep);
    check(r#"{"text":"needle","path":"a.txt"}"#, "a.txt:3: needle\n");
    check(r#"{"text":"haystack"}"#, "[nothing found]");
    check(r#"{"text":""}"#, "wrong arguments: text is to be one line that is not empty");
    check(r#"{"text":"a\nb"}"#, "wrong arguments: text is to be one line that is not empty");
    bench.deadline = Duration::ZERO;
    let outcome = bench.run("search_files", r#"{"text":"Needle"}"#);
    assert_eq!((kind(&outcome), outcome.truncated), (Some("timeout"), true));
    bench.cancel.raise();
    bench.check("search_files", r#"{"text":"Needle"}"#, "[cancelled]");
}

#[test]
fn search_files_stops_at_its_limits_and_says_so() {
    let mut bench = Bench::new();
    bench.write("many", "x\n".repeat(1000));
    let outcome = bench.run("search_files", r#"{"text":"x"}"#);
    assert_eq!(outcome.result.lines().count(), 201);
    assert!(outcome.truncated && outcome.result.ends_with("\n[stopped after 200 lines; narrow it with path or name]"));
    bench.output_bytes_max = 25;
    let outcome = bench.run("search_files", r#"{"text":"x"}"#);
    assert_eq!(outcome.result, "many:1: x\nmany:2: x\n[stopped after 25 bytes of output; narrow it with path or name]");
    bench.output_bytes_max = 16 * 1024;
    let deep = "d/".repeat(40) + "file";
    bench.write(&deep, "needle");
    bench.check("search_files", r#"{"text":"needle"}"#, "[nothing found]");
    // A line is searched up to 64 KiB, and what follows it is found at the right number.
    bench.write("long", "y".repeat(70_000) + "needle\nneedle\n");
    bench.check("search_files", r#"{"text":"needle","path":"long"}"#, "long:2: needle\n");
}

#[test]
fn a_text_is_found_wherever_the_reader_cuts() {
    let bench = Bench::new();
    for before in [0, 1, 16 * 1024 - 7, 16 * 1024 - 3, 16 * 1024 - 1, 16 * 1024, 64 * 1024 - 6] {
        bench.write("f", "\u{20}".repeat(before) + "needle");
        bench.check("search_files", r#"{"text":"needle"}"#, "f:1: needle\n");
    }
}
