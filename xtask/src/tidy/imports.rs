//! Arrows point one way: `core ← platform ← {store, provider, tool} ← session ← {http, gateway, schedule} ← cli ← main`.
//!
//! Siblings in braces never import each other. `config` yields plain structs that only `cli` and `main` see. Checked on
//! every path in the code, in `use` or not, however it is spelt: `crate::`, `super::`, or the name of the crate.

use super::source::Source;
use super::{Report, Rule};

/// What each module of the `duragent` library may name of the others. The crates core and platform are open to all.
const MODULES: [(&str, &[&str]); 9] = [
    ("store", &[]),
    ("provider", &[]),
    ("tool", &[]),
    ("config", &[]),
    ("session", &["store", "provider", "tool"]),
    ("http", &["store", "provider", "tool", "session"]),
    ("gateway", &["store", "provider", "tool", "session"]),
    ("schedule", &["store", "provider", "tool", "session"]),
    ("cli", &["store", "provider", "tool", "session", "http", "gateway", "schedule", "config"]),
];

/// Crates of this workspace by folder, and which of them each may name. The library and `main` may name all.
const CRATES: [(&str, &str, &[&str]); 4] = [
    ("src/core/", "duragent_core", &[]),
    ("platform/", "duragent_platform", &["duragent_core"]),
    // A mistake in code that both sides share would be seen by neither.
    ("tests/support/", "duragent_testkit", &[]),
    ("xtask/", "xtask", &[]),
];

/// Checks one file.
pub fn check(source: &Source<'_>, report: &mut Report) {
    let paths = paths(source);
    if let Some((_, own, allowed)) = CRATES.iter().find(|(folder, ..)| source.path.starts_with(folder)) {
        for path in paths.iter().filter(|p| p.first().starts_with("duragent")) {
            if path.first() != *own && !allowed.contains(&path.first()) {
                report.add(source, path.line, Rule::Imports, &format!("{own} must not know {}", path.first()));
            }
        }
        return;
    }
    let Some(here) = library_module(source.path) else { return };
    let Some((_, allowed)) = MODULES.iter().find(|(name, _)| *name == here[0]) else {
        let text = format!(
            "module {} has no place in the order of imports: give it one in xtask/src/tidy/imports.rs",
            here[0]
        );
        report.add(source, 1, Rule::Imports, &text);
        return;
    };
    for path in &paths {
        let Some(target) = path.resolve(&here) else { continue };
        let known = MODULES.iter().any(|(name, _)| *name == target);
        if known && target != here[0] && !allowed.contains(&target.as_str()) {
            let text = format!("{} must not import {target} ({})", here[0], path.segments.join("::"));
            report.add(source, path.line, Rule::Imports, &text);
        }
    }
}

/// The module path of a file of the library: `src/http/api/mod.rs` is `[http, api]`. `None` for `lib.rs` and `main.rs`,
/// which may name everything, and for files elsewhere.
fn library_module(path: &str) -> Option<Vec<String>> {
    let inner = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let inner = inner.strip_suffix("/mod").unwrap_or(inner);
    if matches!(inner, "lib" | "main") { None } else { Some(inner.split('/').map(str::to_owned).collect()) }
}

/// A path in the code.
struct Path {
    segments: Vec<String>,
    line: usize,
    /// How many inline `mod x { … }` surround it.
    inline: usize,
}

impl Path {
    fn first(&self) -> &str {
        self.segments.first().map_or("", String::as_str)
    }

    /// The top-level module of the library that the path leads into, seen from the file of module `here`.
    fn resolve(&self, here: &[String]) -> Option<String> {
        let mut segments = self.segments.iter().map(String::as_str).peekable();
        let mut depth = here.len() + self.inline;
        match segments.next()? {
            "crate" | "duragent" => return segments.next().map(str::to_owned),
            "self" => {}
            "super" => depth = depth.checked_sub(1)?,
            _ => return None,
        }
        while segments.next_if_eq(&"super").is_some() {
            depth = depth.checked_sub(1)?;
        }
        match depth {
            0 => segments.next().map(str::to_owned),
            _ => Some(here[0].clone()),
        }
    }
}

/// Every path of the file that may leave its module.
fn paths(source: &Source<'_>) -> Vec<Path> {
    let mut found = Vec::new();
    let mut inline_ends = Vec::new();
    for i in 0..source.tokens.len() {
        inline_ends.retain(|&end| i < end);
        if source.text_at(i) == "mod" && source.text_at(i + 2) == "{" {
            inline_ends.push(source.after_group(i + 2));
        }
        let word = source.text_at(i);
        let starts = matches!(word, "crate" | "super" | "self") || word.starts_with("duragent");
        let goes_on = i > 0 && source.text_at(i - 1) == "::";
        if !starts || goes_on || (source.text_at(i + 1) != "::" && word != "duragent") {
            continue;
        }
        let mut all = Vec::new();
        expand(source, i, &mut Vec::new(), &mut all);
        let line = source.tokens[i].line;
        found.extend(all.into_iter().map(|(segments, at)| Path {
            segments,
            line: source.tokens.get(at).map_or(line, |t| t.line),
            inline: inline_ends.len(),
        }));
    }
    found
}

/// Follows `a::b::{c, d::e}` from token `at`; pushes each whole path with the token of its last segment, and returns the
/// token after it.
fn expand(source: &Source<'_>, mut at: usize, prefix: &mut Vec<String>, all: &mut Vec<(Vec<String>, usize)>) -> usize {
    let depth = prefix.len();
    loop {
        prefix.push(source.text_at(at).to_owned());
        at += 1;
        if source.text_at(at) != "::" {
            break;
        }
        at += 1;
        if source.text_at(at) == "{" {
            let end = source.after_group(at);
            at += 1;
            while at < end.saturating_sub(1) {
                if source.text_at(at) == "," {
                    at += 1;
                } else {
                    at = expand(source, at, prefix, all);
                    while at < end.saturating_sub(1) && source.text_at(at) != "," {
                        at += 1; // `as name`
                    }
                }
            }
            prefix.truncate(depth);
            return end;
        }
        if source.text_at(at) == "<" {
            break;
        }
    }
    all.push((prefix.clone(), at.saturating_sub(1)));
    prefix.truncate(depth);
    at
}
