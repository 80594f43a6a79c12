//! `doctor` and `completions`.

use super::house::{HELLO, House, agent};
use duragent_core::json::{self, Value};
use std::process::{Command, Stdio};

fn checks(json: &str) -> Vec<(String, String, String)> {
    let json = json::parse(json).expect("JSON");
    let Some(Value::Array(checks)) = json.get("checks") else { panic!("{json}") };
    let text = |check: &Value, key| check.get(key).and_then(Value::as_str).expect(key).to_owned();
    checks.iter().map(|c| (text(c, "name"), text(c, "status"), text(c, "evidence"))).collect()
}

#[test]
fn a_healthy_workspace_has_evidence_for_everything() {
    let house = House::new(HELLO);
    let found = checks(&house.good(&["doctor", "--json"]));
    for (name, part) in [
        ("workspace", ".duragent"),
        ("configuration", "1 agent can be used"),
        ("sandbox", "trust, enforcement none; "),
        ("canary read_secret", "not kept from it: read 7 bytes"),
        ("canary vsock", ""),
        ("backend bubblewrap", "enforcement full"),
        ("backend landlock", "enforcement full"),
        ("disk space", " free of "),
        ("file system", "mounted at"),
        ("disk sync", "in the median of 20"),
        ("disk locks", "kept a second taker out"),
        ("disk append", "O_APPEND"),
        ("wall clock", "T"),
        ("monotonic clock", "5 ms"),
        ("model tape/m", "replays"),
        ("server", "none is up"),
        ("memory", "this process takes"),
    ] {
        let (_, status, evidence) =
            found.iter().find(|(n, ..)| n == name).unwrap_or_else(|| panic!("{name}: {found:?}"));
        assert!(status != "FAIL" && evidence.contains(part), "{name}: {status} {evidence}");
    }
    let text = house.good(&["doctor"]);
    assert!(
        text.lines().all(|line| ["ok    ", "warn  ", "      "].iter().any(|start| line.starts_with(start))),
        "{text}"
    );
    house.write(
        ".duragent/duragent.yaml",
        "sandbox: {mode: auto}\nproviders: {tape: {kind: replay, file: ./tape.jsonl}}\n",
    );
    let found = checks(&house.good(&["doctor", "--json"]));
    let kept = found.iter().filter(|(name, status, evidence)| {
        name.starts_with("canary ") && status == "ok" && evidence.starts_with("refused: ")
    });
    assert_eq!(kept.count(), 15, "{found:?}");
    assert!(
        found
            .iter()
            .any(|(name, _, evidence)| name == "sandbox"
                && evidence.starts_with("bubblewrap, enforcement full; 15 of 15"))
    );

    let left: Vec<_> = std::fs::read_dir(house.dir()).expect("a folder").flatten().map(|e| e.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("doctor")), "{left:?}");

    let server = house.serve();
    let found = checks(&house.good(&["doctor", "--json"]));
    let (_, status, evidence) = found.iter().find(|(name, ..)| name == "server").expect("it is looked for");
    assert!(status == "ok" && evidence.contains(env!("CARGO_PKG_VERSION")), "{evidence}");
    server.stop();
}

#[test]
fn what_keeps_sessions_from_working_fails() {
    let fails = |house: &House, name: &str, part: &str| {
        let ended = house.run(&["doctor", "--json"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.err.starts_with("error: ") && ended.err.contains("failed\nhint: "), "{ended:?}");
        let found = checks(&ended.out);
        let hit = found.iter().any(|(n, status, evidence)| n == name && status == "FAIL" && evidence.contains(part));
        assert!(hit, "{name}: {found:?}");
    };
    let house = House::new(HELLO);
    house.write(
        ".duragent/duragent.yaml",
        "sandbox: {mode: trust}\nproviders:\n  tape: {kind: replay, file: ./tape.jsonl}\n  far: {kind: ollama, base_url: \"http://127.0.0.1:1\"}\n",
    );
    house.write(".duragent/agents/far/agent.yaml", &agent("far", "far"));
    fails(&house, "model far/m", "127.0.0.1:1");
    house.write(".duragent/agents/far/agent.yaml", &agent("far", "nowhere"));
    fails(&house, "agent far", "nowhere");
    house.write(".duragent/duragent.yaml", "sandbox: {mode: trust}\nlimit: 1\n");
    fails(&house, "configuration", "duragent.yaml:2:1: unknown key");
}

#[test]
fn completions_name_every_command_and_bash_understands_them() {
    let house = House::new(HELLO);
    for shell in ["bash", "zsh", "fish"] {
        let script = house.good(&["completions", shell]);
        for word in ["session", "verify", "doctor", "approve", "completions", "scope"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    house.write("completions.bash", &house.good(&["completions", "bash"]));
    for (line, expected) in [
        ("duragent se", "serve session service"),
        ("duragent --dir x rel", "reload"),
        ("duragent session ver", "verify"),
        ("duragent session log --", "--json"),
        ("duragent session log abc -", "-f --json"),
        ("duragent --dir x ps --st", "--status"),
        ("duragent zzz", ""),
    ] {
        let script = "source ./completions.bash; COMP_WORDS=($0); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _duragent; echo ${COMPREPLY[@]}";
        let found = Command::new("bash")
            .args(["--norc", "-c", script, line])
            .current_dir(house.path("."))
            .stderr(Stdio::inherit())
            .output();
        let found = found.expect("bash is there, it is what is tested");
        assert_eq!(String::from_utf8_lossy(&found.stdout).trim(), expected, "{line}");
    }
}
