//! `skill`: what a skill says, or one of its files. Offered to agents that have skills, and only to them.
//!
//! Invariant: nothing is read but what is in the folder of a skill on offer, whatever links are in it.

use super::{Watch, declare, refused, said, trouble};
use crate::tool::arguments::{Arguments, Field, Kind};
use crate::tool::capture::Capture;
use crate::tool::{Context, Tool};
use duragent_core::event::ToolOutcome;
use duragent_core::skill::{FILE_NAMES, Skill, split};
use duragent_core::tool::{EffectClass, PolicyArgument, ToolDecl};
use duragent_platform::sandbox::{Access, Refused, View, entries};
use std::io::{self, Read};
use std::path::Path;

/// Bytes of a `SKILL.md` that are looked at: as many as make a skill (`config`).
const BODY_BYTES_MAX: u64 = 64 * 1024;
/// Files that are listed. A skill with more names those that matter.
const FILES_MAX: usize = 64;
/// Directories in each other that are looked into.
const DEPTH_MAX: usize = 4;
/// Bytes read at a time.
const CHUNK_BYTES: usize = 16 * 1024;

const FIELDS: [Field; 2] = [Field::required("name", Kind::Text), Field::optional("file", Kind::Text)];

/// The tool. Effect `pure`.
pub(super) struct ReadSkill {
    decl: ToolDecl,
    skills: Vec<Skill>,
}

impl ReadSkill {
    pub(super) fn new(skills: Vec<Skill>) -> Self {
        let description = "Read a skill's instructions; or one of its files, if file names it.";
        let decl = declare("skill", description, &FIELDS, EffectClass::Pure, PolicyArgument::Path("name"));
        Self { decl, skills }
    }

    /// By its name, or that of its folder.
    fn find(&self, name: &str) -> Option<&Skill> {
        let folder = |skill: &&Skill| Path::new(&skill.folder).file_name().is_some_and(|folder| folder == name);
        self.skills.iter().find(|skill| skill.name == name).or_else(|| self.skills.iter().find(folder))
    }
}

impl Tool for ReadSkill {
    fn decl(&self) -> &ToolDecl {
        &self.decl
    }

    fn run(&self, arguments: &str, context: &Context<'_>) -> ToolOutcome {
        let arguments = match Arguments::read(arguments, &FIELDS) {
            Ok(arguments) => arguments,
            Err(wrong) => return said(wrong),
        };
        let (name, file) = (arguments.text("name"), arguments.text("file"));
        let Some(skill) = self.find(name) else {
            let names: Vec<&str> = self.skills.iter().map(|skill| skill.name.as_str()).collect();
            return said(format!("there is no skill {name:?}; there are: {}", names.join(", ")));
        };
        let view = View::only(Path::new(&skill.folder), &[]);
        let (read, path) = match file {
            "" => (instructions(skill, &view, context), FILE_NAMES[0]),
            file => (one_file(&view, file, context), file),
        };
        read.unwrap_or_else(|error| {
            let outside = error.get_ref().is_some_and(|inner| inner.is::<Refused>());
            match error.kind() {
                io::ErrorKind::NotFound => {
                    said(format!("there is no file {path:?} in the skill {name:?}; without file, skill lists them"))
                }
                _ if outside => {
                    let hint = "only what is in the skill's folder can be read";
                    refused(format!("cannot read {path:?}: {hint}"), "fs", path, hint)
                }
                _ => trouble("read", path, &error),
            }
        })
    }
}

/// What is behind the head of its file, and the list of its other files.
fn instructions(skill: &Skill, view: &View, context: &Context<'_>) -> io::Result<ToolOutcome> {
    let open = |name: &str| view.open(Path::new(name), Access::Read);
    let file = match open(FILE_NAMES[0]) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => open(FILE_NAMES[1]),
        opened => opened,
    };
    let mut bytes = Vec::new();
    file?.take(BODY_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // It may have been changed since it was found.
    let body = split(&text).map_or(&*text, |(_, body)| body);
    let (watch, mut files) = (Watch::new(context), Vec::new());
    list(view, "", DEPTH_MAX, &watch, &mut files)?;
    files.sort_unstable();
    let mut out = Capture::new(context);
    if !skill.compatibility.is_empty() {
        out.push(["Needs: ", &skill.compatibility, "\n\n"].concat().as_bytes());
    }
    out.push(if body.is_empty() { b"[it says nothing more]" } else { body.as_bytes() });
    if !files.is_empty() {
        out.push(["\n\nFiles of this skill, in ", &skill.folder, ":\n", &files.join("\n")].concat().as_bytes());
        if files.len() == FILES_MAX {
            out.push(b"\n[there may be more]");
        }
    }
    Ok(captured(out))
}

fn captured(capture: Capture<'_>) -> ToolOutcome {
    let captured = capture.finish();
    ToolOutcome { truncated: captured.truncated, artifact: captured.artifact, ..said(captured.text) }
}

/// Adds the files below `dir` with their bytes. Links and hidden names are passed over.
fn list(view: &View, dir: &str, depth: usize, watch: &Watch<'_>, files: &mut Vec<String>) -> io::Result<()> {
    let here = view.open(Path::new(if dir.is_empty() { "." } else { dir }), Access::List)?;
    for entry in entries(&here)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if files.len() == FILES_MAX || watch.stop().is_some() {
            break;
        }
        let metadata = entry.metadata()?;
        if name.starts_with('.')
            || name.contains(char::is_control)
            || (dir.is_empty() && FILE_NAMES.contains(&name.as_str()))
        {
            continue;
        }
        let path = if dir.is_empty() { name } else { [dir, "/", &name].concat() };
        if metadata.is_file() {
            files.push(format!("{path} {}", metadata.len()));
        } else if metadata.is_dir() && depth > 1 {
            list(view, &path, depth - 1, watch, files)?;
        }
    }
    Ok(())
}

fn one_file(view: &View, path: &str, context: &Context<'_>) -> io::Result<ToolOutcome> {
    let mut file = view.open(Path::new(path), Access::Read)?;
    let (watch, mut out, mut buffer) = (Watch::new(context), Capture::new(context), [0; CHUNK_BYTES]);
    let mut first = true;
    loop {
        let chunk = match file.read(&mut buffer) {
            Ok(count) => buffer.get(..count).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if first && chunk.is_empty() {
            return Ok(said("[the file is empty]"));
        }
        if first && chunk.contains(&0) {
            let size = file.metadata()?.len();
            return Ok(said(format!("{path:?} is a binary file of {size} bytes; bash can look into it")));
        }
        if chunk.is_empty() {
            return Ok(captured(out));
        }
        first = false;
        out.push(chunk);
        if let Some(why) = watch.stop() {
            return Ok(watch.stopped(why, out.finish().text, "read a smaller file"));
        }
    }
}
