//! A model that does not answer: what people see of it, and who does not wait for it.

use super::{Chat, Next};
use crate::cli::text;
use duragent_core::json;

/// What was said of it.
#[derive(Default)]
pub(super) struct Away {
    /// The turn waits on disk.
    pub(super) parked: bool,
    /// What was said last: the same is not said again with every look.
    said: String,
}

impl Chat<'_> {
    /// What goes on before there is an answer.
    pub(super) fn doing(&mut self, data: &str) -> Next {
        let status = json::parse(data).ok();
        if let Some(text) = status.as_ref().and_then(|s| s.get("text")?.as_str())
            && text != self.away.said
        {
            self.away.said = text.to_owned();
            self.note(&text::clean(&format!("[model] {text}")));
        }
        Next::Stay
    }

    /// The exit code, if there is nobody to wait: a script, or a person who is on the way out.
    pub(super) fn parked(&mut self) -> Option<u8> {
        let (away, script) = (self.away.parked, !self.interactive && (self.input_ended || !self.lines.is_empty()));
        if !away || !(script || self.leaving) {
            return None;
        }
        self.note("[session] the turn waits on disk: a server goes on with it by itself");
        Some(if script { 1 } else { self.code })
    }
}
