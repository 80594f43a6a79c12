//! `duragent check [-T]`

use super::{Common, Failure, print, setup};
use crate::config::check;
use crate::config::env;

pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let mut dump = false;
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Short('T') => dump = true,
            other => return Err(other.unexpected().into()),
        }
    }
    let dir = common.existing()?;
    let report = check::check(&dir, &env::process, setup::TOOLS);
    if report.errors > 0 {
        return Err(Failure::config(report.lines.join("\n")));
    }
    // What only shows when everything is put together: endpoints, transcripts, sandbox.
    let workspace = setup::load(&dir)?;
    let broken = setup::agents(&workspace)?.broken;
    if !broken.is_empty() {
        let lines: Vec<String> = broken.iter().map(|(name, error)| format!("agents/{name}: {error}")).collect();
        return Err(Failure::config(lines.join("\n")));
    }
    let mut text = report.lines.join("\n") + "\n";
    if let Some(dumped) = report.dump.filter(|_| dump) {
        text.push_str(&dumped);
    }
    print(&text)
}
