//! What was spent, beside the budgets of it.

use super::Request;
use crate::http::json::{array, object, string};
use crate::http::problem::{self, Problem};
use crate::http::response::Response;
use crate::http::shared::Shared;
use crate::session::{Entry, Sum};
use duragent_core::ids::is_id;
use duragent_core::json::ObjectWriter;
use duragent_core::session::{Budget, DAY_MS};
use duragent_core::time::rfc3339;

/// `?session=`, or `?limit=&after=`; `next` is the `after` of the next page.
pub(super) async fn get(shared: &Shared, request: &Request<'_>) -> Result<Response, Problem> {
    request.wants_json()?;
    let (session, after) = (request.query().text("session")?, request.query().text("after")?);
    let limit = request.limit()?;
    // One more than asked for says whether there is a next page.
    let mut today = shared.runtime.usage(after.as_deref(), if session.is_some() { 0 } else { limit + 1 }).await?;
    if let Some(id) = session {
        if !is_id(&id) {
            return Err(Problem::new(problem::NOT_FOUND, format!("no session {id:?}")));
        }
        today.sessions.push(shared.runtime.usage_of(&id).await?);
    }
    let page = today.sessions.get(..limit).unwrap_or(&today.sessions);
    let next = if today.sessions.len() > limit { page.last().map(|entry| string(&entry.session)) } else { None };
    let agents = today.agents.iter().map(|(agent, sum)| {
        object(|json| {
            figures(json.str("agent", agent), "today", sum);
        })
    });
    let models = today.models.iter().map(|of| {
        object(|json| {
            figures(json.str("provider", &of.provider).str("model", &of.model), "today", &of.today);
        })
    });
    let sessions = page.iter().map(|entry| of_session(entry, &shared.runtime.session_budget(&entry.agent)));
    Ok(Response::json(object(|json| {
        let day = rfc3339(today.day * DAY_MS);
        json.str("day", day.get(..10).unwrap_or_default()).str_opt("currency", today.currency.as_deref());
        figures(json, "today", &today.total);
        left(json, &today.budget, &today.total);
        json.raw("agents", &array(agents)).raw("models", &array(models)).raw("sessions", &array(sessions));
        json.raw("next", next.as_deref().unwrap_or("null"));
    })))
}

fn of_session(entry: &Entry, budget: &Budget) -> String {
    object(|json| {
        json.str("session", &entry.session).str("agent", &entry.agent);
        figures(json, "today", &entry.today);
        figures(json, "total", &entry.total);
        left(json, budget, &entry.total);
    })
}

fn figures(json: &mut ObjectWriter<'_>, key: &str, sum: &Sum) {
    let Sum { spent, estimated } = sum;
    json.object(key, |json| {
        json.u64("requests", spent.requests).u64("tokens", spent.tokens).u64("tool_calls", spent.tool_calls);
        json.decimal("seconds", spent.ms, 3).decimal("money", spent.cost_micros, 6).u64("estimated", *estimated);
    });
}

/// What is limited, and what is left of it; nothing if nothing is.
fn left(json: &mut ObjectWriter<'_>, budget: &Budget, sum: &Sum) {
    if budget.is_unlimited() {
        return;
    }
    let spent = &sum.spent;
    let rows = [
        ("requests", budget.requests, spent.requests, 0),
        ("tokens", budget.tokens, spent.tokens, 0),
        ("tool_calls", budget.tool_calls, spent.tool_calls, 0),
        ("seconds", budget.ms, spent.ms, 3),
        ("money", budget.cost_micros, spent.cost_micros, 6),
    ];
    for (key, less) in [("budget", false), ("left", true)] {
        json.object(key, |json| {
            for (name, limit, spent, places) in rows {
                if let Some(limit) = limit {
                    json.decimal(name, if less { limit.saturating_sub(spent) } else { limit }, places);
                }
            }
        });
    }
}
