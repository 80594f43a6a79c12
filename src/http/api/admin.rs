//! Health, build, metrics, and what an operator can ask of the process.

use super::{PLAIN, Request};
use crate::http::json::object;
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
    let (runtime, http) = (shared.runtime.counters(), shared.traffic());
    let samples = [
        ("sessions_live", GAUGE, "Sessions in memory.", runtime.sessions_live),
        ("turns_started_total", COUNTER, "Turns begun.", runtime.turns_started),
        ("turns_finished_total", COUNTER, "Turns that came to rest.", runtime.turns_finished),
        ("model_calls_total", COUNTER, "Model calls made.", runtime.model_calls),
        ("tool_calls_total", COUNTER, "Tool calls run.", runtime.tool_calls),
        ("commits_total", COUNTER, "Commits to logs, one fdatasync each.", runtime.commits),
        ("events_total", COUNTER, "Events in them.", runtime.events),
        ("http_connections", GAUGE, "Open connections.", http.connections),
        ("http_connections_total", COUNTER, "Connections taken.", http.accepted),
        ("http_connections_refused_total", COUNTER, "Connections over the limit.", http.refused),
        ("http_connections_given_up_total", COUNTER, "Waiting connections closed for others.", http.given_up),
        ("http_accept_errors_total", COUNTER, "Failures to take a connection.", http.accept_errors),
        ("http_requests_total", COUNTER, "Requests answered.", http.requests),
    ];
    let mut text = String::with_capacity(2048);
    for (name, kind, help, value) in samples {
        let name = ["duragent_", name].concat();
        let parts =
            ["# HELP ", &name, " ", help, "\n# TYPE ", &name, " ", kind, "\n", &name, " ", &value.to_string(), "\n"];
        text.extend(parts);
    }
    Ok(Response::new(200, "text/plain; version=0.0.4; charset=utf-8", text))
}

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

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

/// Begins to drain: what is under way is finished, nothing new is taken.
pub(super) fn shutdown(shared: &Shared, request: &Request<'_>) -> Result<Response, Problem> {
    request.wants_json()?;
    shared.request_shutdown();
    Ok(Response::json("{\"status\":\"draining\"}".into()).status(202))
}
