//! What a model is asked, from the agent and the session's state: the one place where a request is made.
//!
//! Invariant: what [`next_body`] shows is what goes over the wire, because the runner asks with the same [`request`], and the
//! machine itself says what comes before.

use super::setup::Agent;
use crate::provider::Request;
use duragent_core::message::Message;
use duragent_core::session::{self, Fit, Input, InputKind, Phase, Spent, State, Timer};
use duragent_platform::clock;

/// Place of the model that is asked, in the agent's chain.
pub(super) fn place(agent: &Agent, state: &State) -> usize {
    state.turn.as_ref().map_or(0, |turn| session::place(&agent.rules, turn))
}

/// The request for a session as it is now, to the model at `place`.
pub(super) fn request(agent: &Agent, state: &State, place: usize) -> Request {
    let (endpoint, model) = (agent.endpoint_at(place), agent.rules.model_at(place));
    let fit = Fit::new(state, &agent.rules, model);
    let mut messages = session::messages(state, &agent.rules);
    for message in &mut messages {
        // Signatures are worth nothing to others, and some refuse what they have not signed.
        if let Message::Assistant { blocks, .. } = message
            && blocks.as_ref().is_some_and(|b| b.provider != model.provider || b.model != model.name)
        {
            *blocks = None;
        }
    }
    // What was reserved has to be the most that there can be.
    let kept = agent.rules.budgets.count_tokens().then_some(fit.answer);
    Request {
        model: model.name.clone(),
        system: agent.system.clone(),
        messages,
        tools: agent.rules.tools.clone(),
        temperature: endpoint.temperature,
        max_output_tokens: endpoint.max_output_tokens.or(kept),
        context_tokens: fit.window,
    }
}

/// The body of the session's next model call, byte for byte, if nothing new enters the session: whatever holds it up is
/// taken as over. If no call follows, the conversation as it is. `live`: the session is in memory.
pub(super) fn next_body(agent: &Agent, state: &State, live: bool) -> String {
    let mut next = state.clone();
    let take = |kind: InputKind, next: &mut State| {
        let input = Input { at_ms: clock::wall_ms(), today: Spent::default(), kind };
        // What it does not take does not come before its next call either; nothing is kept or done.
        let _ = session::step(next, &agent.rules, input);
    };
    if !live {
        take(InputKind::Opened { dropped_bytes: 0, saved_as: None, failed: true }, &mut next);
    }
    take(InputKind::Resume { reason: String::new() }, &mut next);
    if let Some((turn, step, phase)) = next.turn.as_ref().map(|turn| (turn.turn, turn.step, turn.phase.clone())) {
        if next.offline_until_ms.is_some() {
            take(InputKind::Reached { turn, back: true }, &mut next);
        } else if let Phase::Backoff { attempt, .. } = phase {
            take(InputKind::Timer(Timer::Retry { turn, step, attempt }), &mut next);
        }
    }
    let place = place(agent, &next);
    agent.endpoint_at(place).provider.body(&request(agent, &next, place))
}
