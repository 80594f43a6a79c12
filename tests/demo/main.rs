//! `duragent demo` as a newcomer meets it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("duragent-demo-test-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&path).ok();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn demo(folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duragent"));
    command.arg("demo").arg("--dir").arg(folder).env_remove("DURAGENT_DIR");
    command.stdin(Stdio::null()).output().expect("the binary starts")
}

#[test]
fn the_story_is_told_and_true() {
    let folder = Folder::new("story");
    let output = demo(&folder.0);
    let out = String::from_utf8(output.stdout).expect("UTF-8");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), err.as_ref()), (Some(0), ""), "{out}");

    // In this order, whatever the columns.
    let story = out.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let mut rest = story.as_str();
    for part in [
        "1. A workspace, and a server",
        "session_created",
        "message_received",
        "tool_started bash: sh pump.sh (effect: once)",
        "3. The tool is at work: kill -9",
        "pump on, switched by processes",
        "signal: 9",
        "its processes are gone too",
        "4. What is on disk now",
        "events.jsonl (6 lines",
        r#""type":"tool_started""#,
        "5. The server starts again",
        "session_recovered",
        "tool_interrupted",
        "tool_started read_file: pump.log (effect: pure)",
        "I did not switch it twice.",
        "turn_finished completed",
        "one line: the tool ran once",
        "no gap, every checksum right",
        "server stopped",
        "Look at",
        "duragent init",
    ] {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} is missing, or too early, in:\n{out}"));
        rest = &rest[at + part.len()..];
    }
    assert!(!out.contains('\u{1b}'), "no colour off a terminal");
    let long =
        out.lines().find(|line| line.chars().count() > 100 && !line.contains(" --dir ") && !line.contains("init"));
    assert_eq!(long, None);

    let log = std::fs::read_to_string(folder.0.join("pump.log")).expect("pump.log is kept");
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(!folder.0.join(".duragent/duragent.sock").exists(), "the server is gone");
}

#[test]
fn a_workspace_that_exists_is_left_alone() {
    let folder = Folder::new("taken");
    std::fs::create_dir_all(folder.0.join(".duragent")).expect("a folder");
    let output = demo(&folder.0);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), b"".as_slice()));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("there is a workspace in") && err.contains("hint: "), "{err}");
    assert_eq!(std::fs::read_dir(folder.0.join(".duragent")).expect("it is there").count(), 0);
}
