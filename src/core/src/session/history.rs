//! The part of the conversation that a model may still be shown: a bounded window over the log, oldest first.
//!
//! Invariants: every call of an assistant message is followed by its results before anything else is appended (the
//! machine asks the model only when all calls have one), trimming never parts a call from its result, and the window
//! is the same for live and replay because its size is a constant.

use crate::message::Message;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

/// Most bytes kept in memory for a session: about 64,000 tokens, above any context window of a small machine.
/// The log keeps everything.
pub const HISTORY_BYTES_MAX: usize = 256 * 1024;
/// What the window is cut back to once it is full, so that not every message has to look for what to drop.
const HISTORY_BYTES_KEPT: usize = HISTORY_BYTES_MAX / 4 * 3;

/// The window.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    items: VecDeque<(u64, Message)>,
    weight: usize,
}

/// What is kept of a window: everything from `start` on but `gap`, and its weight.
struct Kept {
    start: usize,
    gap: Range<usize>,
    weight: usize,
}

impl History {
    /// Appends the message that event `seq` put into the conversation, and drops the oldest beyond the limit.
    pub(super) fn push(&mut self, seq: u64, message: Message) {
        self.weight += message.weight();
        self.items.push_back((seq, message));
        if self.weight > HISTORY_BYTES_MAX {
            let Kept { start, gap, weight } = self.fit(HISTORY_BYTES_KEPT);
            self.items.drain(gap);
            self.items.drain(..start);
            self.weight = weight;
        }
    }

    /// Replaces everything up to `seq` by `summary`.
    pub(super) fn compact(&mut self, seq: u64, summary: String) {
        let replaced = self.items.iter().position(|(at, _)| *at > seq).unwrap_or(self.items.len());
        self.items.drain(..replaced);
        self.items.push_front((seq, Message::User { content: summary }));
        self.weight = self.items.iter().map(|(_, m)| m.weight()).sum();
    }

    /// The newest part of the window that fits `budget` bytes: whole turns are left out first, then the oldest steps of
    /// the newest turn. Its first message is never left out, nor its last step, so a budget can be too small:
    /// the second value is the weight of what is returned.
    #[must_use]
    pub fn messages(&self, budget: usize) -> (Vec<Message>, usize) {
        let Kept { start, gap, weight } = self.fit(budget);
        let kept = self.items.iter().enumerate().skip(start).filter(|(at, _)| !gap.contains(at));
        (kept.map(|(_, (_, message))| message.clone()).collect(), weight)
    }

    /// Text of the newest assistant message.
    #[must_use]
    pub fn last_reply(&self) -> Option<&str> {
        self.items.iter().rev().find_map(|(_, m)| match m {
            Message::Assistant { content, .. } => Some(content.as_str()),
            _ => None,
        })
    }

    /// Finds what of the window fits `budget`, from the newest message back. A turn begins with a message of the user, a
    /// step with one of the assistant; what stands before the first turn belongs to it.
    fn fit(&self, budget: usize) -> Kept {
        let all = Kept { start: 0, gap: 0..0, weight: self.weight };
        if self.weight <= budget {
            return all;
        }
        let (mut weight, mut newest) = (0, None);
        // The start of the oldest turn that fits, with the weight from there on.
        let mut fits = None;
        for (at, (_, message)) in self.items.iter().enumerate().rev() {
            weight += message.weight();
            if matches!(message, Message::User { .. }) {
                newest.get_or_insert((at, weight));
                if weight > budget {
                    break;
                }
                fits = Some((at, weight));
            }
        }
        match (fits, newest) {
            (Some((start, weight)), _) => Kept { start, gap: 0..0, weight },
            (None, Some((start, weight))) => self.fit_steps(start, weight, budget),
            (None, None) => all,
        }
    }

    /// The same within the newest turn, which begins at `start` and weighs too much.
    fn fit_steps(&self, start: usize, mut weight: usize, budget: usize) -> Kept {
        let is_step = |at: &usize| matches!(self.items[*at].1, Message::Assistant { .. });
        let mut steps = (start..self.items.len()).filter(is_step).peekable();
        let first = steps.peek().copied().unwrap_or(self.items.len());
        let mut end = first;
        while let (Some(step), Some(next)) = (steps.next(), steps.peek().copied())
            && weight > budget
        {
            weight -= self.items.range(step..next).map(|(_, m)| m.weight()).sum::<usize>();
            end = next;
        }
        Kept { start, gap: first..end, weight }
    }
}
