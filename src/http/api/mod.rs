//! The API: from a request and its body to an answer. No socket in sight.

mod admin;
mod agents;
mod approvals;
mod describe;
mod events;
mod messages;
mod sessions;
mod usage;

pub(super) use messages::{Wait, accepted_json, turn_json};

use super::accept;
use super::problem::{self, Problem};
use super::query::Query;
use super::response::{JSON, Response};
use super::route::{Resource, Verb};
use super::shared::{Place, Shared};
use crate::session::{Follow, Pages};
use duragent_core::http_head::Head;
use duragent_core::ids::is_id;
use std::sync::Arc;

/// Most items of a page, and how many are given if nobody says.
const PAGE_MAX: u64 = 1000;
const PAGE_DEFAULT: u64 = 100;

/// Media type of SSE.
const EVENTS: &str = "text/event-stream";
/// Media type of JSON lines.
const LINES: &str = "application/x-ndjson";
/// Media type of health and metrics, without parameters.
const PLAIN: &str = "text/plain";

/// A request that was let in and read whole.
pub(super) struct Request<'a> {
    pub(super) head: &'a Head<'a>,
    pub(super) resource: Resource<'a>,
    pub(super) verb: Verb,
    pub(super) body: &'a [u8],
}

/// What to do with the connection.
pub(super) enum Answer {
    /// Send this.
    Whole(Response),
    /// Wait for a turn, then say how it went.
    Wait(Wait),
    /// Stream events.
    Stream(Stream),
    /// Send a body that may be long, a page at a time.
    Pages { content_type: &'static str, pages: Pages, place: Place },
}

/// Events to be streamed: up to the end of the turn `until`, or for good.
pub(super) struct Stream {
    pub(super) follow: Follow,
    pub(super) until: Option<u64>,
    /// Among the answers that last, until it is dropped.
    pub(super) _place: Place,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self::Whole(response)
    }
}

/// Answers a request.
pub(super) async fn answer(shared: &Arc<Shared>, request: &Request<'_>) -> Result<Answer, Problem> {
    let id = match request.resource {
        Resource::Session(id)
        | Resource::Messages(id)
        | Resource::Events(id)
        | Resource::Cancel(id)
        | Resource::Fork(id)
        | Resource::Export(id)
        | Resource::Prompt(id)
        | Resource::Approvals(id)
        | Resource::Approval(id, _) => Some(id),
        _ => None,
    };
    if let Some(id) = id.filter(|id| !is_id(id)) {
        return Err(Problem::new(problem::NOT_FOUND, format!("no session {id:?}")));
    }
    let response = match (request.resource, request.verb) {
        (Resource::Messages(id), Verb::Post) => return messages::post(shared, request, id).await,
        (Resource::Messages(id), _) => return messages::list(shared, request, id),
        (Resource::Events(id), _) => return events::get(shared, request, id).await,
        (Resource::Export(id), _) => return sessions::export(shared, request, id),
        (Resource::Livez, _) => admin::livez(request),
        (Resource::Readyz, _) => admin::readyz(shared, request),
        (Resource::Version, _) => admin::version(request),
        (Resource::Metrics, _) => admin::metrics(shared, request),
        (Resource::Description, _) => describe::get(request),
        (Resource::Reload, _) => admin::reload(shared, request).await,
        (Resource::Shutdown, _) => admin::shutdown(shared, request),
        (Resource::Agents, _) => agents::list(shared, request),
        (Resource::Agent(name), _) => agents::show(shared, request, name),
        (Resource::Usage, _) => usage::get(shared, request).await,
        (Resource::Sessions, Verb::Post) => sessions::create(shared, request).await,
        (Resource::Sessions, _) => sessions::list(shared, request).await,
        (Resource::Session(id), Verb::Delete) => sessions::close(shared, request, id).await,
        (Resource::Session(id), _) => sessions::show(shared, request, id).await,
        (Resource::Cancel(id), _) => sessions::cancel(shared, request, id).await,
        (Resource::Fork(id), _) => sessions::fork(shared, request, id).await,
        (Resource::Prompt(id), _) => sessions::prompt(shared, request, id).await,
        (Resource::Approvals(id), _) => approvals::list(shared, request, id).await,
        (Resource::Approval(id, approval), _) => approvals::decide(shared, request, id, approval).await,
    };
    response.map(Answer::Whole)
}

/// A place for an answer that lasts.
fn lasting(shared: &Arc<Shared>) -> Result<Place, Problem> {
    shared
        .admit_lasting()
        .ok_or_else(|| Problem::new(problem::BUSY, "too many clients follow or read sessions already"))
}

impl Request<'_> {
    fn query(&self) -> Query<'_> {
        Query(self.head.query)
    }

    /// Refuses a client that cannot read JSON.
    fn wants_json(&self) -> Result<(), Problem> {
        self.wants(&[JSON]).map(|_| ())
    }

    fn wants(&self, offers: &[&'static str]) -> Result<&'static str, Problem> {
        accept::choose(self.head, offers)
    }

    /// `?limit=`.
    fn limit(&self) -> Result<usize, Problem> {
        let limit = self.query().number("limit", 1..=PAGE_MAX)?.unwrap_or(PAGE_DEFAULT);
        Ok(usize::try_from(limit).unwrap_or(usize::MAX))
    }
}
