//! `duragent reload`: the server of the workspace reads its configuration anew. A bad one keeps the old, and is exit code 3.

use super::connect::Connection;
use super::{Common, Failure, args, print};

pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    args::no_more(&mut parser)?;
    let dir = common.existing()?;
    let Some(server) = Connection::server(&dir) else {
        let error = format!("no server is up in {}", dir.display());
        return Err(Failure::new(error).hint("without one, every command reads the configuration by itself"));
    };
    server.json("POST", "/api/admin/v1/reload", None)?;
    print("the server has taken the configuration\n")
}
