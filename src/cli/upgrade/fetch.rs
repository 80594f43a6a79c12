//! Where a release comes from: a folder or a web server. Nothing of it is trusted.
//!
//! Absent: keys, resuming, compression. Whoever stands in between can withhold a release, but not change one.

use super::place::cannot;
use crate::cli::Failure;
use crate::config::{Outward, Workspace, masked_url};
use crate::provider::http::{Client, Proxy, Settings, Timeouts};
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

/// Most redirects of one file: release pages take one or two.
const REDIRECTS_MAX: usize = 5;

/// How long to wait for what. A line as slow as a modem still moves within two minutes.
const TIMEOUTS: Timeouts =
    Timeouts { connect: Duration::from_secs(30), first_byte: Duration::from_secs(120), idle: Duration::from_secs(120) };

/// A place that has the files of a release.
pub enum Source {
    /// On this machine.
    Folder(PathBuf),
    /// All before the name of a file, with the slash.
    Url { base: String, outward: Outward },
}

impl Source {
    /// Splits `from` into the place and the name of the release's text there.
    ///
    /// # Errors
    /// If it names no file.
    pub fn parse(from: &str, workspace: Option<&Workspace>) -> Result<(Self, String), Failure> {
        let unnamed =
            || Failure::usage(format!("--from: expected the file of a release, found {from:?}"), "name its text");
        if from.starts_with("http://") || from.starts_with("https://") {
            let cut = from.rfind('/').unwrap_or(0) + 1;
            let (base, name) = from.split_at(cut);
            if name.is_empty() || base.ends_with("//") {
                return Err(unnamed());
            }
            let outward = workspace.map(|workspace| workspace.config.outward.clone()).unwrap_or_default();
            return Ok((Self::Url { base: base.to_owned(), outward }, name.to_owned()));
        }
        let path = PathBuf::from(from);
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(unnamed)?.to_owned();
        Ok((Self::Folder(duragent_platform::file::parent_of(&path)), name))
    }

    /// Hands the file `name` to `each`, piece by piece, until that returns false.
    ///
    /// # Errors
    /// If it cannot be had.
    pub fn get(&self, name: &str, each: &mut dyn FnMut(&[u8]) -> Result<bool, Failure>) -> Result<(), Failure> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                // Asked before it is opened: opening a FIFO would wait for a writer.
                if !fs::metadata(&path).map_err(cannot("read", &path))?.is_file() {
                    return Err(Failure::new(format!("{}: expected a regular file", path.display())));
                }
                let mut file = File::open(&path).map_err(cannot("read", &path))?;
                let mut buffer = vec![0; 64 * 1024];
                loop {
                    let n = file.read(&mut buffer).map_err(cannot("read", &path))?;
                    if n == 0 || !each(buffer.get(..n).unwrap_or_default())? {
                        return Ok(());
                    }
                }
            }
            Self::Url { base, outward } => download([base, name].concat(), outward, each),
        }
    }

    /// A whole file of at most `max` bytes.
    ///
    /// # Errors
    /// As [`Source::get`]; and if it is longer.
    pub fn whole(&self, name: &str, max: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        self.get(name, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(bytes.len() <= max)
        })?;
        if bytes.len() > max {
            return Err(Failure::new(format!("{name}: expected at most {max} bytes, found more")));
        }
        Ok(bytes)
    }
}

fn download(
    mut url: String,
    outward: &Outward,
    each: &mut dyn FnMut(&[u8]) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let failed = |url: &str, what: &str| Failure::new(["cannot get ", &masked_url(url), ": ", what].concat());
    for _ in 0..=REDIRECTS_MAX {
        let host = url.find("://").map_or(0, |at| at + 3);
        let path = url.get(host..).and_then(|rest| rest.find('/')).map_or(url.len(), |at| host + at);
        let (origin, path) = url.split_at(path);
        if origin.contains('@') {
            return Err(failed(&url, "expected no user name and password in it"));
        }
        let proxy = outward.to(origin).map(Proxy::parse).transpose();
        let settings =
            Settings { proxy: proxy.map_err(|e| failed(&url, &e.to_string()))?, ..Settings::new(origin, TIMEOUTS) };
        let client = Client::new(&settings).map_err(|error| failed(&url, &error.to_string()))?;
        let path = if path.is_empty() { "/" } else { path };
        let mut answer = client.get(path, TIMEOUTS.first_byte).map_err(|error| failed(&url, &error.detail))?;
        if let (301..=303 | 307 | 308, Some(to)) = (answer.status(), answer.location()) {
            let next = if to.starts_with('/') && !to.starts_with("//") { [origin, to].concat() } else { to.to_owned() };
            if !next.starts_with("https://") && (url.starts_with("https://") || !next.starts_with("http://")) {
                return Err(failed(&url, &format!("it leads to {next:?}, expected https://")));
            }
            drop(answer);
            url = next;
            continue;
        }
        if answer.status() != 200 {
            return Err(failed(&url, &format!("expected status 200, found {}", answer.status())));
        }
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let piece = answer.read(&mut buffer).map_err(|error| failed(&url, &error.detail))?;
            if piece.is_empty() || !each(piece)? {
                return Ok(());
            }
        }
    }
    Err(failed(&url, &format!("more than {REDIRECTS_MAX} redirects")))
}
