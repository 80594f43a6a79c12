//! Finds Agent Skills (agentskills.io/specification): folders with a `SKILL.md`, of an agent and of the workspace.
//!
//! Lenient: skills are written for many programs. What is merely off is a warning; what cannot be used is left out with a
//! warning that says why; nothing here keeps an agent from being used.
//!
//! Invariants: a folder is inside the workspace once links are followed, and no file is opened through a link out of its
//! folder. The order is that of the names, so that the catalogue stays the same, byte for byte.
//!
//! Absent: `license`, `metadata` and `allowed-tools` are understood and not used. Policy alone says which calls may run.

use super::problem::Problem;
use super::read::{self, Problems, Section};
use super::yaml::{self, Document, Fault, Kind, Node};
use duragent_core::json::write_string;
use duragent_core::skill::{FILE_NAMES, Skill, one_line, split};
use duragent_platform::sandbox::{Access, View};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Most bytes of one `SKILL.md`. 64 KiB: three times the 5,000 tokens that the format asks for.
pub const FILE_BYTES_MAX: usize = 64 * 1024;

/// Skills of one folder; each is a line of every request.
pub const SKILLS_MAX: usize = 64;

/// Characters of a name, a description and what is said of compatibility, as the format has them.
const NAME_CHARS_MAX: usize = 64;
const DESCRIPTION_CHARS_MAX: usize = 1024;
const COMPATIBILITY_CHARS_MAX: usize = 500;

/// Bytes of a name that can be used at all: as long as a folder's may be.
const NAME_BYTES_MAX: usize = 255;

const KEYS: [&str; 6] = ["name", "description", "license", "compatibility", "metadata", "allowed-tools"];

/// A folder whose folders are skills.
#[derive(Debug)]
pub struct Place<'p> {
    /// Where it is.
    pub dir: &'p Path,
    /// What people call it: `agents/assistant/skills`.
    pub shown: &'p str,
    /// It, and all it leads to, have to be in one of these. Without symbolic links.
    pub inside: &'p [PathBuf],
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// In the order of their names within a place.
    pub skills: Vec<Skill>,
    /// What is off, and what was left out, with the reason.
    pub warnings: Vec<Problem>,
}

impl Found {
    /// Takes the skills of one more place; those that are there already win.
    pub fn add(&mut self, place: &Place<'_>) {
        let names = match names(place.dir) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.warn(place.shown, format!("cannot read: {error}")),
        };
        let mut taken = 0;
        for name in names {
            let dir = place.dir.join(&name);
            let shown = [place.shown, "/", &name].concat();
            let Some(folder) = fs::canonicalize(&dir).ok().filter(|folder| folder.is_dir()) else { continue };
            if !place.inside.iter().any(|above| folder.starts_with(above)) {
                self.warn(&shown, "left out: the symbolic link leads out of the workspace".to_owned());
                continue;
            }
            if taken == SKILLS_MAX {
                let message = format!("it and those after it are left out: more than {SKILLS_MAX} skills");
                return self.warn(&shown, message);
            }
            taken += 1;
            match self.skill(&folder, &name, &shown) {
                Ok(skill) if self.skills.iter().any(|known| known.name == skill.name) => {
                    self.warn(&shown, format!("left out: there is a skill {:?} already", skill.name));
                }
                Ok(skill) => self.skills.push(skill),
                Err(why) => self.warn(&shown, ["left out: ", &why].concat()),
            }
        }
    }

    /// The skill in `folder`, which is called `name` where it was found; or why there is none.
    fn skill(&mut self, folder: &Path, name: &str, shown: &str) -> Result<Skill, String> {
        let path = folder.to_str().ok_or("the path of its folder is not UTF-8")?.to_owned();
        let (file, text) = text(folder)?;
        let file = [shown, "/", file].concat();
        let (head, _) = split(&text).ok_or("it does not begin with YAML between two lines of ---")?;
        // In place of the first line of ---, so that lines are counted as in the file.
        let head = ["\n", head].concat();
        let (root, document) = match yaml::parse(head.as_bytes()) {
            Ok(parsed) => parsed,
            Err(fault) => {
                let parsed = mended(&head).ok_or_else(|| told(&fault))?;
                self.warn(&file, format!("{}; read with the text behind each colon in quotes", told(&fault)));
                parsed
            }
        };
        if !matches!(root.kind, Kind::Map(_)) {
            return Err("what stands between its lines of --- is no mapping (key: value)".to_owned());
        }
        let problems = Problems::new(&file, &document);
        let skill = properties(&root, &problems, name, path);
        // Errors elsewhere; here they keep nobody from anything.
        self.warnings.extend(problems.finish().into_iter().map(|problem| Problem { warning: true, ..problem }));
        skill
    }

    fn warn(&mut self, shown: &str, message: String) {
        self.warnings.push(Problem { warning: true, ..Problem::file(shown, message) });
    }
}

/// Names in a directory but hidden ones, in order. What is not UTF-8 cannot be a skill's name.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string().ok().filter(|name| !name.starts_with('.')));
    }
    names.sort_unstable();
    Ok(names)
}

/// Name and text of the file that makes `folder` a skill.
fn text(folder: &Path) -> Result<(&'static str, String), String> {
    let view = View::only(folder, &[]);
    for name in FILE_NAMES {
        let mut bytes = Vec::new();
        let limit = FILE_BYTES_MAX as u64 + 1;
        let open = |name: &str| view.open(Path::new(name), Access::Read);
        match open(name).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
            Ok(_) if bytes.len() > FILE_BYTES_MAX => {
                return Err(format!("{name} has more than {FILE_BYTES_MAX} bytes"));
            }
            Ok(_) => {
                let text = String::from_utf8(bytes).map_err(|_| [name, " is not UTF-8"].concat())?;
                return Ok((name, text));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("cannot read {name}: {error}")),
        }
    }
    Err("there is no SKILL.md in it".to_owned())
}

/// What the head says, or why that is not enough.
fn properties(root: &Node, problems: &Problems<'_>, folder: &str, path: String) -> Result<Skill, String> {
    let top = Section::top(root, problems);
    top.keys(&KEYS, &[]);
    let text = |key: &str| one_line(&top.loose_text(key).unwrap_or_default());
    let long = |key: &str, text: &str, max: usize| {
        if text.chars().nth(max).is_some() {
            top.warn(key, &format!("more than the {max} characters that the format allows"));
        }
    };
    let description = text("description");
    if description.is_empty() {
        return Err("it has no description, which is what a model chooses by".to_owned());
    }
    let compatibility = text("compatibility");
    let mut name = text("name");
    long("description", &description, DESCRIPTION_CHARS_MAX);
    long("compatibility", &compatibility, COMPATIBILITY_CHARS_MAX);
    if let Some(metadata) = top.get("metadata").filter(|node| !matches!(node.kind, Kind::Map(_))) {
        top.warn("metadata", &["expected a mapping, found ", &read::found(metadata, problems)].concat());
    }
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        top.warn("name", "expected the name of the folder, which is used");
        folder.clone_into(&mut name);
    }
    if !is_proper(&name) {
        let rule = "small letters, digits and single hyphens between them";
        top.warn("name", &format!("{name:?} is not what the format asks for: at most {NAME_CHARS_MAX} {rule}"));
    }
    // The same letters may be written in two ways (NFC, NFD), which is not for us to tell.
    let composed = |c: char| ('\u{300}'..='\u{36f}').contains(&c);
    if name != folder && !name.contains(composed) && !folder.contains(composed) {
        top.warn("name", &format!("{name:?} is not the name of its folder, {folder:?}; the skill is called {name:?}"));
    }
    Ok(Skill { name, description, compatibility, folder: path })
}

/// As the format's own validator has it: letters and digits of any script, but no capitals.
fn is_proper(name: &str) -> bool {
    let good = |c: char| c.is_alphanumeric() || c == '-' || ('\u{300}'..='\u{36f}').contains(&c);
    name.chars().nth(NAME_CHARS_MAX).is_none()
        && name.chars().all(|c| good(c) && c.to_lowercase().eq([c]))
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

fn told(fault: &Fault) -> String {
    format!("line {}, column {}: {}", fault.line, fault.column, fault.message)
}

/// The commonest mistake in such files is a colon in plain text: `description: Use this when: …`. The head once more, with the
/// text behind the first colon of every such line in quotes; `None` if that is no YAML either.
fn mended(head: &str) -> Option<(Node, Document)> {
    let mut out = String::with_capacity(head.len() + 16);
    for line in head.lines() {
        match line.split_once(": ") {
            Some((key, value))
                if KEYS.contains(&key) && !value.trim_start().starts_with(['"', '\'', '|', '>', '[', '{']) =>
            {
                out.push_str(key);
                out.push_str(": ");
                write_string(&mut out, value.trim());
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    yaml::parse(out.as_bytes()).ok()
}
