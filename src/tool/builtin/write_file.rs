//! `write_file`: a whole file.

use super::{declare, said, trouble};
use crate::tool::arguments::{Arguments, Field, Kind};
use crate::tool::{Context, Tool};
use duragent_core::event::ToolOutcome;
use duragent_core::tool::{EffectClass, PolicyArgument, ToolDecl};
use std::path::Path;

const FIELDS: [Field; 2] = [Field::required("path", Kind::Text), Field::required("content", Kind::Text)];

/// The tool. Effect `idempotent`: writing the same bytes to the same place again changes nothing.
pub(super) struct WriteFile {
    decl: ToolDecl,
}

impl WriteFile {
    pub(super) fn new() -> Self {
        let description = "Write a whole file, in place of what is there. Makes missing directories.";
        let effect = EffectClass::Idempotent;
        Self { decl: declare("write_file", description, &FIELDS, effect, PolicyArgument::Path("path")) }
    }
}

impl Tool for WriteFile {
    fn decl(&self) -> &ToolDecl {
        &self.decl
    }

    fn run(&self, arguments: &str, context: &Context<'_>) -> ToolOutcome {
        let arguments = match Arguments::read(arguments, &FIELDS) {
            Ok(arguments) => arguments,
            Err(wrong) => return said(wrong),
        };
        let (path, content) = (arguments.text("path"), arguments.text("content"));
        match context.view.replace(Path::new(path), content.as_bytes()) {
            Ok(()) => said(format!("wrote {} bytes to {path}", content.len())),
            Err(error) => trouble("write", path, &error),
        }
    }
}
