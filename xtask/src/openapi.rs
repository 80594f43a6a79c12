//! `cargo xtask openapi [--examples N] [--seed N]`: a long campaign of schemathesis against a server.
//!
//! The same test runs a slice in plain `cargo test` (tests/openapi/conformance.rs), which reads these variables.

use crate::repo::{self, Repo};
use crate::{Failure, Result, Tally};

/// Generated requests for each operation and phase, if nothing is said: about ten minutes.
const EXAMPLES_DEFAULT: u64 = 1000;

/// Runs the campaign.
///
/// # Errors
/// On a wrong command line, or if the server does not do what `docs/openapi.yaml` says.
pub fn run(repo: &Repo, args: &[String]) -> Result<Tally> {
    let (mut examples, mut seed) = (EXAMPLES_DEFAULT, 1);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let slot = match arg.as_str() {
            "--examples" => &mut examples,
            "--seed" => &mut seed,
            other => return Err(Failure::unknown_argument("openapi", other)),
        };
        let number = args.next().and_then(|text| text.parse().ok());
        *slot = number.ok_or_else(|| Failure::Usage(format!("openapi: expected a number after {arg}")))?;
    }
    let mut command = repo.cargo(["test", "--test", "openapi", "generated", "--", "--nocapture"]);
    command.env("DURAGENT_OPENAPI_EXAMPLES", examples.to_string()).env("DURAGENT_OPENAPI_SEED", seed.to_string());
    repo::run(&mut command).map(|()| Tally { passed: 1, failed: 0 })
}
