//! Messages: send one, wait for or stream the turn that answers it, and read the conversation.

use super::{Answer, EVENTS, Request, Stream, lasting};
use crate::http::json::{missing, object, read_object, whole};
use crate::http::problem::{self, Problem};
use crate::http::response::{JSON, Response};
use crate::http::shared::{Place, Shared};
use crate::session::api::{Accepted, NewMessage, TurnResult, WAIT_MAX};
use duragent_core::ids::{InvalidId, is_id};
use duragent_core::line;
use std::sync::Arc;
use std::time::Duration;

/// Longest `Idempotency-Key` in bytes; it is written to the log with the message.
const KEY_BYTES_MAX: usize = 255;

/// A turn that a client waits for.
pub(in crate::http) struct Wait {
    pub(in crate::http) session: String,
    pub(in crate::http) accepted: Accepted,
    pub(in crate::http) time: Duration,
    /// Among the answers that last, until it is dropped.
    _place: Place,
}

/// `{content, steps_max?, source?}`. Everything about the request is checked before the message is taken: after that it
/// is durable.
pub(super) async fn post(shared: &Arc<Shared>, request: &Request<'_>, id: &str) -> Result<Answer, Problem> {
    let streams = request.wants(&[JSON, EVENTS])? == EVENTS;
    let time = request.query().number("wait", 1..=WAIT_MAX.as_secs())?;
    let idempotency_key = idempotency_key(request)?;
    let (mut content, mut steps_max, mut source) = (None, None, None);
    read_object(request.body, &["content", "steps_max", "source"], &mut |key, reader| {
        match key {
            "content" => content = Some(reader.string()?.into_owned()),
            "source" => source = Some(reader.string()?.into_owned()),
            _ => steps_max = Some(whole(reader, false)?),
        }
        Ok(())
    })?;
    let content = content.ok_or_else(|| missing("content"))?;
    if content.is_empty() {
        return Err(Problem::new(problem::INVALID, "content: expected text, found none"));
    }
    let source = source.unwrap_or_else(|| "http".into());
    if !is_id(&source) {
        return Err(Problem::new(problem::INVALID, InvalidId { found: source }.to_string()));
    }
    let message = NewMessage { content, source, idempotency_key, steps_max };
    if streams {
        let _place = lasting(shared)?;
        let (accepted, follow) = shared.runtime.send_and_follow(id, message).await?;
        return Ok(Answer::Stream(Stream { follow, until: Some(accepted.turn), _place }));
    }
    let accepted = shared.runtime.send(id, message).await?;
    // Who cannot wait for want of a place is told what is true already.
    match time.and_then(|s| Some((Duration::from_secs(s), shared.admit_lasting()?))) {
        Some((time, _place)) => Ok(Answer::Wait(Wait { session: id.into(), accepted, time, _place })),
        None => Ok(Response::json(accepted_json(accepted)).status(202).into()),
    }
}

fn idempotency_key(request: &Request<'_>) -> Result<Option<String>, Problem> {
    let key = request.head.one("idempotency-key")?;
    match key {
        Some(key) if key.is_empty() || key.len() > KEY_BYTES_MAX || !key.bytes().all(|b| b.is_ascii_graphic()) => {
            let detail = format!("expected an Idempotency-Key of 1 to {KEY_BYTES_MAX} visible ASCII characters");
            Err(Problem::new(problem::BAD_REQUEST, detail))
        }
        key => Ok(key.map(String::from)),
    }
}

pub(super) fn list(shared: &Arc<Shared>, request: &Request<'_>, id: &str) -> Result<Answer, Problem> {
    request.wants_json()?;
    Ok(Answer::Pages { content_type: JSON, pages: shared.runtime.messages(id), place: lasting(shared)? })
}

/// `{seq, turn}`: the message is durable.
pub(in crate::http) fn accepted_json(accepted: Accepted) -> String {
    object(|json| {
        json.u64("seq", accepted.seq).u64("turn", accepted.turn);
    })
}

/// `{seq, turn, reason, reply, usage, detail?}`: the turn came to rest.
pub(in crate::http) fn turn_json(accepted: Accepted, result: &TurnResult) -> String {
    object(|json| {
        json.u64("seq", accepted.seq).u64("turn", accepted.turn).str("reason", result.reason.as_str());
        json.str("reply", &result.reply);
        line::write_usage(json, "usage", &result.usage);
        json.str_opt("detail", result.detail.as_deref());
    })
}
