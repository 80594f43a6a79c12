//! `duragent reload`: the server of the workspace reads its configuration anew. A bad one keeps the old, and is exit code 3.

use super::connect::{self, Connection};
use super::{Common, Failure, args, print};

/// The status with which the server refuses a configuration.
const REFUSED: u16 = 400;

pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    args::no_more(&mut parser)?;
    let dir = common.existing()?;
    let Some(server) = Connection::server(&dir) else {
        let error = format!("no server is up in {}", dir.display());
        return Err(Failure::new(error).hint("without one, every command reads the configuration by itself"));
    };
    let response = server.client().request("POST", "/api/admin/v1/reload", &[], b"");
    let response = response.map_err(|error| Failure::new(format!("the server does not answer: {error}")))?;
    match response.status {
        200..300 => print("the server has taken the configuration\n"),
        REFUSED => {
            let failure = Failure { code: 3, ..connect::problem(&response) };
            Err(failure.hint("the server goes on with the old one; see it all with: duragent check"))
        }
        _ => Err(connect::problem(&response)),
    }
}
