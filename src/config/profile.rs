//! Device profiles: limits for a kind of board, beneath what `duragent.yaml` says. Those of `profiles/` are in the binary;
//! anybody may write another.
//!
//! Invariants: a profile has limits and nothing else, in the places that they have in `duragent.yaml`; each is a whole
//! number within the range that it has there.
//!
//! Absent: what the limits are for ([`super::types`], [`super::sandbox`]).

use super::env::Env;
use super::log::{FILE_BYTES, FILES};
use super::problem::Problem;
use super::read::{self, Problems, Section};
use super::sandbox::LIMITS;
use super::types::{Limits, Retention, ServerLimits, from_base};
use super::yaml::{self, Document, Node};
use duragent_core::packed::unpack;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Says which profile, in place of `profile` in `duragent.yaml`.
pub const VARIABLE: &str = "DURAGENT_PROFILE";

/// The files of `profiles/`, without comments: `# NAME`, a line feed, and the file, one after the other.
const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/profiles.packed"));

/// A profile as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// As it was asked for: a name, or a path.
    pub name: String,
    /// Its file, if it is not in the binary.
    pub path: Option<PathBuf>,
    /// Dotted paths of limits, and what they are.
    values: Vec<(String, u64)>,
}

impl Profile {
    /// The limit at this dotted path, if the profile has it.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<u64> {
        self.values.iter().find(|(known, _)| known == path).map(|(_, value)| *value)
    }
}

/// Where limits come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origins {
    /// What lies beneath `duragent.yaml`.
    pub profile: Option<Profile>,
    /// Dotted paths of the whole numbers that `duragent.yaml` writes.
    pub written: Vec<String>,
}

impl Origins {
    /// Who says what the limit at this dotted path is, for people; nothing for a default, and where there is no profile.
    #[must_use]
    pub fn of(&self, path: &str) -> &'static str {
        let Some(profile) = &self.profile else { return "" };
        match self.written.iter().any(|written| written == path) {
            true => "duragent.yaml",
            false => profile.get(path).map_or("", |_| "profile"),
        }
    }
}

/// Lays the profile that was asked for beneath the file of `top`, whose workspace is `dir`. What is wrong with a profile's own
/// file comes back.
pub(super) fn choose(top: &Section<'_>, dir: &Path, env: Env<'_>) -> Vec<Problem> {
    let said = env(VARIABLE).filter(|name| !name.is_empty());
    let Some(name) = said.as_deref().or_else(|| top.text("profile")) else { return Vec::new() };
    let found = if name.contains('/') {
        let path = from_base(dir, name);
        read::document(&path, name).map(|document| (Some(path), document))
    } else {
        built_in(name).map(|document| (None, document)).map_err(|why| Problem::file("profile", why))
    };
    match found {
        Ok((path, (root, document))) => {
            let (values, problems) = values(name, &root, &document);
            // Of a file that is read once.
            let _ = top.problems().profile.set(Profile { name: name.to_owned(), path, values });
            problems
        }
        Err(problem) if problem.line == 0 && said.is_none() => {
            top.error("profile", &[name, ": ", &problem.message].concat());
            Vec::new()
        }
        Err(problem) => vec![Problem { message: [name, ": ", &problem.message].concat(), ..problem }],
    }
}

/// The profile of this name in the binary.
fn built_in(name: &str) -> Result<(Node, Document), String> {
    let all = unpack(PACKED);
    let mut each = all.split("# ").filter_map(|part| part.split_once('\n'));
    if let Some((_, text)) = each.clone().find(|(known, _)| *known == name) {
        return yaml::parse(text.as_bytes()).map_err(|fault| fault.message);
    }
    let names = each.clone().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
    let hint = read::suggest(name, &mut each.by_ref().map(|(name, _)| name));
    let hint = hint.map(|word| ["did you mean ", word, "? "].concat()).unwrap_or_default();
    Err(["no such profile (", &hint, "there are ", &names, "; a file of your own has a / in its path)"].concat())
}

/// The limits in a profile, and what is wrong with it.
fn values(name: &str, root: &Node, document: &Document) -> (Vec<(String, u64)>, Vec<Problem>) {
    let problems = Problems::new(name, document);
    let mut values = Vec::new();
    let mut take = |section: Section<'_>, limits: &mut dyn Iterator<Item = (&'static str, RangeInclusive<u64>)>| {
        let limits: Vec<_> = limits.collect();
        section.keys(&limits.iter().map(|(key, _)| *key).collect::<Vec<_>>(), &[]);
        for (key, range) in limits {
            values.extend(section.int_opt(key, range).map(|value| (section.child(key), value)));
        }
    };
    let top = Section::top(root, &problems);
    top.keys(&["server", "limits", "retention", "log", "sandbox"], &[]);
    let of_table = |(key, _, range): &(&'static str, u64, RangeInclusive<u64>)| (*key, range.clone());
    take(top.section_or_empty("server"), &mut ServerLimits::TABLE.iter().map(of_table));
    take(top.section_or_empty("limits"), &mut Limits::TABLE.iter().map(of_table));
    take(top.section_or_empty("retention"), &mut Retention::TABLE.iter().map(of_table));
    take(top.section_or_empty("log"), &mut [("file_bytes_max", FILE_BYTES.1), ("files_max", FILES.1)].into_iter());
    let sandbox = top.section_or_empty("sandbox");
    sandbox.keys(&["limits"], &[]);
    // The last two only repeat what `limits` says of all calls.
    let of_calls = LIMITS.iter().take(6).map(|(key, range, _)| (*key, range.clone()));
    take(sandbox.section_or_empty("limits"), &mut { of_calls });
    (values, problems.finish())
}
