//! Approvals: what waits for somebody's word, and the word.

use super::Request;
use crate::http::json::{array, missing, object, read_object};
use crate::http::problem::{self, Problem};
use crate::http::response::Response;
use crate::http::shared::Shared;
use crate::session::api::{Approval, Verdict};
use duragent_core::event::{Decision, Scope};
use duragent_core::ids::is_id;
use duragent_core::json::Error;
use duragent_core::time::rfc3339;

pub(super) async fn list(shared: &Shared, request: &Request<'_>, id: &str) -> Result<Response, Problem> {
    request.wants_json()?;
    let approvals = shared.runtime.approvals(id).await?;
    let list = array(approvals.iter().map(approval_json));
    Ok(Response::json(object(|json| {
        json.raw("approvals", &list);
    })))
}

/// `{decision: grant|deny, scope?: once|session|always, by?, digest?}`; `once` and `http` if nobody says. With a digest it is a
/// decision on that call and no other.
pub(super) async fn decide(
    shared: &Shared,
    request: &Request<'_>,
    id: &str,
    approval: &str,
) -> Result<Response, Problem> {
    request.wants_json()?;
    let (mut decision, mut scope, mut by, mut digest) = (None, Scope::Once, String::from("http"), None);
    read_object(request.body, &["decision", "scope", "by", "digest"], &mut |key, reader| {
        reader.peek();
        let byte = reader.offset();
        let word = reader.string()?;
        let wrong = |what| Error { byte, what };
        match key {
            "decision" => {
                let parsed = Decision::parse(&word).ok_or_else(|| wrong("expected \"grant\" or \"deny\""))?;
                decision = Some(parsed);
            }
            "scope" => {
                let parsed = Scope::parse(&word);
                scope = parsed.ok_or_else(|| wrong("expected \"once\", \"session\" or \"always\""))?;
            }
            "digest" => digest = Some(word.into_owned()),
            // What time decides nobody else can claim.
            _ if is_id(&word) && word != "expiry" => by = word.into_owned(),
            _ => return Err(wrong("expected a name like \"cli\"")),
        }
        Ok(())
    })?;
    let decision = decision.ok_or_else(|| missing("decision"))?;
    if let Some(digest) = digest {
        let open = shared.runtime.approvals(id).await?;
        if let Some(other) = open.iter().find(|open| open.approval_id == approval && open.digest != digest) {
            let detail = ["the call that ", approval, " is about has the digest ", &other.digest].concat();
            return Err(Problem::new(problem::CONFLICT, detail));
        }
    }
    shared.runtime.decide(id, approval, Verdict { decision, scope, by }).await?;
    Ok(Response::json(object(|json| {
        json.str("approval_id", approval).str("decision", decision.as_str()).str("scope", scope.as_str());
    })))
}

fn approval_json(approval: &Approval) -> String {
    object(|json| {
        json.str("approval_id", &approval.approval_id).str("call_id", &approval.call_id);
        json.str("name", &approval.name).raw("arguments", &approval.arguments).str("digest", &approval.digest);
        json.str("expires_at", &rfc3339(approval.expires_at_ms)).str_opt("reason", approval.reason.as_deref());
    })
}
