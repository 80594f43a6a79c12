//! Approvals: what waits for somebody's word, and the word.

use super::Request;
use crate::http::json::{Object, array, missing, read_object};
use crate::http::listener::Shared;
use crate::http::problem::Problem;
use crate::http::response::Response;
use crate::session::api::{Approval, Verdict};
use duragent_core::event::{Decision, Scope};
use duragent_core::json::Error;
use duragent_core::time::rfc3339;

pub(super) async fn list(shared: &Shared, request: &Request<'_>, id: &str) -> Result<Response, Problem> {
    request.wants_json()?;
    let approvals = shared.runtime.approvals(id).await?;
    Ok(Response::json(Object::new().raw("approvals", &array(approvals.iter().map(approval_json))).end()))
}

/// `{decision: grant|deny, scope?: once|session|always}`; `once` if nobody says.
pub(super) async fn decide(
    shared: &Shared,
    request: &Request<'_>,
    id: &str,
    approval: &str,
) -> Result<Response, Problem> {
    request.wants_json()?;
    request.has_json()?;
    let (mut decision, mut scope) = (None, Scope::Once);
    read_object(request.body, &["decision", "scope"], &mut |key, reader| {
        reader.peek();
        let byte = reader.offset();
        let word = reader.string()?;
        if key == "decision" {
            let parsed = Decision::parse(&word).ok_or(Error { byte, what: "expected \"grant\" or \"deny\"" })?;
            decision = Some(parsed);
        } else {
            let what = "expected \"once\", \"session\" or \"always\"";
            scope = Scope::parse(&word).ok_or(Error { byte, what })?;
        }
        Ok(())
    })?;
    let decision = decision.ok_or_else(|| missing("decision"))?;
    shared.runtime.decide(id, approval, Verdict { decision, scope, by: "http".into() }).await?;
    let mut json = Object::new();
    json.text("approval_id", approval).text("decision", decision.as_str()).text("scope", scope.as_str());
    Ok(Response::json(json.end()))
}

fn approval_json(approval: &Approval) -> String {
    let mut json = Object::new();
    json.text("approval_id", &approval.approval_id).text("call_id", &approval.call_id);
    json.text("name", &approval.name).raw("arguments", &approval.arguments).text("digest", &approval.digest);
    json.text("expires_at", &rfc3339(approval.expires_at_ms)).end()
}
