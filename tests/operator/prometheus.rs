//! The official client library reads what we write.

use crate::house::{House, require};
use crate::page::Page;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The version that was tried.
const PACKAGE: &str = "prometheus-client==0.26.0";

/// Prints every sample as the library understands it; fails on what it cannot read.
const READER: &str = r#"
import sys
from prometheus_client.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    assert family.documentation, family.name
    for sample in family.samples:
        labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
        print(family.type, sample.name + ("{" + labels + "}" if labels else ""), repr(float(sample.value)))
"#;

/// A Python of our own with the library in it, made when it is not there.
fn python() -> PathBuf {
    require("python3", "python3-venv");
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(PACKAGE.replace("==", "-"));
    let program = |home: &Path| home.join("bin/python");
    if program(&home).exists() {
        return program(&home);
    }
    // Under another name until it is whole.
    let fresh = home.with_extension(std::process::id().to_string());
    let run = |command: &mut Command| {
        let output = command.output().expect("python3 starts");
        let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{command:?}: {told}; install the Debian package python3-venv");
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&fresh));
    run(Command::new(program(&fresh)).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        PACKAGE,
    ]));
    if std::fs::rename(&fresh, &home).is_err() {
        // Somebody was faster.
        std::fs::remove_dir_all(&fresh).ok();
    }
    program(&home)
}

fn read(text: &str) -> Output {
    let mut child = Command::new(python())
        .args(["-c", READER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python starts");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

#[test]
fn the_official_library_reads_every_sample_as_we_do() {
    let house = House::new("");
    let server = house.serve(&[]);
    for agent in ["hello", "tool", "denied", "fails"] {
        server.session(agent, agent);
        server.turn(agent);
    }
    let text = String::from_utf8(server.ask("GET", "/metrics", "").body).expect("UTF-8");
    let page = Page::read(&text).unwrap_or_else(|e| panic!("{e}"));
    let output = read(&text);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(theirs.lines().count(), page.samples.len(), "{theirs}");
    for line in theirs.lines() {
        let mut words = line.split(' ');
        let (kind, series, value) = (words.next(), words.next().expect("a series"), words.next().expect("a value"));
        let value: f64 = value.parse().expect("a number");
        assert_eq!(page.samples.get(series), Some(&value), "{line}");
        let of = |(name, _): &&(String, String)| series.starts_with(name.as_str());
        // The longest name is the family's own.
        let family = page.families.iter().filter(of).max_by_key(|(name, _)| name.len()).expect("a family");
        assert_eq!(kind, Some(family.1.as_str()), "{line}");
    }
    // The control: the library refuses what is broken.
    for (from, to) in [
        ("reason=\"completed\"} ", "reason=\"completed} "),
        ("\nduragent_sessions_live ", "\nduragent_sessions_live x"),
        ("# TYPE duragent_sessions_live gauge", "# TYPE duragent_sessions_live thing"),
    ] {
        let broken = text.replacen(from, to, 1);
        assert_ne!(broken, text, "{from}");
        assert!(!read(&broken).status.success(), "it should not read {to:?}");
    }
}
