//! `duragent session prune [--dry-run]`: removes what `retention` in the configuration says is not to be kept. Beside a server as
//! well: what somebody works on cannot be had, and stays.

use super::{store, stored};
use crate::cli::{Common, Failure, print, setup, text};
use crate::session::retention::{Going, plan};
use duragent_platform::clock;

pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let mut dry = false;
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("dry-run") => dry = true,
            other => return Err(other.unexpected().into()),
        }
    }
    let dir = common.existing()?;
    let keep = setup::keep(&setup::load(&dir)?.config.retention);
    let store = store(&dir);
    if !dry {
        store.sweep().map_err(stored)?;
    }
    let going = plan(&store, &keep, clock::wall_ms()).map_err(stored)?.map_err(|why| {
        Failure::new(format!("everything is kept for now: {why}")).hint("set the clock; see duragent doctor")
    })?;
    let (mut out, mut bytes) = (String::new(), 0);
    for one in going {
        if dry {
            bytes += one.bytes;
            out.push_str(&line("would remove", &one));
        } else if one.remove(&store).is_ok() {
            bytes += one.bytes;
            out.push_str(&line("removed", &one));
        } else {
            // Somebody works on it, or just did.
            out.push_str(&line("kept, in use:", &one));
        }
    }
    if out.is_empty() {
        text::say("nothing to remove; what is kept is said under retention in duragent.yaml");
    } else {
        out.push_str(&format!("{}\n", text::count(bytes, "byte")));
    }
    print(&out)
}

fn line(what: &str, going: &Going) -> String {
    let Going { session, artifacts, bytes, why, .. } = going;
    let part = match artifacts.len() {
        0 => String::new(),
        n => format!("{} of ", text::count(n as u64, "artifact")),
    };
    format!("{what} {part}session {session}, {} ({why})\n", text::count(*bytes, "byte"))
}
