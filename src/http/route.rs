//! Which thing a path names, and what can be done with it: one match.

use super::problem::{self, Problem};

/// A thing with a path of its own. Ids are as in the path: nobody has checked them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource<'a> {
    Livez,
    Readyz,
    Version,
    Metrics,
    Description,
    Agents,
    Usage,
    Agent(&'a str),
    Sessions,
    Session(&'a str),
    Messages(&'a str),
    Events(&'a str),
    Cancel(&'a str),
    Fork(&'a str),
    Export(&'a str),
    Prompt(&'a str),
    Approvals(&'a str),
    Approval(&'a str, &'a str),
    Reload,
    Shutdown,
}

/// Methods that some resource has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// HEAD too: it is answered as GET, less the body.
    Get,
    Post,
    Delete,
}

const GET: &str = "GET, HEAD";
const POST: &str = "POST";
/// Every method that some resource has.
const ANY: &str = "GET, HEAD, POST, DELETE";

/// Finds the resource of a decoded path.
pub(super) fn find(path: &str) -> Result<Resource<'_>, Problem> {
    let mut segments = [""; 7];
    let mut count = 0;
    for segment in path.split('/') {
        let Some(slot) = segments.get_mut(count) else { return Err(nowhere(path)) };
        *slot = segment;
        count += 1;
    }
    Ok(match segments.get(..count).unwrap_or_default() {
        ["", "livez"] => Resource::Livez,
        ["", "readyz"] => Resource::Readyz,
        ["", "version"] => Resource::Version,
        ["", "metrics"] => Resource::Metrics,
        ["", "openapi.yaml"] => Resource::Description,
        ["", "api", "v1", "agents"] => Resource::Agents,
        ["", "api", "v1", "agents", name] => Resource::Agent(name),
        ["", "api", "v1", "usage"] => Resource::Usage,
        ["", "api", "v1", "sessions"] => Resource::Sessions,
        ["", "api", "v1", "sessions", id] => Resource::Session(id),
        ["", "api", "v1", "sessions", id, "messages"] => Resource::Messages(id),
        ["", "api", "v1", "sessions", id, "events"] => Resource::Events(id),
        ["", "api", "v1", "sessions", id, "cancel"] => Resource::Cancel(id),
        ["", "api", "v1", "sessions", id, "fork"] => Resource::Fork(id),
        ["", "api", "v1", "sessions", id, "export"] => Resource::Export(id),
        ["", "api", "v1", "sessions", id, "prompt"] => Resource::Prompt(id),
        ["", "api", "v1", "sessions", id, "approvals"] => Resource::Approvals(id),
        ["", "api", "v1", "sessions", id, "approvals", approval] => Resource::Approval(id, approval),
        ["", "api", "admin", "v1", "reload"] => Resource::Reload,
        ["", "api", "admin", "v1", "shutdown"] => Resource::Shutdown,
        ["*"] => return Err(Problem::new(problem::METHOD, "expected a path, found \"*\"").allow(ANY)),
        _ => return Err(nowhere(path)),
    })
}

fn nowhere(path: &str) -> Problem {
    Problem::new(problem::NOT_FOUND, format!("nothing is at {path:?}"))
}

impl Resource<'_> {
    /// For `Allow`.
    fn methods(self) -> &'static str {
        match self {
            Self::Sessions | Self::Messages(_) => "GET, HEAD, POST",
            Self::Session(_) => "GET, HEAD, DELETE",
            Self::Cancel(_) | Self::Fork(_) | Self::Approval(..) | Self::Reload | Self::Shutdown => POST,
            _ => GET,
        }
    }

    /// Says what `method` means here.
    pub(super) fn verb(self, method: &tiny_http::Method) -> Result<Verb, Problem> {
        use tiny_http::Method;
        let methods = self.methods();
        match method {
            Method::Get | Method::Head if methods.starts_with(GET) => Ok(Verb::Get),
            Method::Post if methods.ends_with(POST) => Ok(Verb::Post),
            Method::Delete if methods.ends_with("DELETE") => Ok(Verb::Delete),
            _ => {
                let detail = format!("expected one of the methods {methods}, found {method}");
                Err(Problem::new(problem::METHOD, detail).allow(methods))
            }
        }
    }
}
