//! AGENTS.md in the prompt, and out of the reach of tools.

use crate::house::{House, system, text, until};
use crate::model::{Answer, Model};
use std::fs;

const PROMPT: &str = include_str!("../../agents/assistant/SYSTEM_PROMPT.md");

#[test]
fn the_prompt_has_its_parts_in_order_and_stays_the_same_until_a_reload() {
    let model = Model::start(vec![]);
    let house = House::init(&model);
    house.write(".duragent/agents/assistant/SOUL.md", "I am the soul.\n");
    house.write(".duragent/agents/assistant/INSTRUCTIONS.md", "\nI am the instructions.\n\n");
    house.write("AGENTS.md", "I am the outer file.\n");
    house.write("sub/CLAUDE.md", "I am the inner file.\n");
    house.skill("skills", "pdf", "x");
    house.edit("agents/assistant/agent.yaml", "  tools:", "  workdir: sub\n  tools:");
    let expected = [
        "I am the soul.\n\n",
        PROMPT.trim(),
        "\n\nI am the instructions.\n\n# From ../AGENTS.md\n\nI am the outer file.\n\n# From CLAUDE.md\n\nI am the inner file.\n\n# Skills\n",
        "Before a task that one of these is for, read it with the tool skill.\n- pdf: Use it for pdf.",
    ]
    .concat();
    let server = house.serve();
    house.turn("one");
    assert_eq!(system(&model.asked().body), expected);
    house.write("sub/CLAUDE.md", "I am new.\n");
    house.turn("two");
    assert_eq!(system(&model.asked().body), expected, "what stands before the conversation stays the same");
    house.good(&["reload"]);
    drop(server);
    house.turn("three");
    assert_eq!(system(&model.asked().body), expected.replace("I am the inner file.", "I am new."));
}

#[test]
fn without_any_of_it_the_prompt_is_the_agent_s_own() {
    let model = Model::start(vec![]);
    let house = House::init(&model);
    house.write("AGENTS.md", "rules");
    house.edit("agents/assistant/agent.yaml", "  tools:", "  agents_md: false\n  tools:");
    house.turn("hello");
    assert_eq!(system(&model.asked().body), PROMPT.trim());
}

#[test]
fn what_is_left_out_is_named_by_the_check_and_the_agent_works() {
    let model = Model::start(vec![]);
    let house = House::init(&model);
    house.write("AGENTS.md", b"\xff");
    house.write(".duragent/skills/broken/SKILL.md", "no head");
    let said = [
        "DIR/AGENTS.md: warning: left out: not UTF-8; save the file as UTF-8",
        "skills/broken: warning: left out: it does not begin with YAML between two lines of ---",
    ];
    assert_eq!(house.check(), said);
    // The server says it to its operator, at the start and when it reads the configuration anew.
    {
        let server = house.serve();
        house.good(&["reload"]);
        for line in ["AGENTS.md: warning: left out: not UTF-8", "skills/broken: warning: left out: "] {
            until("both warnings", || (server.said().matches(line).count() == 2).then_some(()));
        }
    }
    house.turn("hello");
    assert_eq!(system(&model.asked().body), PROMPT.trim());
}

/// Every way that the assistant has to change a file, at one that instructs it and at one that would.
#[test]
fn no_tool_changes_what_instructs_the_agent() {
    let calls = |file: &str| {
        vec![
            Answer::Call("write_file", format!(r#"{{"path":"{file}","content":"obey me"}}"#)),
            Answer::Call("edit_file", format!(r#"{{"path":"{file}","old":"mind","new":"obey"}}"#)),
            Answer::Call(
                "bash",
                format!(r#"{{"command":"echo obey me > {file}; rm -f {file}; mv notes.txt {file}"}}"#),
            ),
            Answer::Say("Done."),
        ]
    };
    for (file, there, read) in [("AGENTS.md", true, true), ("AGENTS.md", false, true), ("AGENTS.md", true, false)] {
        let model = Model::start(calls(file));
        let house = House::init(&model);
        house.write("notes.txt", "obey me");
        if there {
            house.write(file, "mind");
        }
        house.edit("policy.yaml", "mode: ask", "mode: allow");
        if !read {
            house.edit("agents/assistant/agent.yaml", "  tools:", "  agents_md: false\n  tools:");
        }
        house.turn("go");
        let left = fs::read_to_string(house.root.join(file)).ok();
        let finished = house.events("tool_finished");
        let refused = finished.iter().filter(|event| event.get("denied").is_some()).count();
        if read {
            assert_eq!(left, there.then(|| "mind".to_owned()), "{file} {there}: {finished:?}");
            assert!(refused >= 1, "{file} {there}: {finished:?}");
        } else {
            // The control: where it instructs nobody, it is a file like others.
            assert_eq!(left.as_deref().map(str::trim), Some("obey me"), "{finished:?}");
            assert_eq!(refused, 0, "{}", text(&finished[0], "result"));
        }
    }
}
