use super::super::skills::{FILE_BYTES_MAX, SKILLS_MAX};
use super::house::House;
use super::*;
use std::os::unix::fs::symlink;

const AUTO: &str = "sandbox: {mode: auto}\n";

/// Name and description of the agent's skills.
fn skills(house: &House) -> Vec<(String, String)> {
    let workspace = house.workspace();
    let agent = workspace.agents.get("a").and_then(|a| a.as_ref().ok()).expect("a usable agent");
    agent.spec.skills.iter().map(|skill| (skill.name.clone(), skill.description.clone())).collect()
}

fn names(house: &House) -> Vec<String> {
    skills(house).into_iter().map(|(name, _)| name).collect()
}

/// Puts a skill into `place` of the workspace.
fn put(house: &House, place: &str, text: &str) {
    house.folder.write(&format!(".duragent/{place}/SKILL.md"), text.as_bytes());
}

fn plain(name: &str) -> String {
    format!("---\nname: {name}\ndescription: Does {name}.\n---\n# {name}\n")
}

/// What is said of a `SKILL.md` in `agents/a/skills/pdf`, and whether the skill is on offer.
fn check(text: &[u8], offered: Option<(&str, &str)>, said: &[&str]) {
    let house = House::new();
    house.write(AUTO, "");
    house.folder.write(".duragent/agents/a/skills/pdf/SKILL.md", text);
    let shown = String::from_utf8_lossy(text);
    let expected: Vec<(String, String)> = offered.map(|(n, d)| (n.to_owned(), d.to_owned())).into_iter().collect();
    assert_eq!(skills(&house), expected, "{shown}");
    let lines = house.said();
    let lines: Vec<&str> = lines.iter().map(|l| l.strip_prefix("agents/a/skills/pdf").unwrap_or(l)).collect();
    assert_eq!(lines, said, "{shown}");
}

#[test]
fn what_is_right_is_taken_without_a_word() {
    let good = Some(("pdf", "Reads PDF files."));
    for head in [
        "name: pdf\ndescription: Reads PDF files.\n",
        "name: pdf\ndescription: >\n  Reads PDF\n  files.\n",
        "name: \" pdf \"\ndescription: |\n  Reads PDF files.\n",
        "# a comment\nname: pdf\ndescription: Reads PDF files.\nlicense: MIT\ncompatibility: Requires Python 3.11+\nallowed-tools: Bash(jq:*) Bash(git:*)\nmetadata:\n  author: Test\n  version: 1.0\n",
        "name: pdf\ndescription: Reads PDF files.\nallowed-tools: [Bash, Read]\n",
    ] {
        check(format!("---\n{head}---\n# PDF\n").as_bytes(), good, &[]);
        check(format!("\u{feff}---\n{head}---\n").replace('\n', "\r\n").as_bytes(), good, &[]);
    }
}

#[test]
fn what_is_merely_off_is_named_and_taken() {
    let off = |head: &str, name: &str, said: &[&str]| {
        check(format!("---\n{head}description: D\n---\n").as_bytes(), Some((name, "D")), said);
    };
    let rule = "is not what the format asks for: at most 64 small letters, digits and single hyphens between them";
    off("", "pdf", &["/SKILL.md:2:1: warning: name: expected the name of the folder, which is used"]);
    off("name: ''\n", "pdf", &["/SKILL.md:2:7: warning: name: expected the name of the folder, which is used"]);
    off(
        &format!("name: {}\n", "a".repeat(256)),
        "pdf",
        &["/SKILL.md:2:7: warning: name: expected the name of the folder, which is used"],
    );
    off(
        "name: odf\n",
        "odf",
        &["/SKILL.md:2:7: warning: name: \"odf\" is not the name of its folder, \"pdf\"; the skill is called \"odf\""],
    );
    for name in ["PDF", "p_d_f", "-pdf", "pdf-", "p--df", "p d f"] {
        let proper = format!("/SKILL.md:2:7: warning: name: \"{name}\" {rule}");
        let folder = format!(
            "/SKILL.md:2:7: warning: name: \"{name}\" is not the name of its folder, \"pdf\"; the skill is called \"{name}\""
        );
        off(&format!("name: {name}\n"), name, &[&proper, &folder]);
    }
    off(
        "name: pdf\nversion: 1\n",
        "pdf",
        &[
            "/SKILL.md:3:1: warning: unknown key \"version\" at the top level (expected one of name, description, license, compatibility, metadata, allowed-tools)",
        ],
    );
    off("name: pdf\nname: other\n", "pdf", &["/SKILL.md:3:1: warning: duplicate key \"name\" (first at line 2)"]);
    off("name: pdf\nmetadata: x\n", "pdf", &["/SKILL.md:3:11: warning: metadata: expected a mapping, found \"x\""]);
    off(
        &format!("name: pdf\ncompatibility: {}\n", "é".repeat(501)),
        "pdf",
        &["/SKILL.md:3:16: warning: compatibility: more than the 500 characters that the format allows"],
    );
    off(&format!("name: pdf\ncompatibility: {}\n", "é".repeat(500)), "pdf", &[]);
    let long = "x".repeat(1025);
    check(
        format!("---\nname: pdf\ndescription: {long}\n---\n").as_bytes(),
        Some(("pdf", &long)),
        &["/SKILL.md:3:14: warning: description: more than the 1024 characters that the format allows"],
    );
    // Not YAML, and meant well all the same.
    check(
        b"---\nname: pdf\ndescription: Use this when: \"PDF\" is said # here\n---\n",
        Some(("pdf", "Use this when: \"PDF\" is said # here")),
        &[
            "/SKILL.md: warning: line 3, column 27: mapping values are not allowed in this context; read with the text behind each colon in quotes",
        ],
    );
}

#[test]
fn what_cannot_be_used_is_left_out_with_the_reason() {
    let left = |text: &[u8], why: &str| check(text, None, &[&format!(": warning: left out: {why}")]);
    left(b"# No frontmatter here", "it does not begin with YAML between two lines of ---");
    left(b"---\nname: pdf\ndescription: D\n", "it does not begin with YAML between two lines of ---");
    left(b"---\n- just\n- a\n- list\n---\n", "what stands between its lines of --- is no mapping (key: value)");
    left(b"---\n---\nx", "what stands between its lines of --- is no mapping (key: value)");
    left(b"---\nname: pdf\n---\nx", "it has no description, which is what a model chooses by");
    left(b"---\nname: pdf\ndescription: ' '\n---\nx", "it has no description, which is what a model chooses by");
    left(b"---\nname: pdf\ndescription: \xff\n---\n", "SKILL.md is not UTF-8");
    left(
        &[b"---\nname: pdf\ndescription: D\n---\n".as_slice(), &vec![b'x'; FILE_BYTES_MAX]].concat(),
        "SKILL.md has more than 65536 bytes",
    );
    left(
        b"---\nname: [invalid\ndescription: broken\n---\nBody",
        "line 3, column 12: did not find expected ',' or ']', while parsing a flow sequence",
    );
    let house = House::new();
    house.write(AUTO, "");
    house.folder.write(".duragent/skills/empty/README.md", b"x");
    house.folder.write(".duragent/skills/README.md", b"no folder, and no business of ours");
    house.folder.write(".duragent/skills/.git/SKILL.md", b"hidden");
    assert_eq!(
        (names(&house), house.said()),
        (vec![], vec!["skills/empty: warning: left out: there is no SKILL.md in it".to_owned()])
    );
}

#[test]
fn one_that_is_broken_keeps_no_other_and_no_agent_from_being_used() {
    let house = House::new();
    house.write(AUTO, "");
    put(&house, "skills/b", "nothing");
    put(&house, "skills/a", &plain("a"));
    put(&house, "agents/a/skills/c", &plain("c"));
    assert_eq!(names(&house), ["c", "a"]);
    assert_eq!(house.report().errors, 0);
}

#[test]
fn the_agent_s_own_come_first_and_win() {
    let house = House::new();
    house.write(AUTO, "");
    put(&house, "agents/a/skills/b", &plain("b").replace("Does", "Owns"));
    for name in ["c", "b", "a"] {
        put(&house, &format!("skills/{name}"), &plain(name));
    }
    house.folder.write(".duragent/skills/d/skill.md", plain("d").as_bytes());
    let found = skills(&house);
    assert_eq!(found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b", "a", "c", "d"]);
    assert_eq!(found[0].1, "Owns b.");
    assert_eq!(house.said(), ["skills/b: warning: left out: there is a skill \"b\" already"]);
}

#[test]
fn a_list_says_which_are_on_offer() {
    let house = House::new();
    for name in ["a", "b"] {
        put(&house, &format!("skills/{name}"), &plain(name));
    }
    for (keys, offered, said) in [
        ("", &["a", "b"][..], &[][..]),
        ("  skills:\n", &["a", "b"], &[]),
        ("  skills: [b]\n", &["b"], &[]),
        ("  skills: []\n", &[], &[]),
        (
            "  skills: [b, c, a]\n",
            &["a", "b"],
            &["6:15: warning: spec.skills[1]: there is no skill \"c\" that can be used (did you mean \"a\"?)"],
        ),
        (
            "  skills: [beware]\n",
            &[],
            &["6:12: warning: spec.skills[0]: there is no skill \"beware\" that can be used"],
        ),
    ] {
        house.write(AUTO, keys);
        let lines = house.said();
        let lines: Vec<&str> = lines.iter().map(|l| l.strip_prefix("agents/a/agent.yaml:").unwrap_or(l)).collect();
        assert_eq!((names(&house), lines), (offered.iter().map(|&n| n.to_owned()).collect(), said.to_vec()), "{keys}");
    }
    house.write(AUTO, "  skills: [{name: a}]\n");
    assert_eq!(
        house.said(),
        ["agents/a/agent.yaml:6:12: spec.skills[0]: expected the name of a skill, found a mapping"]
    );
    house.write(AUTO, "  skills: a\n");
    assert_eq!(house.said(), ["agents/a/agent.yaml:6:11: spec.skills: expected a list, found \"a\""]);
}

#[test]
fn a_folder_of_skills_may_have_another_name() {
    let house = House::new();
    put(&house, "agents/a/abilities/x", &plain("x"));
    house.write(AUTO, "  skills_dir: ./abilities/\n");
    assert_eq!((names(&house), house.said()), (vec!["x".to_owned()], vec![]));
    house.write(AUTO, "  skills_dir: none\n");
    assert_eq!(
        (names(&house), house.said()),
        (vec![], vec!["agents/a/agent.yaml:6:15: warning: spec.skills_dir: there is no such folder".to_owned()])
    );
}

#[test]
fn links_are_followed_inside_the_workspace_and_nowhere_else() {
    let house = House::new();
    house.write(AUTO, "");
    let outside = Folder::with(&[("x/SKILL.md", plain("x").as_bytes())]);
    put(&house, "shared/y", &plain("y"));
    fs::create_dir_all(house.root.join(".duragent/skills")).expect("mkdir");
    symlink("../shared/y", house.root.join(".duragent/skills/y")).expect("a link");
    symlink(outside.0.join("x"), house.root.join(".duragent/skills/x")).expect("a link");
    symlink(&outside.0, house.root.join(".duragent/agents/a/skills")).expect("a link");
    assert_eq!(names(&house), ["y"]);
    let left = "warning: left out: the symbolic link leads out of the workspace";
    assert_eq!(house.said(), [format!("agents/a/skills/x: {left}"), format!("skills/x: {left}")]);
    // A file of a skill that leads out of it is not read either.
    fs::remove_file(house.root.join(".duragent/skills/x")).expect("removed");
    fs::remove_file(house.root.join(".duragent/agents/a/skills")).expect("removed");
    fs::create_dir_all(house.root.join(".duragent/skills/z")).expect("mkdir");
    let file = house.root.join(".duragent/skills/z/SKILL.md");
    symlink(house.root.join(".duragent/shared/y/SKILL.md"), &file).expect("a link");
    assert_eq!(names(&house), ["y"]);
    assert!(house.said()[0].starts_with("skills/z: warning: left out: cannot read SKILL.md: "), "{:?}", house.said());
    // The control: the same file, copied.
    fs::remove_file(&file).expect("removed");
    fs::write(&file, plain("z")).expect("written");
    assert_eq!((names(&house), house.said()), (vec!["y".to_owned(), "z".to_owned()], vec![]));
}

#[test]
fn an_agent_whose_folder_is_elsewhere_has_its_skills_there() {
    let house = House::new();
    house.write(AUTO, "");
    fs::rename(house.root.join(".duragent/agents/a"), house.root.join("elsewhere")).expect("moved");
    symlink(house.root.join("elsewhere"), house.root.join(".duragent/agents/a")).expect("a link");
    house.folder.write("elsewhere/skills/x/SKILL.md", plain("x").as_bytes());
    assert_eq!((names(&house), house.said()), (vec!["x".to_owned()], vec![]));
}

#[test]
fn there_are_only_so_many() {
    let house = House::new();
    house.write(AUTO, "");
    for n in 0..=SKILLS_MAX {
        let name = format!("s{n:03}");
        put(&house, &format!("skills/{name}"), &plain(&name));
    }
    assert_eq!(names(&house).len(), SKILLS_MAX);
    assert_eq!(house.said(), ["skills/s064: warning: it and those after it are left out: more than 64 skills"]);
}

#[test]
fn tools_may_read_the_folders_of_skills_and_nothing_beside_them() {
    let house = House::new();
    put(&house, "skills/x", &plain("x"));
    put(&house, "skills/y", &plain("y"));
    let spec = house.spec(AUTO, "  skills: [x]\n");
    assert_eq!(spec.policy.read, house.real(&[".duragent/skills/x"]));
}

#[test]
fn the_dump_says_what_is_on_offer_and_what_is_never_changed() {
    let house = House::new();
    put(&house, "skills/x", &plain("x"));
    put(&house, "skills/y", &plain("y"));
    for (keys, said) in [
        ("", "  agents_md: true\n  skills: [\"x\", \"y\"]\n"),
        ("  agents_md: false\n  skills: []\n", "  agents_md: false\n  skills: []\n"),
    ] {
        house.write(AUTO, keys);
        let dump = house.report().dump.expect("a dump");
        assert!(dump.contains(said), "{keys}\n{dump}");
        let protected = format!("never changed: {}/AGENTS.md\n", house.root.display());
        assert_eq!(dump.contains(&protected), keys.is_empty(), "{keys}\n{dump}");
    }
}
