use super::super::Workspace;
use super::super::agents_md::{BYTES_MAX, DIRECTORIES_MAX};
use super::house::House;
use super::*;
use std::os::unix::fs::symlink;

const AUTO: &str = "sandbox: {mode: auto}\n";

/// What the agent is told, in order: path and text.
fn guides(house: &House) -> Vec<(String, String)> {
    let workspace = house.workspace();
    let agent = workspace.agents.get("a").and_then(|a| a.as_ref().ok()).expect("a usable agent");
    agent.spec.guides.iter().map(|guide| (guide.path.clone(), guide.text.clone())).collect()
}

fn told(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn files_are_read_from_the_root_down_to_the_working_directory() {
    let house = House::new();
    house.write(AUTO, "  workdir: data/deep\n");
    house.folder.write("data/deep/x", b"");
    assert_eq!(guides(&house), []);
    house.folder.write("CLAUDE.md", b"outer\n");
    house.folder.write("data/deep/AGENTS.md", "\u{feff}inner\n".as_bytes());
    house.folder.write("data/deep/CLAUDE.md", b"not read: there is an AGENTS.md\n");
    assert_eq!(guides(&house), told(&[("../../CLAUDE.md", "outer\n"), ("AGENTS.md", "inner\n")]));
    house.folder.write("data/AGENTS.md", b"middle");
    let all = told(&[("../../CLAUDE.md", "outer\n"), ("../AGENTS.md", "middle"), ("AGENTS.md", "inner\n")]);
    assert_eq!(guides(&house), all);
    assert_eq!(house.said(), [""; 0]);
    // A repository further down is the root; it may be a file, as in a worktree.
    house.folder.write("data/.git", b"gitdir: elsewhere\n");
    assert_eq!(guides(&house), all[1..]);
}

#[test]
fn the_root_may_be_above_the_folder_of_the_workspace() {
    let folder = Folder::with(&[("AGENTS.md", b"top"), (".git/HEAD", b"x"), ("sub/AGENTS.md", b"sub")]);
    let file = "sub/.duragent/agents/a/agent.yaml";
    folder.write("sub/.duragent/duragent.yaml", AUTO.as_bytes());
    folder.write(file, [house::AGENT, ""].concat().as_bytes());
    let load = || Workspace::load(&folder.0.join("sub/.duragent"), &env, &TOOLS).expect("a workspace");
    let paths = |workspace: Workspace| {
        let agent = workspace.agents.into_values().next().expect("an agent").expect("a usable agent");
        agent.spec.guides.into_iter().map(|guide| guide.path).collect::<Vec<_>>()
    };
    assert_eq!(paths(load()), ["../AGENTS.md", "AGENTS.md"]);
    // The control: without the repository it is not looked at.
    fs::remove_dir_all(folder.0.join(".git")).expect("removed");
    assert_eq!(paths(load()), ["AGENTS.md"]);
}

#[test]
fn who_is_told_by_default_and_by_word() {
    let house = House::new();
    house.folder.write("AGENTS.md", b"x");
    for (keys, count) in
        [("", 1), ("  agents_md: true\n", 1), ("  agents_md: false\n", 0), ("  agents_md: ${OFF:-false}\n", 0)]
    {
        house.write(AUTO, keys);
        assert_eq!((guides(&house).len(), house.said()), (count, vec![]), "{keys}");
    }
    house.write(AUTO, "  agents_md: 3\n");
    assert_eq!(house.said(), ["agents/a/agent.yaml:6:14: spec.agents_md: expected true or false, found 3"]);
    // A service has a folder for each session, in which there is nothing yet.
    for (keys, count, said) in [
        ("", 0, ""),
        ("  workdir: .\n", 1, ""),
        (
            "  agents_md: true\n",
            0,
            "agents/a/agent.yaml:6:14: warning: spec.agents_md: there is nothing to be read in a new folder for each session; write a workdir",
        ),
    ] {
        let service = Folder::with(&[("AGENTS.md", b"x"), ("service/duragent.yaml", AUTO.as_bytes())]);
        service.write("service/agents/a/agent.yaml", [house::AGENT, keys].concat().as_bytes());
        let dir = service.0.join("service");
        let workspace = Workspace::load(&dir, &env, &TOOLS).expect("a workspace");
        let agent = workspace.agents.get("a").and_then(|a| a.as_ref().ok()).expect("a usable agent");
        assert_eq!(agent.spec.guides.len(), count, "{keys}");
        assert_eq!(agent.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().concat(), said, "{keys}");
    }
}

#[test]
fn what_does_not_fit_is_left_out_from_the_root_on() {
    let (house, line) = (House::new(), "0123456789abcde\n");
    house.write(AUTO, "  workdir: data/deep\n");
    house.folder.write("data/deep/AGENTS.md", line.repeat(BYTES_MAX / 16 - 2).as_bytes());
    house.folder.write("data/AGENTS.md", line.repeat(3).as_bytes());
    house.folder.write("AGENTS.md", b"small\n");
    let left = "[left out: more than 32 KiB with those further down]";
    assert_eq!(guides(&house)[..2], told(&[("../../AGENTS.md", left), ("../AGENTS.md", left)]));
    assert_eq!(guides(&house)[2].1.len(), BYTES_MAX - 32);
    let what = "warning: left out: more than 32 KiB with those further down";
    assert_eq!(house.said(), [format!("DIR/data/AGENTS.md: {what}"), format!("DIR/AGENTS.md: {what}")]);
    // The control: one line less, and all of it fits.
    house.folder.write("data/AGENTS.md", line.as_bytes());
    assert_eq!((guides(&house)[0].1.as_str(), house.said()), ("small\n", vec![]));
    // The nearest one is cut at a line, or at a character, and nothing else has room.
    for (text, kept) in [
        (line.repeat(BYTES_MAX / 16 + 1), line.repeat(BYTES_MAX / 16)),
        (["é\n".to_owned(), "é".repeat(BYTES_MAX)].concat(), "é\n".to_owned()),
        ("é".repeat(BYTES_MAX), "é".repeat(BYTES_MAX / 2)),
    ] {
        house.folder.write("data/deep/AGENTS.md", text.as_bytes());
        let found = guides(&house);
        assert_eq!(found[2].1, [kept.as_str(), "[the rest is left out: the file has more than 32 KiB]"].concat());
        assert_eq!(found[0].1, left);
        let cut = "DIR/data/deep/AGENTS.md: warning: cut: more than 32 KiB do not go into the prompt";
        assert_eq!(house.said()[0], cut);
    }
}

#[test]
fn what_cannot_be_read_is_named_and_the_others_are_read() {
    let house = House::new();
    house.write(AUTO, "  workdir: data/deep\n");
    house.folder.write("data/deep/AGENTS.md", b"\xff\xfe");
    house.folder.write("data/AGENTS.md/x", b"a directory");
    house.folder.write("AGENTS.md", b"good");
    assert_eq!(guides(&house), told(&[("../../AGENTS.md", "good")]));
    let said = house.said();
    assert_eq!(said[0], "DIR/data/deep/AGENTS.md: warning: left out: not UTF-8; save the file as UTF-8");
    assert!(said[1].starts_with("DIR/data/AGENTS.md: warning: left out: "), "{said:?}");
    assert_eq!(said.len(), 2);
}

#[test]
fn links_are_followed_inside_the_root_and_nowhere_else() {
    let house = House::new();
    house.write(AUTO, "  workdir: data\n");
    let outside = Folder::with(&[("rules.md", b"secret of somebody else")]);
    house.folder.write("rules.md", b"inside");
    house.folder.write(".duragent/token.md", b"secret of the workspace");
    let at = house.root.join("data/AGENTS.md");
    let good = told(&[("AGENTS.md", "inside")]);
    for (target, expected) in [
        (house.root.join("rules.md"), &good),
        (PathBuf::from("../rules.md"), &good),
        (outside.0.join("rules.md"), &vec![]),
        (house.root.join(".duragent/token.md"), &vec![]),
        (PathBuf::from("/etc/hostname"), &vec![]),
    ] {
        fs::remove_file(&at).ok();
        symlink(&target, &at).expect("a link");
        assert_eq!(guides(&house), *expected, "{}", target.display());
        let left =
            "DIR/data/AGENTS.md: warning: left out: a symbolic link leads out of the root, or to what tools never see";
        let said = if expected.is_empty() { vec![left.to_owned()] } else { vec![] };
        assert_eq!(house.said(), said, "{}", target.display());
    }
    // The control: what the last but two was refused for is readable, and is read where it is no link.
    fs::remove_file(&at).expect("removed");
    fs::copy(outside.0.join("rules.md"), &at).expect("copied");
    assert_eq!(guides(&house), told(&[("AGENTS.md", "secret of somebody else")]));
}

#[test]
fn only_so_many_directories_are_looked_at() {
    let house = House::new();
    let deep = vec!["d"; DIRECTORIES_MAX].join("/");
    house.write(AUTO, &format!("  workdir: {deep}\n"));
    house.folder.write(&format!("{deep}/x"), b"");
    house.folder.write("AGENTS.md", b"too far up");
    house.folder.write("d/AGENTS.md", b"the last one");
    assert_eq!(
        guides(&house),
        told(&[(&["../".repeat(DIRECTORIES_MAX - 1).as_str(), "AGENTS.md"].concat(), "the last one")])
    );
    assert_eq!(house.said(), ["DIR: warning: AGENTS.md is not looked for from here on up: 16 directories were"]);
}

#[test]
fn what_may_be_read_is_never_changed_whether_it_is_there_or_not() {
    let house = House::new();
    let spec = house.spec(AUTO, "  workdir: data\n");
    let named = |spec: &super::super::SandboxSpec| -> Vec<PathBuf> {
        let paths = spec.policy.read_only.iter().filter(|path| path.starts_with(&house.root));
        paths.cloned().collect()
    };
    let mut expected = house.real(&["data/AGENTS.md", "data/CLAUDE.md", "AGENTS.md", "CLAUDE.md"]);
    expected.sort();
    assert_eq!(named(&spec), expected);
    // The control: where they are not read they are files like others.
    assert_eq!(named(&house.spec(AUTO, "  workdir: data\n  agents_md: false\n")), [""; 0].map(PathBuf::from));
}
