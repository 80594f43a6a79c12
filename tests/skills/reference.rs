//! The cases of the format's own validator (skills-ref, tests/test_parser.py and tests/test_validator.py): what is good there
//! loads here, and of what is bad all that can be used.

use crate::house::{House, system};
use crate::model::Model;

/// Folder, file, text; and the name that it is offered by.
type Case<'c> = (&'c str, &'c str, &'c str, &'c str);

const GOOD: [Case<'_>; 12] = [
    (
        "my-skill",
        "SKILL.md",
        "name: my-skill\ndescription: A test skill\n---\n# My Skill\n\nInstructions here.\n",
        "my-skill",
    ),
    ("my-skill", "SKILL.md", "name: my-skill\ndescription: A test skill\nlicense: MIT\n---\n# My Skill\n", "my-skill"),
    (
        "my-skill",
        "SKILL.md",
        "name: my-skill\ndescription: A test skill\nmetadata:\n  author: Test Author\n  version: 1.0\n---\nBody\n",
        "my-skill",
    ),
    ("my-skill", "skill.md", "name: my-skill\ndescription: A test skill\n---\n# My Skill\n", "my-skill"),
    (
        "my-skill",
        "SKILL.md",
        "name: my-skill\ndescription: A test skill\nallowed-tools: Bash(jq:*) Bash(git:*)\n---\nBody\n",
        "my-skill",
    ),
    (
        "my-skill",
        "SKILL.md",
        "name: my-skill\ndescription: A test skill\nlicense: MIT\nmetadata:\n  author: Test\n---\nBody\n",
        "my-skill",
    ),
    (
        "my-skill",
        "SKILL.md",
        "name: my-skill\ndescription: A test skill\ncompatibility: Requires Python 3.11+\n---\nBody\n",
        "my-skill",
    ),
    (
        "special-skill",
        "SKILL.md",
        "name: special-skill\ndescription: A test skill\n---\nUse <foo> & <bar>\n",
        "special-skill",
    ),
    ("技能", "SKILL.md", "name: 技能\ndescription: A test skill\n---\nBody\n", "技能"),
    ("мой-навык", "SKILL.md", "name: мой-навык\ndescription: A test skill\n---\nBody\n", "мой-навык"),
    ("навык", "SKILL.md", "name: навык\ndescription: A test skill\n---\nBody\n", "навык"),
    ("café", "SKILL.md", "name: cafe\u{301}\ndescription: A test skill\n---\nBody\n", "cafe\u{301}"),
];

/// Bad there, and usable.
const OFF: [Case<'_>; 8] = [
    ("my-skill", "SKILL.md", "description: A test skill\n---\nBody\n", "my-skill"),
    ("MySkill", "SKILL.md", "name: MySkill\ndescription: A test skill\n---\nBody\n", "MySkill"),
    ("-my-skill", "SKILL.md", "name: -my-skill\ndescription: A test skill\n---\nBody\n", "-my-skill"),
    ("my--skill", "SKILL.md", "name: my--skill\ndescription: A test skill\n---\nBody\n", "my--skill"),
    ("my_skill", "SKILL.md", "name: my_skill\ndescription: A test skill\n---\nBody\n", "my_skill"),
    ("wrong-name", "SKILL.md", "name: correct-name\ndescription: A test skill\n---\nBody\n", "correct-name"),
    ("my-skill", "SKILL.md", "name: my-skill\ndescription: A test skill\nunknown_field: x\n---\nBody\n", "my-skill"),
    ("НАВЫК", "SKILL.md", "name: НАВЫК\ndescription: A test skill\n---\nBody\n", "НАВЫК"),
];

/// Bad there and here; the last is no file of a skill at all.
const UNUSABLE: [Case<'_>; 4] = [
    ("my-skill", "SKILL.md", "name: my-skill\n---\nBody\n", ""),
    ("my-skill", "SKILL.md", "name: my-skill\ndescription: A test skill\n", ""),
    ("my-skill", "SKILL.md", "- just\n- a\n- list\n---\nBody\n", ""),
    ("my-skill", "README.md", "name: my-skill\ndescription: A test skill\n---\nBody\n", ""),
];

/// What the check says of a case, and what the model is told.
fn load((folder, file, text, _): &Case<'_>) -> (Vec<String>, String) {
    let model = Model::start(vec![]);
    let house = House::init(&model);
    house.write(&format!(".duragent/skills/{folder}/{file}"), format!("---\n{text}"));
    let said = house.check();
    house.turn("hello");
    (said, system(&model.asked().body))
}

#[test]
fn every_good_case_of_the_reference_loads_without_a_word() {
    for case in &GOOD {
        let (said, system) = load(case);
        assert_eq!(said, [""; 0], "{case:?}");
        assert!(system.ends_with(&format!("\n- {}: A test skill", case.3)), "{case:?}: {system}");
    }
}

#[test]
fn what_is_merely_off_loads_with_a_warning() {
    for case in &OFF {
        let (said, system) = load(case);
        let place = format!("skills/{}/SKILL.md:", case.0);
        assert!(!said.is_empty() && said.iter().all(|line| line.starts_with(&place)), "{case:?}: {said:?}");
        assert!(said.iter().all(|line| line.contains(": warning: ")), "{case:?}: {said:?}");
        assert!(system.ends_with(&format!("\n- {}: A test skill", case.3)), "{case:?}: {system}");
    }
}

#[test]
fn what_cannot_be_used_is_left_out_with_a_warning_and_the_agent_works() {
    for case in &UNUSABLE {
        let (said, system) = load(case);
        assert_eq!(said.len(), 1, "{case:?}: {said:?}");
        assert!(said[0].starts_with("skills/my-skill: warning: left out: "), "{case:?}: {said:?}");
        assert!(!system.contains("# Skills"), "{case:?}: {system}");
    }
}
