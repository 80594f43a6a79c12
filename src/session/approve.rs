//! Deciding on an approval request, and telling one that was decided from one that never was.

use super::api::{ApiError, Verdict};
use super::runtime::Runtime;
use duragent_core::event::Body;
use duragent_core::line;
use duragent_core::session::InputKind;

impl Runtime {
    /// Decides on an approval request. The first decision counts.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if nobody asked for it; [`ApiError::Conflict`] if it is not open any more.
    pub async fn decide(&self, id: &str, approval_id: &str, verdict: Verdict) -> Result<(), ApiError> {
        let Verdict { decision, scope, by } = verdict;
        let kind = InputKind::Decide { approval_id: approval_id.to_owned(), decision, scope, by };
        match self.input(id, kind).await {
            Err(ApiError::Conflict(_)) if !self.was_requested(id, approval_id).await? => {
                Err(ApiError::NotFound(format!("no approval {approval_id:?} in session {id:?}")))
            }
            other => other.map(|_| ()),
        }
    }

    /// True if the log has the approval request: the state of a session forgets those that are decided.
    async fn was_requested(&self, id: &str, wanted: &str) -> Result<bool, ApiError> {
        let (store, id, wanted) = (self.shared.store.clone(), id.to_owned(), wanted.to_owned());
        self.read(move || {
            let (through, mut found) = (store.settle(&id)?, false);
            store.read(&id, 0, through, &mut |_, line| {
                found = line::peek_kind(line) == Some("approval_requested")
                    && line::parse(line).is_ok_and(|event| is_request(&event.body, &wanted));
                !found
            })?;
            Ok(found)
        })
        .await
    }
}

fn is_request(body: &Body, wanted: &str) -> bool {
    matches!(body, Body::ApprovalRequested { approval_id, .. } if approval_id == wanted)
}
