//! `docs/openapi.yaml` against the server and its source: nothing is described that is not there, nothing is there that is
//! not described.
//!
//! What asks the server is schemathesis, from PyPI at the versions of `requirements.txt`, in an environment of its own
//! below the target directory. Without Python there is no test, and that is a failure.

mod agreement;
mod conformance;
mod python;
mod stage;

/// The description, as it is served.
const DESCRIPTION: &str = include_str!("../../docs/openapi.yaml");
