//! `step`: an input with all that follows from it, applied to the state as it goes.

use super::decide::decide;
use super::input::{Accepted, Effect, Input, InputKind, Rejection, Rules};
use super::state::State;
use super::turn::Phase;
use crate::event::Event;
use alloc::borrow::ToOwned;
use alloc::vec::Vec;

/// What an input led to, already in the state.
#[derive(Debug, Clone, PartialEq, Default)]
#[must_use = "events that are not appended never happened, effects that are not run are forgotten"]
pub struct Stepped {
    /// To be appended, in this order, in one commit.
    pub events: Vec<Event>,
    /// To be run after that commit, in this order.
    pub effects: Vec<Effect>,
    /// As in [`Decided`](super::input::Decided).
    pub accepted: Option<Accepted>,
}

/// Takes `input`: decides, applies the events to `state`, and goes on with what is due then, until nothing is. If the commit
/// of the events fails, the state is worth nothing any more.
///
/// # Errors
/// [`Rejection`] if the input cannot be taken; the state is as it was then.
pub fn step(state: &mut State, rules: &Rules, input: Input) -> Result<Stepped, Rejection> {
    stepped(state, rules, input, None)
}

/// As [`step`], but begins nothing: what is under way comes to its end, and then the session is paused for `reason`. What a
/// tool has done is not forgotten that way, and nothing is done that could not be written down.
///
/// # Errors
/// As [`step`].
pub fn hold(state: &mut State, rules: &Rules, input: Input, reason: &str) -> Result<Stepped, Rejection> {
    stepped(state, rules, input, Some(reason))
}

fn stepped(state: &mut State, rules: &Rules, input: Input, hold: Option<&str>) -> Result<Stepped, Rejection> {
    let (at_ms, mut today) = (input.at_ms, input.today);
    let mut decided = decide(state, rules, input)?;
    let mut stepped = Stepped { accepted: decided.accepted, ..Stepped::default() };
    loop {
        let before = state.meter.spent();
        for body in decided.events {
            let event = Event { seq: state.last_seq + 1, at_ms, body };
            state.apply(&event);
            stepped.events.push(event);
        }
        let begins = |effect: &Effect| matches!(effect, Effect::CallModel { .. } | Effect::RunTool { .. });
        let begun = decided.effects.iter().any(begins);
        stepped.effects.append(&mut decided.effects);
        // What is reserved and what is spent of it is of today as well.
        today.add(&state.meter.spent());
        today = today.minus(&before);
        let kind = match hold {
            None => InputKind::Proceed,
            // It is answered: what is left is to say so.
            Some(_) if state.turn.as_ref().is_some_and(|t| t.phase == Phase::Tools && t.calls.is_empty()) => {
                InputKind::Proceed
            }
            Some(reason) if begun || state.is_between() => InputKind::Pause { reason: reason.to_owned() },
            Some(_) => return Ok(stepped),
        };
        decided = decide(state, rules, Input { at_ms, today, kind })?;
        if decided.events.is_empty() {
            return Ok(stepped);
        }
    }
}
