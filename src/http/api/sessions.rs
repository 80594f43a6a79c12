//! Sessions: list, show, make, close, cancel, fork, export.

use super::{Answer, LINES, Request, lasting};
use crate::http::json::{array, missing, object, read_object, string, whole};
use crate::http::problem::{self, Problem};
use crate::http::response::Response;
use crate::http::shared::Shared;
use crate::session::api::{Filter, NewSession, Status, Summary};
use duragent_core::line;
use duragent_core::time::rfc3339;
use std::sync::Arc;

/// `{agent, id?, title?}`.
pub(super) async fn create(shared: &Shared, request: &Request<'_>) -> Result<Response, Problem> {
    request.wants_json()?;
    let (mut new, mut agent) = (NewSession::default(), None);
    read_object(request.body, &["agent", "id", "title"], &mut |key, reader| {
        let value = reader.string()?.into_owned();
        match key {
            "agent" => agent = Some(value),
            "id" => new.id = Some(value),
            _ => new.title = Some(value),
        }
        Ok(())
    })?;
    new.agent = agent.ok_or_else(|| missing("agent"))?;
    created(shared, &shared.runtime.create(new).await?)
}

fn created(shared: &Shared, summary: &Summary) -> Result<Response, Problem> {
    let location = [shared.access().base_path.as_str(), "/api/v1/sessions/", &summary.id].concat();
    Ok(Response::json(summary_json(summary)).status(201).header("Location", location))
}

/// `?agent=&status=&limit=&after=`; `next` is the `after` of the next page.
pub(super) async fn list(shared: &Shared, request: &Request<'_>) -> Result<Response, Problem> {
    request.wants_json()?;
    let query = request.query();
    let owned = |key| query.text(key).map(|text| text.map(std::borrow::Cow::into_owned));
    let status = match query.text("status")? {
        None => None,
        Some(text) => Some(Status::parse(&text).ok_or_else(|| unknown_status(&text))?),
    };
    let limit = request.limit()?;
    // One more than asked for says whether there is a next page.
    let filter = Filter { agent: owned("agent")?, status, limit: limit + 1, after: owned("after")? };
    let found = shared.runtime.sessions(&filter).await?;
    let page = found.get(..limit).unwrap_or(&found);
    let next = if found.len() > limit { page.last().map(|s| string(&s.id)) } else { None };
    Ok(Response::json(object(|json| {
        json.raw("sessions", &array(page.iter().map(summary_json)));
        json.raw("next", next.as_deref().unwrap_or("null"));
    })))
}

fn unknown_status(found: &str) -> Problem {
    let expected = "idle, running, waiting, paused, closed or damaged";
    Problem::new(problem::BAD_REQUEST, format!("query key \"status\": expected {expected}, found {found:?}"))
}

pub(super) async fn show(shared: &Shared, request: &Request<'_>, id: &str) -> Result<Response, Problem> {
    request.wants_json()?;
    Ok(Response::json(summary_json(&shared.runtime.session(id).await?)))
}

pub(super) async fn close(shared: &Shared, request: &Request<'_>, id: &str) -> Result<Response, Problem> {
    request.wants_json()?;
    Ok(Response::json(summary_json(&shared.runtime.close(id, "http").await?)))
}

pub(super) async fn cancel(shared: &Shared, request: &Request<'_>, id: &str) -> Result<Response, Problem> {
    request.wants_json()?;
    let Some(turn) = shared.runtime.cancel(id).await? else {
        return Err(Problem::new(problem::CONFLICT, format!("session {id:?} has no turn under way")));
    };
    Ok(Response::json(object(|json| {
        json.u64("turn", turn);
    }))
    .status(202))
}

/// `{seq?}`, or no body at all.
pub(super) async fn fork(shared: &Shared, request: &Request<'_>, id: &str) -> Result<Response, Problem> {
    request.wants_json()?;
    let mut seq = None;
    if !request.body.is_empty() {
        read_object(request.body, &["seq"], &mut |_, reader| {
            seq = if reader.null()? { None } else { Some(whole(reader, true)?) };
            Ok(())
        })?;
    }
    created(shared, &shared.runtime.fork(id, seq).await?)
}

/// What the session's model would be asked now: the provider's own body, as it is.
pub(super) async fn prompt(shared: &Shared, request: &Request<'_>, id: &str) -> Result<Response, Problem> {
    request.wants_json()?;
    Ok(Response::json(shared.runtime.prompt(id).await?))
}

/// The log as it is on disk.
pub(super) fn export(shared: &Arc<Shared>, request: &Request<'_>, id: &str) -> Result<Answer, Problem> {
    request.wants(&[LINES])?;
    Ok(Answer::Pages { content_type: LINES, pages: shared.runtime.export(id), place: lasting(shared)? })
}

fn summary_json(summary: &Summary) -> String {
    object(|json| {
        json.str("id", &summary.id).str("agent", &summary.agent).str_opt("title", summary.title.as_deref());
        json.str("status", summary.status.as_str()).str("created_at", &rfc3339(summary.created_at_ms));
        json.str("last_at", &rfc3339(summary.last_at_ms)).u64("last_seq", summary.last_seq);
        json.u64("turns", summary.turns);
        line::write_usage(json, "usage", &summary.usage);
        json.u64("context_tokens", summary.context_tokens).str_opt("detail", summary.detail.as_deref());
    })
}
