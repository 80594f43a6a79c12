//! Files: what is outside, what configures the runtime, and what other programs run by themselves.

use super::yard::{Call, ENCLOSING, SECRET, Seen, TRUST, USERS, User, Yard, bash, call};

/// Attacks of a shell: the command, the path that is refused, and what is there if it was not. `OUT` and `PROJECT` are
/// replaced by the folders.
const SHELL: [(&str, &str, &str); 6] = [
    ("cat OUT/secret", "OUT/secret", ""),
    ("echo mine > OUT/kept", "OUT/kept", "OUT/kept"),
    ("echo mine > OUT/new", "OUT/new", "OUT/new"),
    ("echo 'mode: deny' > .duragent/policy.yaml", "PROJECT/.duragent/policy.yaml", "PROJECT/.duragent/policy.yaml"),
    ("mkdir -p .duragent/agents/new", "PROJECT/.duragent/agents", "PROJECT/.duragent/agents/new"),
    (
        "echo x > .duragent/agents/new/agent.yaml",
        "PROJECT/.duragent/agents/new/agent.yaml",
        "PROJECT/.duragent/agents/new/agent.yaml",
    ),
];

fn place(yard: &Yard, text: &str) -> String {
    text.replace("OUT", yard.outside("").trim_end_matches('/'))
        .replace("PROJECT", &yard.project().display().to_string())
}

/// The record of an enclosed call: its backend and what the kernel enforces.
fn check_report(seen: &Seen, mode: &str) {
    let report = &seen.sandbox;
    assert_eq!((report.backend.as_str(), report.enforcement.as_str()), (mode, "full"), "{report:?}");
    assert_eq!(report.landlock_abi.is_some(), mode == "landlock", "{report:?}");
}

#[test]
fn a_shell_reaches_nothing_outside_and_nothing_that_configures_the_runtime() {
    for (mode, user) in ENCLOSING.into_iter().flat_map(|mode| USERS.map(|user| (mode, user))) {
        let yard = Yard::new("shell", mode, user);
        let before = yard.snapshot();
        let calls: Vec<Call> = SHELL
            .iter()
            .map(|(command, path, _)| {
                let told = format!("{{\"denied\":true,\"kind\":\"fs\",\"path\":\"{}", place(&yard, path));
                bash(&place(&yard, command)).told(&told)
            })
            .collect();
        let seen = yard.turn(&calls);
        for ((command, path, _), seen) in SHELL.iter().zip(&seen) {
            check_report(seen, mode);
            let (kind, what) = seen.denied().unwrap_or_else(|| panic!("{mode} {user:?} {command}: {seen:?}"));
            assert_eq!(kind, "fs", "{mode} {user:?} {command}: {seen:?}");
            assert!(what.starts_with(&place(&yard, path)), "{mode} {user:?} {command}: {seen:?}");
            assert!(seen.outcome.denied.as_ref().is_some_and(|denied| denied.hint.len() > 10), "{seen:?}");
            assert!(seen.outcome.exit_code.is_some_and(|code| code != 0), "{seen:?}");
            assert!(!seen.outcome.result.contains(SECRET), "{seen:?}");
        }
        assert_eq!(yard.snapshot(), before, "{mode} {user:?}");
        let log = yard.house.log(&yard.house.session());
        let on_record = format!("\"denied\":{{\"kind\":\"fs\",\"path\":\"{}\",\"hint\":\"", yard.outside("secret"));
        assert!(log.contains(&on_record), "{log}");
        assert_eq!(log.contains("\"landlock_abi\":"), mode == "landlock", "{log}");
    }
}

#[test]
fn the_control_of_the_shell() {
    let yard = Yard::new("shell", TRUST, User::Own);
    for (command, _, made) in SHELL {
        let seen = yard.one(bash(&place(&yard, command)));
        assert_eq!((seen.outcome.exit_code, seen.denied()), (Some(0), None), "{command}: {seen:?}");
        assert_eq!((seen.sandbox.backend.as_str(), seen.sandbox.enforcement.as_str()), ("trust", "none"));
        match made {
            "" => assert!(seen.outcome.result.contains(SECRET), "{seen:?}"),
            _ => assert!(std::fs::symlink_metadata(place(&yard, made)).is_ok(), "{command}"),
        }
        // The workspace's policy counts from the next start on.
        std::fs::remove_file(yard.project().join(".duragent/policy.yaml")).ok();
    }
    assert_eq!(std::fs::read_to_string(yard.outside("kept")).ok().as_deref(), Some("mine\n"));
}

/// A model that is told something else than a test expects makes the turn fail: so `told` means something.
#[test]
fn what_the_model_is_told_is_really_compared() {
    let yard = Yard::new("told", TRUST, User::Own);
    yard.play(&[bash(&place(&yard, "cat OUT/secret")).told("{\"denied\":true")]);
    let ended = yard.finish(&mut yard.command(&["run", "worker", "go"]));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("expects a last message that contains"), "{ended:?}");
}

/// The file tools on paths that no tool is granted, and the path that is refused.
fn file_tools(yard: &Yard) -> Vec<(Call, String)> {
    let in_project = |name: &str| yard.project().join(name).display().to_string();
    let own = ".duragent/duragent.yaml";
    let new = ".duragent/agents/new/agent.yaml";
    let out = |name: &str| yard.outside(name);
    vec![
        (call("read_file", &[("path", &out("secret"))]), out("secret")),
        (call("read_file", &[("path", "../outside/secret")]), out("secret")),
        (call("read_file", &[("path", own)]), in_project(own)),
        (call("write_file", &[("path", &out("kept")), ("content", "mine")]), out("kept")),
        (call("write_file", &[("path", &out("new")), ("content", "mine")]), out("new")),
        (call("write_file", &[("path", new), ("content", "mine")]), in_project(new)),
        (call("edit_file", &[("path", &out("kept")), ("old", "was"), ("new", "is")]), out("kept")),
        (call("edit_file", &[("path", own), ("old", "worker"), ("new", "other")]), in_project(own)),
        (call("list_dir", &[("path", &out(""))]), out("").trim_end_matches('/').to_owned()),
        (call("list_dir", &[("path", ".duragent")]), in_project(".duragent")),
        (call("search_files", &[("path", &out("")), ("text", "secret")]), out("").trim_end_matches('/').to_owned()),
        (call("search_files", &[("path", ".duragent"), ("text", "worker")]), in_project(".duragent")),
    ]
}

#[test]
fn file_tools_are_held_to_the_same() {
    for (mode, user) in ENCLOSING.into_iter().flat_map(|mode| USERS.map(|user| (mode, user))) {
        let yard = Yard::new("tools", mode, user);
        let before = yard.snapshot();
        let (calls, paths): (Vec<Call>, Vec<String>) = file_tools(&yard).into_iter().unzip();
        let told = |path: &String| format!("{{\"denied\":true,\"kind\":\"fs\",\"path\":\"{path}\"");
        let calls: Vec<Call> = calls.into_iter().zip(&paths).map(|(call, path)| call.told(&told(path))).collect();
        for (seen, path) in yard.turn(&calls).iter().zip(&paths) {
            check_report(seen, mode);
            assert_eq!(seen.denied(), Some(("fs", path.as_str())), "{mode} {user:?}: {seen:?}");
            assert!(!seen.outcome.result.contains(SECRET), "{seen:?}");
        }
        assert_eq!(yard.snapshot(), before, "{mode} {user:?}");
    }
}

#[test]
fn the_control_of_the_file_tools() {
    let yard = Yard::new("tools", TRUST, User::Own);
    let calls: Vec<Call> = file_tools(&yard).into_iter().map(|(call, _)| call).collect();
    for seen in yard.turn(&calls) {
        assert_eq!(seen.denied(), None, "{seen:?}");
    }
    assert!(yard.project().join(".duragent/agents/new/agent.yaml").exists());
    assert_eq!(std::fs::read_to_string(yard.outside("new")).ok().as_deref(), Some("mine"));
}

const HOOK: &str = ".git/hooks/pre-commit";

#[test]
fn what_other_programs_run_by_themselves_stays_as_it_is() {
    for (mode, user) in ENCLOSING.into_iter().flat_map(|mode| USERS.map(|user| (mode, user))) {
        let yard = Yard::new("protected", mode, user);
        yard.house.write(HOOK, "#!/bin/sh\n");
        yard.house.write(".git/HEAD", "ref: refs/heads/main\n");
        let before = yard.snapshot();
        let told = |name: &str| format!("\"kind\":\"fs\",\"path\":\"{}\"", yard.project().join(name).display());
        // Each in a call of its own: what is made at a free name is found when the call has ended.
        let seen = yard.turn(&[
            bash(&format!("echo evil >> {HOOK}")).told(&told(HOOK)),
            bash("echo evil > .git/hooks/post-merge").told(&told(".git/hooks/post-merge")),
            bash("echo evil > .bashrc").told(&told(".bashrc")),
            call("write_file", &[("path", ".zshrc"), ("content", "evil")]).told(&told(".zshrc")),
            call("edit_file", &[("path", HOOK), ("old", "sh"), ("new", "evil")]).told(&told(HOOK)),
            bash("echo fine > .git/HEAD; cat .git/HEAD"),
        ]);
        let fine = seen.last().expect("six calls");
        assert_eq!(fine.outcome.result, "fine\n", "the control: git itself goes on working: {seen:?}");
        check_protected(&yard, before, &format!("{mode} {user:?}"));
    }
}

#[test]
fn protected_names_that_are_not_there_yet_stay_free() {
    for (mode, user) in ENCLOSING.into_iter().flat_map(|mode| USERS.map(|user| (mode, user))) {
        let yard = Yard::new("free", mode, user);
        yard.house.write(".git/HEAD", "ref: refs/heads/main\n");
        let before = yard.snapshot();
        let attack = format!("mkdir -p .git/hooks && echo evil > {HOOK}; chmod +x {HOOK}");
        let seen = yard.one(bash(&attack).told("\"denied\":true,\"kind\":\"fs\",\"path\":\""));
        let hooks = yard.project().join(".git/hooks").display().to_string();
        let denied = seen.denied().unwrap_or_else(|| panic!("{seen:?}"));
        assert!(denied.0 == "fs" && denied.1.starts_with(&hooks), "{mode} {user:?}: {seen:?}");
        check_protected(&yard, before, &format!("{mode} {user:?}"));
    }
}

#[test]
fn the_control_of_protected_names() {
    let yard = Yard::new("protected", TRUST, User::Own);
    let attack = format!("mkdir -p .git/hooks && echo evil > {HOOK}; echo evil > .bashrc");
    assert_eq!(yard.one(bash(&attack)).denied(), None);
    let made = |name: &str| yard.house.read(name);
    assert_eq!((made(HOOK).as_deref(), made(".bashrc").as_deref()), (Some("evil\n"), Some("evil\n")));
}

/// As before, but for what was moved aside under a name that says so, and `HEAD`, which git itself may change.
fn check_protected(yard: &Yard, mut before: std::collections::BTreeMap<std::path::PathBuf, String>, who: &str) {
    let mut after = yard.snapshot();
    after.retain(|path, _| !path.display().to_string().contains(".refused-by-duragent-"));
    let head = yard.project().join(".git/HEAD");
    before.remove(&head);
    after.remove(&head);
    assert_eq!(after, before, "{who}");
}
