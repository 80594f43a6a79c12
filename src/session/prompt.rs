//! What a model is asked, from the agent and the session's state: the one place where a request is made.
//!
//! Invariant: what [`next_body`] shows is what goes over the wire, because the runner asks with the same [`request`].

use super::setup::Agent;
use crate::provider::Request;
use duragent_core::event::{Body, Event};
use duragent_core::session::State;

/// Tokens kept free for the answer when the agent sets no limit.
const ANSWER_TOKENS: u64 = 1024;
/// Bytes of prompt that are taken for a token when the window is filled. English has about four; other scripts and
/// code have fewer, and a prompt that is cut by the server costs more than an early cut by us.
const BYTES_PER_TOKEN: u64 = 3;
/// Least bytes of conversation that are sent whatever the window.
const CONVERSATION_BYTES_MIN: u64 = 1024;

/// The request for a session as it is now, to the model at `place` of the agent's chain (0 is its own).
pub(super) fn request(agent: &Agent, state: &State, place: usize) -> Request {
    let (endpoint, model) = (agent.endpoint_at(place), agent.rules.model_at(place));
    let overhead: usize = agent.rules.tools.iter().map(|t| t.description.len() + t.parameters.len()).sum();
    let tokens = model.context_tokens.saturating_sub(endpoint.max_output_tokens.unwrap_or(ANSWER_TOKENS));
    let fixed = (overhead + agent.system.len()) as u64;
    let budget = (tokens * BYTES_PER_TOKEN).saturating_sub(fixed).max(CONVERSATION_BYTES_MIN);
    let (messages, _) = state.history.messages(usize::try_from(budget).unwrap_or(usize::MAX));
    Request {
        model: model.name.clone(),
        system: agent.system.clone(),
        messages,
        tools: agent.rules.tools.clone(),
        temperature: endpoint.temperature,
        max_output_tokens: endpoint.max_output_tokens,
        context_tokens: model.context_tokens,
    }
}

/// The body of the session's next model call, byte for byte, if the running turn asked now. If none runs, the first message
/// that waits is taken as asked; if none waits, the conversation is shown as it is.
pub(super) fn next_body(agent: &Agent, state: &State) -> String {
    let body = |state: &State| agent.endpoint_at(0).provider.body(&request(agent, state, 0));
    match (&state.turn, state.queue.front()) {
        (None, Some(next)) => {
            let mut begun = state.clone();
            let (seq, at_ms) = (state.last_seq + 1, state.last_at_ms);
            begun.apply(&Event { seq, at_ms, body: Body::TurnStarted { turn: next.turn } });
            body(&begun)
        }
        _ => body(state),
    }
}
