//! Before every request: whether the prompt fits the window, what has to go if it does not, and whether the budgets allow it.
//!
//! A prompt is never cut by the server: what does not fit is summed up or left out by an event, oldest first, down to half of
//! the window, so that the prefix of the next requests stays the same for a while; then the results of tools are squeezed;
//! then the turn fails with figures.

use super::budget::Spent;
use super::decide::Draft;
use super::history::Cut;
use super::input::{Compaction, Effect, Model, Rules};
use super::state::State;
use super::turn::{Phase, Turn};
use crate::event::{Body, TurnReason, Usage};
use crate::message::{Message, Reply};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Tokens kept free for the answer if nothing else is said; a quarter of the window if that is less.
const ANSWER_TOKENS: u64 = 1024;
/// Less than this is not worth a summary: asking for it costs more than it saves.
const SUMMARY_BYTES_MIN: usize = 1024;
/// What a model is told that is to sum up. At the end, so that the prefix is that of the requests before.
const SUMMARY_PROMPT: &str = "Summarize this conversation for yourself: you will go on with it and see nothing but your summary. \
Keep what the user wants, what was decided and found out, names, numbers and file paths, and what is still to be done. \
Do not call tools. Answer with the summary only.";
/// What stands before a summary.
const SUMMARY_HEAD: &str = "[Summary of the conversation so far]\n";

/// A prompt against its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// Tokens of the window.
    pub window: u64,
    /// Of these, kept free for the answer.
    pub answer: u64,
    /// Bytes of prompt that are taken for a thousand tokens.
    kilo_bytes: u64,
    /// Bytes besides the conversation.
    prefix: u64,
}

impl Fit {
    /// What is known of `model` by now.
    #[must_use]
    pub fn new(state: &State, rules: &Rules, model: &Model) -> Self {
        let learned = Some(&state.learned).filter(|l| l.model == model.name);
        let told = learned.and_then(|l| l.context_tokens).unwrap_or(u64::MAX);
        let window = model.context_tokens.min(told);
        let answer = if model.answer_tokens > 0 { model.answer_tokens } else { ANSWER_TOKENS.min(window / 4) };
        let permille = learned.map_or(1000, |l| l.permille).max(1000);
        let kilo_bytes = (model.token_tenths.max(10) * 100 * 1000 / permille).max(1);
        Self { window, answer: answer.min(window / 2), kilo_bytes, prefix: rules.prefix_bytes }
    }

    /// Tokens that `bytes` of conversation make with all that stands before it.
    #[must_use]
    pub fn tokens(&self, bytes: usize) -> u64 {
        ((bytes as u64).saturating_add(self.prefix)).saturating_mul(1000).div_ceil(self.kilo_bytes)
    }

    /// Bytes of conversation that fit.
    #[must_use]
    pub fn budget(&self) -> usize {
        let bytes = (self.window - self.answer).saturating_mul(self.kilo_bytes) / 1000;
        usize::try_from(bytes.saturating_sub(self.prefix)).unwrap_or(usize::MAX)
    }
}

/// Place of the model that `turn` asks in the agent's chain.
#[must_use]
pub fn place(rules: &Rules, turn: &Turn) -> usize {
    let asked = |m: &Model| (m.provider.as_str(), m.name.as_str()) == (turn.asked.0.as_str(), turn.asked.1.as_str());
    if asked(&rules.model) {
        return 0;
    }
    rules.fallbacks.iter().position(asked).map_or(0, |at| at + 1)
}

/// The conversation as the request under way sends it, or as the next one would.
#[must_use]
pub fn messages(state: &State, rules: &Rules) -> Vec<Message> {
    let turn = state.turn.as_ref();
    let fit = Fit::new(state, rules, rules.model_at(turn.map_or(0, |t| place(rules, t))));
    let summary = turn.is_some_and(|t| matches!(t.phase, Phase::Model { summary: true, .. }));
    match summary.then(|| state.history.cut(fit.budget() / 2)).flatten() {
        Some(cut) => {
            let mut messages = state.history.before(cut.through_seq);
            match messages.last_mut() {
                Some(Message::User { content }) => {
                    content.push_str("\n\n");
                    content.push_str(SUMMARY_PROMPT);
                }
                _ => messages.push(Message::User { content: SUMMARY_PROMPT.into() }),
            }
            messages
        }
        None => state.history.messages(fit.budget()),
    }
}

/// Bytes of conversation in the request for a summary of what `cut` takes away, the instruction as a message of its own.
fn summary_bytes(cut: Cut) -> usize {
    const WRAPPING: usize = 32;
    cut.shown + SUMMARY_PROMPT.len() + WRAPPING
}

impl Draft<'_> {
    /// The model that `turn` asks.
    pub(super) fn model(&self, turn: &Turn) -> &Model {
        self.rules.model_at(place(self.rules, turn))
    }

    /// The most that a request with so many bytes of conversation can use up.
    fn worst(&self, turn: &Turn, bytes: usize) -> Usage {
        let model = self.model(turn);
        let fit = Fit::new(self.state, self.rules, model);
        let mut usage = Usage { input_tokens: fit.tokens(bytes), output_tokens: fit.answer, ..Usage::default() };
        usage.cost_micros = model.price.of(&usage);
        usage
    }

    /// Asks the model, or does what has to be done before that, or ends the turn because it may not be asked.
    pub(super) fn ask(&mut self, turn: &Turn, step: u64, attempt: u64) {
        let limits = &self.rules.limits;
        let steps_max = turn.steps_max.unwrap_or(u64::MAX).min(limits.steps_max);
        if step > steps_max {
            let detail = format!("steps_max: the model was asked {steps_max} times in this turn");
            return self.finish_turn(turn, TurnReason::Limit, Some(&detail));
        }
        if let Some(call) = turn.repeats.iter().find(|c| c.count >= limits.repeats_max.max(2)) {
            let detail = format!(
                "call_repeats_max: the same call of {} came back with the same result {} times in this turn",
                call.name, call.count
            );
            return self.finish_turn(turn, TurnReason::Limit, Some(&detail));
        }
        let (history, model) = (&self.state.history, self.model(turn));
        let fit = Fit::new(self.state, self.rules, model);
        let (weight, budget) = (history.weight(), fit.budget());
        if weight > budget {
            if let Some(cut) = history.cut(budget / 2) {
                let worth = cut.goes >= SUMMARY_BYTES_MIN && summary_bytes(cut) <= budget;
                let summary = self.rules.compaction == Compaction::Summary && turn.summary_step != step && worth;
                return if summary {
                    self.request_model(turn, step, attempt, Some(cut))
                } else {
                    self.leave_out(&fit, cut)
                };
            }
            let least = history.least();
            if least > budget {
                let detail = format!(
                    "the prompt does not fit: about {} tokens (system prompt and tools {}, conversation {}) and {} for the \
                     answer are more than the window of {} tokens of {}; shorten the message, or raise context_tokens",
                    fit.tokens(least),
                    fit.tokens(0),
                    fit.tokens(least) - fit.tokens(0),
                    fit.answer,
                    fit.window,
                    model.name
                );
                return self.finish_turn(turn, TurnReason::Failed, Some(&detail));
            }
        }
        self.request_model(turn, step, attempt, None);
    }

    fn request_model(&mut self, turn: &Turn, step: u64, attempt: u64, summary: Option<Cut>) {
        let model = self.model(turn);
        let bytes = summary.map_or(self.state.history.weight(), summary_bytes);
        let mut reserved = self.worst(turn, bytes);
        let fit = Fit::new(self.state, self.rules, model);
        reserved.input_tokens = reserved.input_tokens.min(fit.window - fit.answer);
        let tokens = reserved.input_tokens + reserved.output_tokens;
        let more = Spent { requests: 1, tokens, cost_micros: reserved.cost_micros, ..Spent::default() };
        if let Some(detail) = self.rules.budgets.refusal(self.state, &self.today, &more) {
            return self.finish_turn(turn, TurnReason::Limit, Some(&detail));
        }
        let (provider, model, summary) = (model.provider.clone(), model.name.clone(), summary.is_some());
        self.event(Body::ModelRequested { turn: turn.turn, step, attempt, provider, model, reserved, summary });
        self.effect(Effect::CallModel { turn: turn.turn, step, attempt });
    }

    /// Leaves the oldest part of the conversation out.
    pub(super) fn leave_out(&mut self, fit: &Fit, cut: Cut) {
        self.compacted(fit, cut, String::new(), Usage::default(), 0);
    }

    fn compacted(&mut self, fit: &Fit, cut: Cut, summary: String, usage: Usage, duration_ms: u64) {
        self.event(Body::SessionCompacted {
            through_seq: cut.through_seq,
            tokens_before: fit.tokens(cut.goes + cut.stays),
            tokens_after: fit.tokens(cut.stays + summary.len()),
            summary,
            usage,
            duration_ms,
        });
    }

    /// The model has summed up the oldest part. A summary that is none, or saves too little, is not used: then that part is
    /// left out.
    pub(super) fn summed_up(&mut self, turn: &Turn, reply: &Reply, duration_ms: u64) {
        let model = self.model(turn);
        let (fit, price) = (Fit::new(self.state, self.rules, model), model.price);
        let mut usage = reply.usage;
        if usage.cost_micros == 0 {
            usage.cost_micros = price.of(&usage);
        }
        // The history is as it was when it was asked for, unless the rules have changed since.
        let Some(cut) = self.state.history.cut(fit.budget() / 2) else {
            let Phase::Model { attempt, .. } = turn.phase else { return };
            return self.ask(turn, turn.step, attempt + 1);
        };
        let text = reply.text.trim();
        let mut summary = String::new();
        if !text.is_empty() && reply.tool_calls.is_empty() && text.len() <= cut.goes / 2 {
            summary.push_str(SUMMARY_HEAD);
            summary.push_str(text);
        }
        self.compacted(&fit, cut, summary, usage, duration_ms);
    }
}
