//! Where a path leads: links are followed here, in text, so that the policy can be asked about the end.
//!
//! What comes out is a guess until it is opened without following links: an agent may change things meanwhile.

use super::super::policy::{Grant, View};
use super::Target;
use super::refused::{Refused, grants};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Symbolic links that are followed on the way, as in the kernel (path_resolution(7)).
const LINKS_MAX: u32 = 40;

/// `path` (absolute) without `.` and doubled or trailing slashes: what it leads to if no part is a link. `None` if that
/// cannot be said because of a `..`.
pub(super) fn plain(path: &Path) -> Option<PathBuf> {
    if path.components().any(|part| part == Component::ParentDir) { None } else { Some(path.components().collect()) }
}

/// What `path` (absolute) leads to, if `view` grants `needed` there. From the first part on that is missing, or that we may
/// not look at, the rest is taken as it is written: whoever opens it is told the reason.
pub(super) fn resolve(view: &View, path: &Path, needed: Grant) -> io::Result<Target> {
    let mut at = PathBuf::from("/");
    // What is still to go, the next part last.
    let mut ahead: Vec<OsString> = parts(path).collect();
    // While parts of a link's text are ahead: how many parts come after them.
    let mut after_link = None;
    let (mut links, mut dangling, mut told) = (0, false, None);
    while let Some(part) = ahead.pop() {
        after_link = after_link.filter(|&after| ahead.len() >= after);
        if part == OsStr::new("..") {
            if !is_known(view, &at) {
                return Err(refuse(view, told.unwrap_or(at), needed));
            }
            if !fs::symlink_metadata(&at)?.is_dir() {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            at.pop();
            continue;
        }
        at.push(part);
        match fs::read_link(&at) {
            Ok(text) => {
                links += 1;
                if told.is_none() && view.grant(&at) == Grant::None {
                    told = Some(whole(&at, &ahead));
                }
                if links > LINKS_MAX {
                    let endless = || io::Error::from_raw_os_error(libc::ELOOP);
                    return Err(told.map_or_else(endless, |path| refuse(view, path, needed)));
                }
                after_link = after_link.or(Some(ahead.len()));
                // An absolute text takes the place of all of it.
                at.pop();
                at = if text.is_absolute() { PathBuf::from("/") } else { at };
                ahead.extend(parts(&text));
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {} // no link
            Err(error) => {
                if ahead.iter().any(|part| part == "..") {
                    let known = grants(view, &at, Grant::Read);
                    return Err(if known { error } else { refuse(view, told.unwrap_or(at), needed) });
                }
                dangling = after_link.is_some();
                at = whole(&at, &ahead);
                break;
            }
        }
    }
    // Of what is outside, only the name is told that was asked for, not where a link there leads.
    if grants(view, &at, needed) {
        Ok(Target { path: at, dangling })
    } else {
        Err(refuse(view, told.unwrap_or(at), needed))
    }
}

/// True if it is no secret that `path` exists: it is granted, or leads to something that is.
fn is_known(view: &View, path: &Path) -> bool {
    view.grant(path) != Grant::None || view.entries().iter().any(|entry| entry.path.starts_with(path))
}

fn refuse(view: &View, path: PathBuf, needed: Grant) -> io::Error {
    Refused::new(view, path, needed).into()
}

/// The parts of a path that lead somewhere, the first one last.
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    })
}

fn whole(at: &Path, ahead: &[OsString]) -> PathBuf {
    at.iter().chain(ahead.iter().rev().map(OsString::as_os_str)).collect()
}
