//! `read_file`: a text file, or some lines of it. The file is streamed: its size does not matter.

use super::{Stop, Watch, declare, said, trouble};
use crate::tool::arguments::{Arguments, Field, Kind};
use crate::tool::capture::beginning;
use crate::tool::{Context, Tool};
use duragent_core::event::ToolOutcome;
use duragent_core::tool::{EffectClass, PolicyArgument, ToolDecl};
use duragent_platform::sandbox::Access;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

/// Bytes read at a time, and those that are looked at to tell text from other things.
pub(super) const CHUNK_BYTES: usize = 16 * 1024;

const FIELDS: [Field; 3] = [
    Field::required("path", Kind::Text),
    Field::optional("offset", Kind::Count),
    Field::optional("limit", Kind::Count),
];

/// The tool. Effect `pure`.
pub(super) struct ReadFile {
    decl: ToolDecl,
}

impl ReadFile {
    pub(super) fn new() -> Self {
        let description = "Read a text file. offset: first line, from 1. limit: number of lines.";
        Self { decl: declare("read_file", description, &FIELDS, EffectClass::Pure, PolicyArgument::Path("path")) }
    }
}

impl Tool for ReadFile {
    fn decl(&self) -> &ToolDecl {
        &self.decl
    }

    fn run(&self, arguments: &str, context: &Context<'_>) -> ToolOutcome {
        let arguments = match Arguments::read(arguments, &FIELDS) {
            Ok(arguments) => arguments,
            Err(wrong) => return said(wrong),
        };
        let path = arguments.text("path");
        let opened = context.view.open(Path::new(path), Access::Read);
        let read = opened.and_then(|file| {
            let first = arguments.count("offset").unwrap_or(1).max(1);
            let mut lines = Lines {
                path,
                size: file.metadata()?.len(),
                reader: BufReader::with_capacity(CHUNK_BYTES, file),
                watch: Watch::new(context),
                first,
            };
            lines.read(arguments.count("limit").unwrap_or(u64::MAX), context.output_bytes_max)
        });
        read.unwrap_or_else(|error| trouble("read", path, &error))
    }
}

struct Lines<'a> {
    path: &'a str,
    size: u64,
    reader: BufReader<File>,
    watch: Watch<'a>,
    /// First line that is wanted, from 1.
    first: u64,
}

enum Skipped {
    Enough,
    /// The file has only so many lines.
    End(u64),
    Stopped(Stop),
}

impl Lines<'_> {
    fn read(&mut self, limit: u64, cap: usize) -> io::Result<ToolOutcome> {
        let (path, size) = (self.path, self.size);
        if self.reader.fill_buf()?.contains(&0) {
            return Ok(said(format!(
                "{path:?} is a binary file of {size} bytes; bash can look into it (file, xxd, strings)"
            )));
        }
        match self.skip()? {
            Skipped::Enough => {}
            Skipped::End(0) => return Ok(said("[the file is empty]")),
            Skipped::End(lines) => {
                return Ok(said(format!("{path:?} ends at line {lines}; offset {} is behind that", self.first)));
            }
            Skipped::Stopped(why) => return Ok(self.watch.stopped(why, String::new(), "read nearer to the beginning")),
        }
        // One byte more than fits tells whether something is left.
        let bytes = self.take(limit, cap.saturating_add(1))?;
        let (mut text, taken) = beginning(&bytes, cap);
        let cut = taken < bytes.len();
        if let (true, Some(end)) = (cut, text.rfind('\n')) {
            // Whole lines, so that the next call can go on exactly there.
            text.truncate(end + 1);
        }
        let cut_line = cut && !text.ends_with('\n');
        let next = self.first + text.matches('\n').count() as u64 + u64::from(cut_line);
        if cut_line {
            text.push_str(&format!(
                "\n[line {} is longer than {cap} bytes and was cut; bash can show the rest]",
                self.first
            ));
        }
        if cut || !self.reader.fill_buf()?.is_empty() {
            text.push_str(&format!("\n[the file of {size} bytes goes on; continue with offset {next}]"));
        }
        Ok(ToolOutcome { truncated: cut, ..said(text) })
    }

    /// Passes over the lines before the first one that is wanted.
    fn skip(&mut self) -> io::Result<Skipped> {
        let (mut line, mut at_start) = (1, true);
        loop {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                return Ok(if line == 1 && at_start {
                    Skipped::End(0)
                } else {
                    Skipped::End(line - u64::from(at_start))
                });
            }
            if line == self.first {
                return Ok(Skipped::Enough);
            }
            let (count, found) = match chunk.iter().position(|&b| b == b'\n') {
                Some(at) => (at + 1, true),
                None => (chunk.len(), false),
            };
            self.reader.consume(count);
            line += u64::from(found);
            at_start = found;
            if let Some(why) = self.watch.stop() {
                return Ok(Skipped::Stopped(why));
            }
        }
    }

    /// The next `lines` lines, or their first `max` bytes.
    fn take(&mut self, mut lines: u64, max: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while lines > 0 && bytes.len() < max {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                break;
            }
            let end = chunk.iter().position(|&b| b == b'\n').map_or(chunk.len(), |at| at + 1);
            let piece = chunk.get(..end.min(max - bytes.len())).unwrap_or(chunk);
            lines -= u64::from(piece.ends_with(b"\n"));
            bytes.extend_from_slice(piece);
            let count = piece.len();
            self.reader.consume(count);
        }
        Ok(bytes)
    }
}
