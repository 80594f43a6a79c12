//! Health, build, metrics, and what an operator can ask of the process.

use super::{PLAIN, Request};
use crate::http::json::object;
use crate::http::metrics;
use crate::http::problem::{self, Problem};
use crate::http::response::{Response, TEXT};
use crate::http::shared::Shared;
use crate::session::api::ApiError;

/// The process answers: this connection is the proof.
pub(super) fn livez(request: &Request<'_>) -> Result<Response, Problem> {
    request.wants(&[PLAIN])?;
    Ok(Response::new(200, TEXT, "ok\n".into()))
}

/// The runtime takes work.
pub(super) fn readyz(shared: &Shared, request: &Request<'_>) -> Result<Response, Problem> {
    request.wants(&[PLAIN])?;
    let ready = shared.runtime.is_ready() && !shared.is_draining();
    let (status, text) = if ready { (200, "ok\n") } else { (503, "not ready\n") };
    Ok(Response::new(status, TEXT, text.into()))
}

pub(super) fn version(request: &Request<'_>) -> Result<Response, Problem> {
    request.wants_json()?;
    Ok(Response::json(object(|json| {
        json.str("name", "duragent").str("version", env!("CARGO_PKG_VERSION"));
        json.str_opt("commit", option_env!("DURAGENT_COMMIT"));
    })))
}

/// Prometheus text format 0.0.4.
pub(super) fn metrics(shared: &Shared, request: &Request<'_>) -> Result<Response, Problem> {
    request.wants(&[PLAIN])?;
    Ok(Response::new(200, metrics::MEDIA_TYPE, metrics::text(shared)))
}

/// Reads the configuration anew; a bad one keeps the old.
pub(super) async fn reload(shared: &Shared, request: &Request<'_>) -> Result<Response, Problem> {
    request.wants_json()?;
    if let Err(error) = shared.runtime.reload().await {
        return Err(match error {
            ApiError::Invalid(detail) => Problem::new(problem::CONFIGURATION, detail),
            other => other.into(),
        });
    }
    Ok(Response::json("{\"status\":\"reloaded\"}".into()))
}

/// Begins to drain: what is under way is finished, nothing new is taken. With `?restart=true` the server then starts again.
pub(super) fn shutdown(shared: &Shared, request: &Request<'_>) -> Result<Response, Problem> {
    request.wants_json()?;
    shared.request_shutdown(request.query().truth("restart")?.unwrap_or(false));
    Ok(Response::json("{\"status\":\"draining\"}".into()).status(202))
}
