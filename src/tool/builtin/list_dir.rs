//! `list_dir`: what is in a directory.

use super::{Watch, declare, said, trouble};
use crate::tool::arguments::{Arguments, Field, Kind};
use crate::tool::{Context, Tool};
use duragent_core::event::ToolOutcome;
use duragent_core::tool::{EffectClass, PolicyArgument, ToolDecl};
use duragent_platform::sandbox::{Access, entries};
use std::io;
use std::path::Path;

/// Entries that are read: a directory with more is not looked at further, so that memory stays bounded.
const ENTRIES_MAX: usize = 10_000;

const FIELDS: [Field; 1] = [Field::optional("path", Kind::Text)];

/// The tool. Effect `pure`.
pub(super) struct ListDir {
    decl: ToolDecl,
}

impl ListDir {
    pub(super) fn new() -> Self {
        let description = "List a directory (default .): directories end in /, files show their bytes.";
        Self { decl: declare("list_dir", description, &FIELDS, EffectClass::Pure, PolicyArgument::Path("path")) }
    }
}

impl Tool for ListDir {
    fn decl(&self) -> &ToolDecl {
        &self.decl
    }

    fn run(&self, arguments: &str, context: &Context<'_>) -> ToolOutcome {
        let arguments = match Arguments::read(arguments, &FIELDS) {
            Ok(arguments) => arguments,
            Err(wrong) => return said(wrong),
        };
        let path = arguments.text_or("path", ".");
        list(path, context).unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::NotADirectory => said(format!("{path:?} is not a directory; read_file reads files")),
            _ => trouble("list", path, &error),
        })
    }
}

fn list(path: &str, context: &Context<'_>) -> io::Result<ToolOutcome> {
    let watch = Watch::new(context);
    let directory = context.view.open(Path::new(path), Access::List)?;
    let (mut lines, mut more) = (Vec::new(), false);
    for entry in entries(&directory)? {
        if let Some(why) = watch.stop() {
            return Ok(watch.stopped(why, String::new(), "list a smaller directory"));
        }
        if lines.len() == ENTRIES_MAX {
            more = true;
            break;
        }
        lines.push(line(&entry?));
    }
    lines.sort_unstable();
    let count = lines.len();
    let (mut text, mut shown) = (String::new(), 0);
    for line in lines {
        if text.len() + line.len() + 1 > context.output_bytes_max {
            break;
        }
        text.push_str(&line);
        text.push('\n');
        shown += 1;
    }
    if count == 0 {
        text.push_str("[the directory is empty]");
    } else if more {
        text.push_str(&format!("[{shown} of more than {ENTRIES_MAX} entries; bash can show the rest]"));
    } else if shown < count {
        text.push_str(&format!("[{shown} of {count} entries; bash can show the rest]"));
    }
    Ok(ToolOutcome { truncated: more || shown < count, ..said(text) })
}

/// `name/`, `name 123` (bytes), `name@` (symbolic link), `name` (something else, or gone meanwhile).
fn line(entry: &std::fs::DirEntry) -> String {
    let mut line = readable(&entry.file_name().to_string_lossy());
    match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => line.push('/'),
        Ok(metadata) if metadata.is_symlink() => line.push('@'),
        Ok(metadata) if metadata.is_file() => line.push_str(&format!(" {}", metadata.len())),
        _ => {}
    }
    line
}

/// A file name on one line: one with control characters is quoted.
pub(super) fn readable(name: &str) -> String {
    if name.contains(char::is_control) { format!("{name:?}") } else { name.to_owned() }
}
