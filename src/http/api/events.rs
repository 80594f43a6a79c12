//! Events of a session: streamed, or a page at a time.

use super::{Answer, EVENTS, Request, Stream, lasting};
use crate::http::json::{array, object};
use crate::http::problem::{self, Problem};
use crate::http::query::whole_number;
use crate::http::response::{JSON, Response};
use crate::http::shared::Shared;
use std::sync::Arc;

/// `?after=&follow=&limit=`. `Last-Event-ID` wins over `after`: a browser that reconnects sends the old URL again.
pub(super) async fn get(shared: &Arc<Shared>, request: &Request<'_>, id: &str) -> Result<Answer, Problem> {
    let query = request.query();
    let after = match (last_event_id(request)?, query.number("after", 0..=u64::MAX)?) {
        (Some(seq), _) | (None, Some(seq)) => seq,
        (None, None) => 0,
    };
    let limit = request.limit()?;
    let streams = match query.truth("follow")? {
        Some(false) => request.wants_json().map(|()| false)?,
        _ => request.wants(&[EVENTS, JSON])? == EVENTS,
    };
    if streams {
        let _place = lasting(shared)?;
        return Ok(Answer::Stream(Stream { follow: shared.runtime.follow(id, after).await?, until: None, _place }));
    }
    // Until the page is made.
    let _place = lasting(shared)?;
    let page = shared.runtime.events(id, after, limit).await?;
    let body = object(|json| {
        json.raw("events", &array(&page.lines));
        match page.next {
            Some(seq) => json.u64("next", seq),
            None => json.raw("next", "null"),
        };
    });
    Ok(Response::json(body).into())
}

fn last_event_id(request: &Request<'_>) -> Result<Option<u64>, Problem> {
    match request.head.one("last-event-id")? {
        None | Some("") => Ok(None),
        Some(text) => whole_number(text).map(Some).ok_or_else(|| {
            Problem::new(problem::BAD_REQUEST, format!("Last-Event-ID: expected a seq, found {text:?}"))
        }),
    }
}
