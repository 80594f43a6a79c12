//! Agent Skills (agentskills.io/specification): what a `SKILL.md` is made of, and how a model is told that there are some.
//!
//! Absent: files and YAML (`config` finds skills and reads what stands at their head), the tool that reads them to a model.

use alloc::string::String;

/// Most characters of a description in the catalogue, which goes with every request. The format allows 1,024; what a skill
/// is for is said in its first sentences.
pub const CATALOGUE_CHARS_MAX: usize = 200;

/// Names of the file that makes a folder a skill, the right one first.
pub const FILE_NAMES: [&str; 2] = ["SKILL.md", "skill.md"];

/// What the catalogue begins with.
const CATALOGUE_HEAD: &str = "# Skills\nBefore a task that one of these is for, read it with the tool skill.";

/// A skill on offer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skill {
    /// What the model calls it by: one line, not empty.
    pub name: String,
    /// What it does and when to use it: one line, not empty.
    pub description: String,
    /// What it needs of its surroundings; empty if it does not say.
    pub compatibility: String,
    /// Its folder: absolute, without symbolic links.
    pub folder: String,
}

/// Parts a `SKILL.md` into the YAML at its head, without the lines of `---` around it, and the text behind that, trimmed.
/// `None` if it does not begin with a line of `---`, or no other follows. A byte order mark is passed over.
#[must_use]
pub fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.split_inclusive('\n');
    let first = lines.next().filter(|line| is_fence(line))?;
    let mut end = first.len();
    for line in lines {
        if is_fence(line) {
            return Some((text.get(first.len()..end)?, text.get(end + line.len()..)?.trim()));
        }
        end += line.len();
    }
    None
}

fn is_fence(line: &str) -> bool {
    line.trim_ascii_end() == "---"
}

/// `text` on one line: every run of white space and control characters is one space.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// What the system prompt says of `skills`: one line each. Nothing if there are none.
#[must_use]
pub fn catalogue(skills: &[Skill]) -> String {
    let mut out = String::new();
    for skill in skills {
        if out.is_empty() {
            out.push_str(CATALOGUE_HEAD);
        }
        out.push_str("\n- ");
        out.push_str(&skill.name);
        out.push_str(": ");
        match skill.description.char_indices().nth(CATALOGUE_CHARS_MAX) {
            Some(_) => {
                // One for the ellipsis.
                out.extend(skill.description.chars().take(CATALOGUE_CHARS_MAX - 1));
                out.push('…');
            }
            None => out.push_str(&skill.description),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned;

    #[test]
    fn a_file_is_parted_at_its_fences() {
        for (text, expected) in [
            ("---\nname: a\n---\n# A\n", Some(("name: a\n", "# A"))),
            ("\u{feff}---\nname: a\n---\n", Some(("name: a\n", ""))),
            ("---\r\nname: a\r\n--- \r\nx\r\n", Some(("name: a\r\n", "x"))),
            ("---\n---\nx", Some(("", "x"))),
            ("---\na: b--- c\n---\nx\n---\ny", Some(("a: b--- c\n", "x\n---\ny"))),
            ("---\nname: a\n---", Some(("name: a\n", ""))),
            ("", None),
            ("# A\n", None),
            ("---\nname: a\n", None),
            (" ---\nname: a\n---\n", None),
            ("---name: a\n---\n", None),
        ] {
            assert_eq!(split(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_catalogue_has_a_line_for_each_and_cuts_what_is_long() {
        let skill = |name: &str, description: String| Skill { name: name.to_owned(), description, ..Skill::default() };
        assert_eq!(catalogue(&[]), "");
        let (whole, long) = ("é".repeat(CATALOGUE_CHARS_MAX), "é".repeat(CATALOGUE_CHARS_MAX + 1));
        let found = catalogue(&[skill("a", "Does a.".to_owned()), skill("b", whole.clone()), skill("c", long)]);
        let cut = "é".repeat(CATALOGUE_CHARS_MAX - 1);
        assert_eq!(found, [CATALOGUE_HEAD, "\n- a: Does a.\n- b: ", &whole, "\n- c: ", &cut, "…"].concat());
    }

    #[test]
    fn one_line_is_one_line() {
        for (text, expected) in
            [("", ""), (" \n", ""), ("a", "a"), (" a\n\tb \u{1b}[1mc\u{85}", "a b [1mc"), ("a\u{a0}b", "a b")]
        {
            assert_eq!(one_line(text), expected, "{text:?}");
        }
    }
}
