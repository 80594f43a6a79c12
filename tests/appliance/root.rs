//! A root that is read-only, with one directory that is not: the workspace's.

use crate::house::{House, require};
use crate::mounts::{disk, read_only};
use std::fs;
use std::process::{Command, Output};

const TAPE: &str = concat!(
    r#"{"tool_calls":[{"name":"bash","arguments":{"command":"echo x > d/out && echo y > /tmp/y && mktemp && seq 1 9999"}}]}"#,
    "\n",
    r#"{"deltas":["Done."]}"#,
    "\n",
);

fn run(house: &House, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duragent"));
    command.args(args).current_dir(&house.root).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.output().expect("it starts")
}

fn good(house: &House, args: &[&str]) -> String {
    let output = run(house, args);
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{args:?}: {text:?}");
    text.concat()
}

#[test]
fn a_workspace_is_all_that_has_to_be_writable() {
    require("bwrap", "bubblewrap");
    read_only("root::a_workspace_is_all_that_has_to_be_writable", 16_384, || {
        // The control: nothing else is.
        for place in ["/tmp", "/var/tmp", "/run", "/root", "/", env!("CARGO_TARGET_TMPDIR")] {
            let probe = fs::File::create(std::path::Path::new(place).join("probe"));
            let error = probe.expect_err(place);
            assert!(
                matches!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::NotFound),
                "{place}: {error}"
            );
        }
        assert!(disk().join("probe").to_str().is_some_and(|probe| fs::write(probe, "").is_ok()));
        for mode in ["{mode: auto, enforcement: partial}", "{mode: landlock, enforcement: partial}", "{mode: trust}"] {
            let house = House::new(&format!("sandbox: {mode}"));
            house.write("agents/hello/tape.jsonl", if mode.contains("auto") { TAPE } else { TAPE_OF_OTHERS });
            fs::create_dir(house.root.join("d")).expect("a directory to work in");
            let told = good(&house, &["check"]);
            assert!(told.contains("configuration ok"), "{told}");
            let told = good(&house, &["doctor"]);
            assert!(!told.contains("FAIL"), "{told}");
            let told = good(&house, &["run", "hello", "go"]);
            assert!(told.contains("Done."), "{told}");
            let id = fs::read_dir(house.dir().join("sessions")).expect("a directory").flatten().next().expect("one");
            let trace = fs::read_to_string(id.path().join("events.jsonl")).expect("a log");
            let out = fs::read_to_string(house.root.join("d/out")).unwrap_or_default();
            assert_eq!(out, "x\n", "{mode}: {trace}");
            fs::remove_file(house.root.join("d/out")).expect("it goes");
            let server = house.serve(&[]);
            server.session("a", "hello");
            assert_eq!(server.turn("a"), "completed");
            assert_eq!(fs::read_to_string(house.root.join("d/out")).expect("the call wrote it"), "x\n", "{mode}");
            server.stop();
            let left: Vec<_> =
                fs::read_dir(&house.root).expect("a directory").flatten().map(|e| e.file_name()).collect();
            assert_eq!(left.len(), 2, "nothing is left beside the workspace and the directory: {left:?}");
        }
    });
}

/// Without a `/tmp` of their own, which only bubblewrap makes.
const TAPE_OF_OTHERS: &str = concat!(
    r#"{"tool_calls":[{"name":"bash","arguments":{"command":"echo x > d/out && seq 1 9999"}}]}"#,
    "\n",
    r#"{"deltas":["Done."]}"#,
    "\n",
);
