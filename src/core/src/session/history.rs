//! The part of the conversation that a model may still be shown: a bounded window over the log, oldest first.
//!
//! Invariants: every call of an assistant message is followed by its results before anything else is appended (the
//! machine asks the model only when all calls have one), trimming never parts a call from its result, and the window
//! is the same for live and replay because its size is a constant.

use crate::message::Message;
use alloc::string::String;
use alloc::vec::Vec;

/// Most bytes kept in memory for a session: about 64,000 tokens, above any context window of a small machine.
/// The log keeps everything.
pub const HISTORY_BYTES_MAX: usize = 256 * 1024;

/// The window.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    items: Vec<(u64, Message)>,
    weight: usize,
}

impl History {
    /// Appends the message that event `seq` put into the conversation, and drops the oldest beyond the limit.
    pub(super) fn push(&mut self, seq: u64, message: Message) {
        self.weight += message.weight();
        self.items.push((seq, message));
        while self.weight > HISTORY_BYTES_MAX {
            let Some(range) = oldest_group(&self.items) else { break };
            self.weight -= self.items.drain(range).map(|(_, m)| m.weight()).sum::<usize>();
        }
    }

    /// Replaces everything up to `seq` by `summary`.
    pub(super) fn compact(&mut self, seq: u64, summary: String) {
        let keep = self.items.iter().position(|(at, _)| *at > seq).unwrap_or(self.items.len());
        self.items.splice(..keep, [(seq, Message::User { content: summary })]);
        self.weight = self.items.iter().map(|(_, m)| m.weight()).sum();
    }

    /// The newest part of the window that fits `budget` bytes: whole turns are left out first, then the oldest steps of
    /// the newest turn. Its first message is never left out, nor its last step, so a budget can be too small:
    /// the second value is the weight of what is returned.
    #[must_use]
    pub fn messages(&self, budget: usize) -> (Vec<Message>, usize) {
        let mut items: Vec<(u64, &Message)> = self.items.iter().map(|(seq, m)| (*seq, m)).collect();
        let mut weight = self.weight;
        while weight > budget {
            let Some(range) = oldest_group(&items) else { break };
            weight -= items.drain(range).map(|(_, m)| m.weight()).sum::<usize>();
        }
        (items.into_iter().map(|(_, m)| m.clone()).collect(), weight)
    }

    /// Text of the newest assistant message.
    #[must_use]
    pub fn last_reply(&self) -> Option<&str> {
        self.items.iter().rev().find_map(|(_, m)| match m {
            Message::Assistant { content, .. } => Some(content.as_str()),
            _ => None,
        })
    }
}

/// What may be dropped next, as a range of items: the oldest turn if there are several, else the oldest step of the
/// only one if it has several. A step is an assistant message with the results of its calls.
fn oldest_group<M: AsRef<Message>>(items: &[(u64, M)]) -> Option<core::ops::Range<usize>> {
    let starts_turn = |at: &usize| matches!(items[*at].1.as_ref(), Message::User { .. });
    let starts_step = |at: &usize| matches!(items[*at].1.as_ref(), Message::Assistant { .. });
    if let Some(second) = (1..items.len()).find(starts_turn) {
        return Some(0..second);
    }
    let mut steps = (0..items.len()).filter(starts_step);
    Some(steps.next()?..steps.next()?)
}

impl AsRef<Message> for Message {
    fn as_ref(&self) -> &Message {
        self
    }
}
