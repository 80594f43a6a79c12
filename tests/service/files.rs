//! What is said of the files by those who know their language.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Most exposure that systemd may see in the unit, in tenths. What is left is what the sandbox of tools needs: namespaces, their
/// own /proc and mounts, and a network for models.
const EXPOSURE_MAX: &str = "35";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("platform/init")
}

/// Every script of the folder: files that begin with `#!`.
fn scripts() -> Vec<PathBuf> {
    let (mut found, mut open) =
        (Vec::new(), vec![folder(), folder().join("../../packaging/debian"), folder().join("../../tests/service")]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if std::fs::read(&path).expect("a file").starts_with(b"#!") {
                found.push(path);
            }
        }
    }
    found
}

fn said(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn scripts_have_nothing_that_shellcheck_knows() {
    let scripts = scripts();
    assert!(scripts.len() >= 15, "{scripts:?}");
    let (good, text) = said(Command::new("shellcheck").args(&scripts));
    assert!(good, "{text}");
    // The control.
    let bad = std::env::temp_dir().join(format!("duragent-bad-{}.sh", std::process::id()));
    std::fs::write(&bad, "#!/bin/sh\nrm $1\n").expect("a file");
    assert!(!said(Command::new("shellcheck").arg(&bad)).0);
    std::fs::remove_file(bad).ok();
}

#[test]
fn systemd_understands_the_unit_and_finds_it_closed() {
    let unit = folder().join("systemd/duragent.service");
    let text = std::fs::read_to_string(&unit).expect("the unit");
    // It looks whether the program is there.
    let dir = std::env::temp_dir().join(format!("duragent-unit-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let at = dir.join("duragent.service");
    std::fs::write(&at, text.replace("/usr/bin/duragent", env!("CARGO_BIN_EXE_duragent"))).expect("a file");
    let (good, text) = said(Command::new("systemd-analyze").arg("verify").arg(&at));
    // Other units of this machine may have their own troubles.
    let ours: Vec<&str> = text.lines().filter(|line| line.contains("duragent")).collect();
    assert!(good && ours.is_empty(), "{text}");
    let security = |unit: &Path| {
        let threshold = format!("--threshold={EXPOSURE_MAX}");
        said(Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager", &threshold]).arg(unit))
    };
    let (good, text) = security(&at);
    assert!(good, "{text}");
    // The control: a unit without any of it.
    std::fs::write(&at, "[Service]\nExecStart=/bin/true\n").expect("a file");
    assert!(!security(&at).0);
    std::fs::remove_dir_all(dir).ok();
}

/// procd cannot be had outside of OpenWrt. So rc.common and procd are a stand-in that writes down what the script tells them.
#[test]
fn procd_is_told_what_to_run() {
    let dir = std::env::temp_dir().join(format!("duragent-procd-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("workspace")).expect("a folder");
    let fake = "procd_open_instance() { echo open; }
procd_close_instance() { echo close; }
procd_set_param() { echo set \"$@\"; }
procd_send_signal() { echo signal \"$@\"; }
. \"$1\"; shift; \"$@\"; echo $START $STOP $USE_PROCD";
    let script = std::fs::read_to_string(folder().join("procd/duragent")).expect("the script");
    let script = script.replace("/srv/duragent", dir.join("workspace").to_str().expect("UTF-8"));
    std::fs::write(dir.join("duragent"), script).expect("a file");
    let run = |function: &str| {
        let (good, text) =
            said(Command::new("busybox").args(["sh", "-c", fake, "sh"]).arg(dir.join("duragent")).arg(function));
        assert!(good, "{text}");
        text
    };
    assert_eq!(run("start_service"), "95 10 1\n", "without a workspace nothing is started");
    std::fs::write(dir.join("workspace/duragent.yaml"), "").expect("a file");
    let workspace = dir.join("workspace");
    let command = format!("set command /usr/bin/duragent --dir {} serve\n", workspace.display());
    let expected = [
        "open\n",
        &command,
        "set user duragent\nset limits nofile=4096 4096\nset term_timeout 60\nset respawn 3600 5 0\n",
        "set reload_signal HUP\nset stdout 1\nset stderr 1\nclose\n95 10 1\n",
    ];
    assert_eq!(run("start_service"), expected.concat());
    assert_eq!(run("reload_service"), "signal duragent * HUP\n95 10 1\n");
    std::fs::remove_dir_all(dir).ok();
}
