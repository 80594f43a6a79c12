//! `duragent session export SESSION [-o FILE]`: the log as JSON lines, byte for byte, a page at a time.

use super::{intact, lines, named};
use crate::cli::connect::{Connection, session_id};
use crate::cli::{Common, Failure, args, text};
use duragent_platform::file;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let (mut session, mut target) = (None, None);
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Short('o') | lexopt::Arg::Long("output") => target = Some(PathBuf::from(parser.value()?)),
            lexopt::Arg::Value(value) if session.is_none() => session = Some(args::text(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let session = named(session)?;
    let connection = Connection::open(&common.existing()?)?;
    let id = session_id(&connection, &session)?;
    intact(&connection, &id)?;
    match target {
        None => lines(&connection, &id, 0, &mut |line| text::put_json(line))?,
        Some(path) => to_file(&connection, &id, &path)?,
    }
    connection.close();
    Ok(0)
}

/// Writes the whole log or nothing: a temporary file takes the place of `path` at the end.
fn to_file(connection: &Connection, id: &str, path: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        // A pipe or a device, which must not be replaced by a file.
        let mut out = BufWriter::new(File::options().write(true).open(path).map_err(failed)?);
        copy(connection, id, &mut out, &failed)?;
        return out.flush().map_err(failed);
    }
    let temporary = file::temporary_beside(path).map_err(failed)?;
    // Conversations are nobody else's business.
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(failed)?;
    let mut out = BufWriter::new(made);
    let copied = copy(connection, id, &mut out, &failed).and_then(|()| {
        let whole = out.into_inner().map_err(|error| failed(error.into_error()))?;
        whole.sync_all().and_then(|()| fs::rename(&temporary, path)).map_err(failed)?;
        file::sync_dir(&file::parent_of(path)).map_err(failed)
    });
    if copied.is_err() {
        // It is named so that nobody takes it for an export; the first error says more than a second one would.
        fs::remove_file(&temporary).ok();
    }
    copied
}

fn copy(
    connection: &Connection,
    id: &str,
    out: &mut BufWriter<File>,
    failed: &dyn Fn(io::Error) -> Failure,
) -> Result<(), Failure> {
    lines(connection, id, 0, &mut |line| {
        out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")).map_err(failed)?;
        Ok(true)
    })
}
