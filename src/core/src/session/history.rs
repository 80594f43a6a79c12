//! The part of the conversation that a model is shown: what the log says since the last compaction, oldest first.
//!
//! Invariants: every call of an assistant message is followed by its results before anything else is appended (the
//! machine asks the model only when all calls have one), no cut parts a call from its result or takes the message that the
//! newest turn answers, and the window is the same for live and replay, because it is cut by events and by a constant.

use crate::message::Message;
use alloc::borrow::ToOwned;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Most bytes kept in memory for a session: about 64,000 tokens, above any context window of a small machine.
/// The log keeps everything.
pub const HISTORY_BYTES_MAX: usize = 256 * 1024;
/// What the window is cut back to once it is full, so that not every message has to look for what to drop.
const HISTORY_BYTES_KEPT: usize = HISTORY_BYTES_MAX / 4 * 3;
/// Bytes that each result of a tool may keep when nothing else is left to be cut, tried in this order.
const SQUEEZED: [usize; 3] = [4096, 1024, 256];

/// The window.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    items: VecDeque<(u64, Message)>,
    weight: usize,
    /// Event that put the newest turn's first message here.
    turn: u64,
}

/// A place where the window can be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Everything up to this event goes, but for the message that the newest turn answers.
    pub through_seq: u64,
    /// Weight of what goes.
    pub goes: usize,
    /// Weight of what stays.
    pub stays: usize,
    /// Weight of what is shown to whoever is to sum up: what goes, and the message that the newest turn answers.
    pub shown: usize,
}

impl History {
    /// Appends the message that event `seq` put into the conversation, and drops the oldest beyond the limit.
    pub(super) fn push(&mut self, seq: u64, message: Message) {
        self.weight += message.weight();
        self.items.push_back((seq, message));
        if self.weight > HISTORY_BYTES_MAX
            && let Some(cut) = self.cut(HISTORY_BYTES_KEPT)
        {
            self.compact(cut.through_seq, String::new());
        }
    }

    /// The same for the first message of a turn.
    pub(super) fn push_turn(&mut self, seq: u64, content: String) {
        self.turn = seq;
        self.push(seq, Message::User { content });
    }

    /// Takes everything up to `seq` away, but for the message that the newest turn answers, and puts `summary` in its
    /// place, unless that is empty.
    pub(super) fn compact(&mut self, seq: u64, summary: String) {
        let turn = self.turn;
        self.items.retain(|(at, _)| *at > seq || *at == turn);
        if !summary.is_empty() {
            self.items.push_front((seq, Message::User { content: summary }));
        }
        self.weight = self.items.iter().map(|(_, m)| m.weight()).sum();
    }

    /// Bytes of all of it, with what a wire format wraps around them.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Where to cut so that at most `target` bytes stay, or as little as can be; `None` if nothing can go. Whole turns go
    /// first, then the oldest steps of the newest turn; its last step stays.
    #[must_use]
    pub fn cut(&self, target: usize) -> Option<Cut> {
        let asked = self.items.iter().position(|(at, _)| *at == self.turn);
        let kept = |at: usize| match asked {
            Some(asked) if asked < at => self.items.get(asked).map_or(0, |(_, m)| m.weight()),
            _ => 0,
        };
        // From the end: what stays grows with every place, the best is the furthest that still fits.
        let (mut stays, mut best) = (0, None);
        for (at, (_, message)) in self.items.iter().enumerate().rev() {
            stays += message.weight();
            // Older turns go whole: what stays begins with a message of the user.
            let step = matches!(message, Message::Assistant { .. }) && asked.is_some_and(|asked| asked < at);
            if !step && !matches!(message, Message::User { .. }) {
                continue;
            }
            let all = stays + kept(at);
            if best.is_some() && all > target {
                break;
            }
            best = Some((at, all));
        }
        let (at, stays) = best?;
        // Not the last of them: the message of the newest turn may stand behind a summary that is younger.
        let through_seq = self.items.iter().take(at).map(|(seq, _)| *seq).max()?;
        let goes = self.weight.saturating_sub(stays);
        (goes > 0).then_some(Cut { through_seq, goes, stays, shown: goes + kept(at) })
    }

    /// Least bytes that it can be shown in without a cut: with the results of tools squeezed.
    #[must_use]
    pub fn least(&self) -> usize {
        self.squeezed(SQUEEZED[SQUEEZED.len() - 1])
    }

    fn squeezed(&self, cap: usize) -> usize {
        let over = self.items.iter().filter_map(|(_, m)| match m {
            // The mark that takes the place of what is left out counts too.
            Message::Tool { content, .. } => content.len().checked_sub(cap + MARK_BYTES),
            _ => None,
        });
        self.weight.saturating_sub(over.sum())
    }

    /// The messages, as they are sent: in at most `budget` bytes if squeezing the results of tools is enough for that, and
    /// what one side said in a row as one message.
    #[must_use]
    pub fn messages(&self, budget: usize) -> Vec<Message> {
        let fits = |cap: &&usize| self.squeezed(**cap) <= budget;
        let cap = match self.weight <= budget {
            true => usize::MAX,
            false => *SQUEEZED.iter().find(fits).unwrap_or(&SQUEEZED[SQUEEZED.len() - 1]),
        };
        self.joined(u64::MAX, cap)
    }

    /// What goes with a cut through `seq`, as it is sent to be summed up.
    pub(super) fn before(&self, seq: u64) -> Vec<Message> {
        self.joined(seq, usize::MAX)
    }

    fn joined(&self, through: u64, cap: usize) -> Vec<Message> {
        let mut out: Vec<Message> = Vec::with_capacity(self.items.len());
        for (_, message) in self.items.iter().take_while(|(at, _)| *at <= through) {
            match (out.last_mut(), message) {
                (Some(Message::User { content }), Message::User { content: more }) => {
                    content.push_str("\n\n");
                    content.push_str(more);
                }
                (_, Message::Tool { call_id, name, content }) if content.len() > cap.saturating_add(MARK_BYTES) => {
                    let content = head_and_tail(content, cap);
                    out.push(Message::Tool { call_id: call_id.clone(), name: name.clone(), content });
                }
                _ => out.push(message.clone()),
            }
        }
        out
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

/// Most bytes of the mark in [`head_and_tail`].
const MARK_BYTES: usize = 64;

/// The first and the last part of a text, `cap` bytes together, with a mark between them.
fn head_and_tail(text: &str, cap: usize) -> String {
    let mut head = cap / 2;
    while !text.is_char_boundary(head) {
        head -= 1;
    }
    let mut tail = text.len() - cap / 2;
    while !text.is_char_boundary(tail) {
        tail += 1;
    }
    let (first, last) = (text.get(..head).unwrap_or_default(), text.get(tail..).unwrap_or_default());
    let mut out = first.to_owned();
    out.push_str(&format!("\n[{} bytes left out]\n", tail - head));
    out.push_str(last);
    out
}
