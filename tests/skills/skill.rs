//! Skills from the catalogue to their files.

use crate::house::{House, system, tools};
use crate::model::{Answer, Model};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

fn call(arguments: &str) -> Answer {
    Answer::Call("skill", arguments.to_owned())
}

#[test]
fn an_agent_without_skills_has_neither_catalogue_nor_tool() {
    let model = Model::start(vec![call(r#"{"name":"pdf"}"#)]);
    let house = House::init(&model);
    house.turn("hello");
    let body = model.asked().body;
    assert_eq!(tools(&body), ["bash", "edit_file", "list_dir", "read_file", "search_files", "write_file"]);
    assert!(!system(&body).contains("# Skills"));
    assert!(house.results()[0].starts_with("there is no tool \"skill\""), "{:?}", house.results());
}

#[test]
fn a_skill_is_read_without_a_question_and_its_files_on_demand() {
    let model = Model::start(vec![
        call(r#"{"name":"pdf"}"#),
        call(r#"{"name":"pdf","file":"references/FORMS.md"}"#),
        call(r#"{"name":"pdf","file":"SKILL.md"}"#),
        call(r#"{"name":"odf"}"#),
        call(r#"{"name":"pdf","file":"none.md"}"#),
        call(r#"{"name":"pdf","file":"assets/logo.png"}"#),
        call(r#"{"name":"pdf","file":"references"}"#),
        call(r#"{"name":"pdf","file":"empty.md"}"#),
        call(r#"{"name":"bare"}"#),
        call(r#"{"file":"x"}"#),
    ]);
    let house = House::init(&model);
    let text = "---\nname: pdf\ndescription: Use it for pdf.\ncompatibility: Requires pdftotext\n---\n# PDF\n\nRun scripts/x.py.\n";
    house.write(".duragent/skills/pdf/SKILL.md", text);
    house.write(".duragent/skills/pdf/references/FORMS.md", "Fill them.\n");
    house.write(".duragent/skills/pdf/assets/logo.png", b"\x89PNG\0");
    house.write(".duragent/skills/pdf/empty.md", "");
    house.write(".duragent/skills/pdf/.git/config", "hidden");
    house.skill("skills", "bare", "");
    let folder = house.root.join(".duragent/skills/pdf").display().to_string();
    house.turn("go");
    assert!(tools(&model.asked().body).contains(&"skill".to_owned()));
    let body = format!(
        "Needs: Requires pdftotext\n\n# PDF\n\nRun scripts/x.py.\n\nFiles of this skill, in {folder}:\nassets/logo.png 5\nempty.md 0\nreferences/FORMS.md 11"
    );
    let results = house.results();
    let expected = [
        body.as_str(),
        "Fill them.\n",
        text,
        "there is no skill \"odf\"; there are: bare, pdf",
        "there is no file \"none.md\" in the skill \"pdf\"; without file, skill lists them",
        "\"assets/logo.png\" is a binary file of 5 bytes; bash can look into it",
    ];
    assert_eq!(results[..6], expected);
    assert!(results[6].starts_with("cannot read \"references\": it is a directory"), "{results:?}");
    assert_eq!(results[7..9], ["[the file is empty]", "[it says nothing more]"]);
    assert!(results[9].starts_with("wrong arguments: name is missing"), "{results:?}");
    assert_eq!(house.events("approval_requested").len(), 0);
    assert_eq!(house.events("tool_started").len(), 10);
}

#[test]
fn policy_decides_on_skills_as_on_other_calls() {
    let answers = || vec![call(r#"{"name":"pdf"}"#), call(r#"{"name":"odf"}"#)];
    for (rule, code, results) in [
        ("allow:\n  - \"skill:pdf\"\ndeny:\n  - \"skill:o*\"\n", Some(0), vec!["the pdf", "refused by policy"]),
        ("mode: ask\n", Some(4), vec![]),
        ("mode: allow\n", Some(0), vec!["the pdf", "the odf"]),
    ] {
        let model = Model::start(answers());
        let house = House::init(&model);
        house.skill("skills", "pdf", "the pdf");
        house.skill("skills", "odf", "the odf");
        house.write(".duragent/policy.yaml", rule);
        let ended = house.run(&["run", "assistant", "--session", "s", "go"]);
        assert_eq!((ended.code, house.results()), (code, results.iter().map(|&r| r.to_owned()).collect()), "{ended:?}");
    }
}

#[test]
fn no_path_leads_out_of_a_skill() {
    const OUT: [&str; 6] =
        ["../../duragent.yaml", "/etc/passwd", "link.md", "dir/passwd", "./../pdf/../../policy.yaml", "deep/link.md"];
    let answers =
        |files: &[&str]| files.iter().map(|file| call(&format!(r#"{{"name":"pdf","file":"{file}"}}"#))).collect();
    let build = |model: &Model| {
        let house = House::init(model);
        house.skill("skills", "pdf", "x");
        house.write(".duragent/skills/pdf/deep/good.md", "good");
        let at = |name: &str| house.root.join(".duragent/skills/pdf").join(name);
        symlink("../../duragent.yaml", at("link.md")).expect("a link");
        symlink("/etc", at("dir")).expect("a link");
        symlink(house.root.join("secret"), at("deep/link.md")).expect("a link");
        symlink("deep/good.md", at("inside.md")).expect("a link");
        house.write("secret", "secret");
        house
    };
    let model = Model::start(answers(&OUT));
    let house = build(&model);
    house.turn("go");
    let finished = house.events("tool_finished");
    assert_eq!(finished.len(), OUT.len());
    for (event, path) in finished.iter().zip(OUT) {
        let denied = event.get("denied").unwrap_or_else(|| panic!("{path}: {event}")).to_string();
        assert!(denied.contains(r#""kind":"fs""#), "{path}: {event}");
        assert!(!event.to_string().contains("root:") && !event.to_string().contains("sandbox:"), "{path}: {event}");
    }
    // The control: what is in it is read, also through a link that stays in it.
    let model = Model::start(answers(&["deep/good.md", "inside.md", "./deep/../deep/good.md"]));
    let house = build(&model);
    house.turn("go");
    assert_eq!(house.results(), ["good"; 3]);
}

#[test]
fn what_is_longer_than_a_result_may_be_is_cut_and_kept_whole() {
    let model = Model::start(vec![call(r#"{"name":"long"}"#), call(r#"{"name":"long","file":"data.txt"}"#)]);
    let house = House::init(&model);
    house.write(".duragent/duragent.yaml", "sandbox: {mode: trust, limits: {output_bytes: 1024}}\n");
    let body = "All work and no play.\n".repeat(200);
    house.skill("skills", "long", &body);
    house.write(".duragent/skills/long/data.txt", &body);
    house.turn("go");
    for (result, event) in house.results().iter().zip(house.events("tool_finished")) {
        assert!(result.len() < 1024 + 200 && result.contains("bytes left out"), "{result}");
        let artifact = crate::house::text(&event, "artifact");
        let whole = house.read(&format!(".duragent/sessions/s/artifacts/{artifact}"));
        assert!(whole.starts_with(body.trim_end()), "{artifact}");
    }
    assert!(house.results()[0].ends_with("data.txt 4400"), "the list of files is at the end: {:?}", house.results());
}

/// What a skill says to run is found where it says, in every sandbox, and cannot be changed from inside.
#[test]
fn scripts_of_a_skill_run_and_are_never_changed() {
    for mode in ["bubblewrap", "landlock", "trust"] {
        let model = Model::start(vec![]);
        let house = House::init(&model);
        let folder = house.root.join(".duragent/agents/assistant/skills/pdf").display().to_string();
        let other = house.root.join(".duragent/skills/odf").display().to_string();
        let commands = [
            format!("{folder}/scripts/x.sh"),
            format!("echo evil > {folder}/scripts/x.sh; echo evil > {folder}/new"),
            format!("cat {other}/SKILL.md || ls {other} || ls {folder}/../.. || cat .duragent/duragent.yaml"),
        ];
        let calls = commands.iter().map(|c| Answer::Call("bash", format!(r#"{{"command":"{c}"}}"#))).collect();
        let model = Model::start(calls);
        let house = house.with(&model);
        house.edit("duragent.yaml", "mode: auto", &format!("mode: {mode}"));
        house.edit("policy.yaml", "mode: ask", "mode: allow");
        house.edit("agents/assistant/agent.yaml", "  tools:", "  skills: [pdf]\n  tools:");
        house.skill("agents/assistant/skills", "pdf", "x");
        house.skill("skills", "odf", "secret");
        let script = ".duragent/agents/assistant/skills/pdf/scripts/x.sh";
        house.write(script, "#!/bin/sh\necho I ran\n");
        fs::set_permissions(house.root.join(script), fs::Permissions::from_mode(0o755)).expect("chmod");
        house.turn("go");
        let results = house.results();
        assert_eq!(results[0], "I ran\n", "{mode}");
        let walled = mode != "trust";
        assert_eq!(house.read(script).contains("I ran"), walled, "{mode}: {}", results[1]);
        assert_eq!(house.root.join(&folder).join("new").exists(), !walled, "{mode}: {}", results[1]);
        // The control is trust: there nothing is hidden.
        assert_eq!(results[2].contains("secret"), !walled, "{mode}: {}", results[2]);
        assert!(!walled || !results[2].contains("sandbox:"), "{mode}: {}", results[2]);
    }
}
