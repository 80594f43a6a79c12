use super::super::init::init;
use super::super::{Workspace, problem::Problem};
use super::*;
use duragent_core::policy::{Verdict, argument, evaluate};
use duragent_core::tool::PolicyArgument;

#[test]
fn init_writes_a_workspace_that_works_and_changes_nothing() {
    let folder = Folder::new();
    let first = init(&folder.0.join(".duragent")).expect("written");
    assert!(first.iter().all(|file| file.new) && first.len() == 4, "{first:?}");
    let dir = folder.0.join(".duragent");
    assert_eq!(report(&dir).lines, ["configuration ok"]);

    folder.write(".duragent/policy.yaml", b"mode: deny\n");
    std::fs::remove_file(dir.join("agents/assistant/SYSTEM_PROMPT.md")).expect("remove");
    let second = init(&folder.0.join(".duragent")).expect("written");
    let new: Vec<bool> = second.iter().map(|file| file.new).collect();
    assert_eq!(new, [false, false, false, true]);
    assert_eq!(folder.read(".duragent/policy.yaml"), "mode: deny\n");

    let workspace = Workspace::load(&dir, &env, &TOOLS).expect("a workspace");
    let agent = workspace.agents.get("assistant").and_then(|agent| agent.as_ref().ok()).expect("assistant");
    assert!(agent.spec.system_prompt().len() < 800, "the first prompt has to be small");
    assert_eq!(agent.spec.tools, TOOLS);
}

#[test]
fn init_asks_before_anything_but_reading() {
    let folder = Folder::new();
    init(&folder.0.join(".duragent")).expect("written");
    let workspace = Workspace::load(&folder.0.join(".duragent"), &env, &TOOLS).expect("a workspace");
    let layers = [workspace.policy.expect("a policy")];
    for (tool, verdict) in [
        ("read_file", Verdict::Allow),
        ("list_dir", Verdict::Allow),
        ("search_files", Verdict::Allow),
        ("write_file", Verdict::Ask),
        ("edit_file", Verdict::Ask),
    ] {
        let argument = argument(&PolicyArgument::Path("path"), "{\"path\":\"x\"}", "/w");
        assert_eq!(evaluate(&layers, tool, &argument).verdict, verdict, "{tool}");
    }
    let argument = argument(&PolicyArgument::Command("command"), "{\"command\":\"ls\"}", "/w");
    assert_eq!(evaluate(&layers, "bash", &argument).verdict, Verdict::Ask);
}

#[test]
fn init_says_what_it_cannot_write() {
    let folder = Folder::with(&[(".duragent", b"a file in its place")]);
    let error = init(&folder.0.join(".duragent")).expect_err("no folder can be made");
    assert!(error.to_string().contains(".duragent/duragent.yaml: cannot write: "), "{error}");
}

#[test]
fn example_agents_run_as_they_are() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("agents");
    let folder = Folder::with(&[("duragent.yaml", b"sandbox: {mode: auto}\n")]);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&examples).expect("agents/") {
        let from = entry.expect("an entry").path();
        let name = from.file_name().and_then(|n| n.to_str()).expect("a name").to_owned();
        for file in ["agent.yaml", "SYSTEM_PROMPT.md", "policy.yaml", "README.md", "transcript.jsonl"] {
            let bytes = std::fs::read(from.join(file)).expect(file);
            folder.write(&format!("agents/{name}/{file}"), &bytes);
        }
        names.push(name);
    }
    names.sort();
    assert_eq!(names, ["assistant", "gateway-watcher", "note-keeper"]);
    assert_eq!(report(&folder.0).lines, ["configuration ok"]);
    let workspace = Workspace::load(&folder.0, &env, &TOOLS).expect("a workspace");
    for (name, agent) in &workspace.agents {
        let agent = agent.as_ref().expect(name);
        assert!(agent.spec.system_prompt().len() < 800, "{name}: {}", agent.spec.system_prompt().len());
        assert!(agent.policy.is_some(), "{name}");
    }
}

#[test]
fn the_gateway_watcher_only_reads() {
    let folder = Folder::new();
    let text = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("agents/gateway-watcher/policy.yaml"));
    folder.write("policy.yaml", &text.expect("policy.yaml"));
    let policy = super::super::policy::load(&folder.0.join("policy.yaml"), "policy.yaml");
    let layers = [policy.expect("valid").expect("there").0];
    for (command, verdict) in [
        ("cat /sys/class/thermal/thermal_zone0/temp", Verdict::Allow),
        ("tail -n 50 /var/log/my-file.log", Verdict::Allow),
        ("df -h", Verdict::Allow),
        ("tail -n 5 -f /var/log/syslog", Verdict::Deny),
        ("tail -n 5 /var/log/syslog; reboot", Verdict::Deny),
        ("cat /sys/class/thermal/x > /dev/sda", Verdict::Deny),
        ("reboot", Verdict::Deny),
    ] {
        let mut json = String::from("{\"command\":");
        duragent_core::json::write_string(&mut json, command);
        json.push('}');
        let argument = argument(&PolicyArgument::Command("command"), &json, "/w");
        assert_eq!(evaluate(&layers, "bash", &argument).verdict, verdict, "{command}");
    }
}

#[test]
fn check_counts_and_says_what_to_do() {
    let missing = Folder::new();
    let expected = format!("duragent.yaml: no such file in {}; `duragent init` writes one", missing.0.display());
    assert_eq!(report(&missing.0).lines, [expected.as_str(), "1 error"]);

    let folder = Folder::with(&[("duragent.yaml", b"sandbox: {mode: trust}\nroutes: []\n")]);
    let found = report(&folder.0);
    assert_eq!((found.errors, found.warnings), (0, 1));
    assert_eq!(found.lines.last().map(String::as_str), Some("configuration ok, 1 warning"));

    folder.write("duragent.yaml", b"sandbox: {mode: trust}\nroutes: []\nx: 1\ny: 1\n");
    let found = report(&folder.0);
    assert_eq!((found.errors, found.warnings), (2, 1));
    assert_eq!(found.lines.last().map(String::as_str), Some("2 errors, 1 warning"));
    assert_eq!(found.dump, None);
}

#[test]
fn the_dump_has_defaults_and_no_secrets() {
    let text = "server: {api_token: '${KEY}'}\nproviders:\n  mine:\n    kind: openai\n    base_url: https://u:sk-secret@host/v1\n    \
                api_key_env: KEY\n    headers: {X-Key: '${KEY}'}\n";
    let folder = Folder::with(&[("duragent.yaml", format!("{TRUST}{text}").as_bytes())]);
    let found = report(&folder.0);
    let dump = found.dump.expect("a dump");
    assert!(!dump.contains("sk-secret"), "{dump}");
    for part in [
        "server:\n  address: \"127.0.0.1:8410\"\n  api_token: \"***\"\n",
        "  \"mine\":\n    kind: openai\n    base_url: \"https://***@host/v1\"\n#     api key: ***\n    headers:\n      X-Key: \"***\"\n",
        "limits:\n  steps_max: 20\n",
        "sandbox:\n  mode: trust\n",
    ] {
        assert!(dump.contains(part), "{part} in {dump}");
    }
    // What is dumped can be read again, but for the secrets.
    let again = Folder::with(&[("duragent.yaml", dump.as_bytes())]);
    assert_eq!(report(&again.0).errors, 0, "{:?}", report(&again.0).lines);
    let workspace = Workspace::load(&folder.0, &env, &TOOLS).expect("a workspace");
    assert!(!format!("{workspace:?}").contains("\"sk-secret\""), "debug output shows a secret");
}

#[test]
fn problems_print_as_promised() {
    let problem = Problem { file: "f".to_owned(), line: 1, column: 2, message: "m".to_owned(), warning: true };
    assert_eq!(problem.to_string(), "f:1:2: warning: m");
    assert_eq!(Problem::file("f", "m".to_owned()).to_string(), "f: m");
}
