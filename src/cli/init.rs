//! `duragent init [FOLDER]`

use super::{Common, Failure, print};
use crate::config::init;
use std::path::PathBuf;

pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let mut folder = None;
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Value(value) if folder.is_none() => folder = Some(PathBuf::from(value)),
            other => return Err(other.unexpected().into()),
        }
    }
    if folder.is_some() && common.dir.is_some() {
        return Err(Failure::usage("expected --dir or a folder, found both", "init FOLDER makes FOLDER/.duragent"));
    }
    let dir = folder.map_or_else(|| common.workspace(), |folder| folder.join(".duragent"));
    let made = init::init(&dir).map_err(|error| Failure::new(error.to_string()))?;
    let mut text = String::new();
    for file in &made {
        let word = if file.new { "made" } else { "kept" };
        text.push_str(&format!("{word} {}\n", file.path.display()));
    }
    text.push_str(
        "\nNext: ollama pull MODEL (see agents/assistant/agent.yaml), then: duragent run assistant \"hello\"\n",
    );
    print(&text)
}
