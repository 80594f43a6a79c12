//! Rules about any text file, and about the tree itself.

use super::{Report, Rule};
use crate::repo::Repo;

/// Folders of the layout (docs/architecture.md). Each has content, or stands in ratchet.txt as still absent.
pub const LAYOUT: [&str; 18] = [
    "agents",
    "benches",
    "cross",
    "docs",
    "docs/adr",
    "fuzz",
    "platform",
    "plugins",
    "profiles",
    "src/cli",
    "src/config",
    "src/core",
    "src/gateway",
    "src/http",
    "src/schedule",
    "src/session",
    "tests",
    "xtask",
];

/// Checks one file that is UTF-8.
pub fn check(path: &str, text: &str, report: &mut Report) {
    let is_rust = path.ends_with(".rs");
    for (number, line) in (1..).zip(text.split('\n')) {
        // Expected output may end in white space, and Markdown gives two trailing spaces a meaning we do not use.
        if line.ends_with([' ', '\t', '\r']) && !path.ends_with(".case") {
            report.add_at(path, number, Rule::Space, "white space at the end of the line");
        }
        if is_rust && line.contains('\t') {
            report.add_at(path, number, Rule::Space, "a tab: indent with spaces, and write \\t in literals");
        }
        if let Some(word) = unfinished(line) {
            let text = format!("{word} without an issue: write {word}(#123), or do it");
            report.add_at(path, number, Rule::Unfinished, &text);
        }
        if let Some(found) = machine_path(path, line) {
            report.add_at(path, number, Rule::Places, &format!("{found} is a path of one machine"));
        }
        if let Some(found) = registry_host(path, line) {
            report.add_at(path, number, Rule::Places, &format!("{found} is the host of a package registry"));
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        report.add_at(path, text.lines().count(), Rule::Space, "no line feed at the end of the file");
    }
}

fn unfinished(line: &str) -> Option<&'static str> {
    const WORDS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];
    WORDS.into_iter().find(|word| {
        line.match_indices(word).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + word.len()..]);
            let is_word = |c: char| c == '_' || c.is_alphanumeric();
            !before.ends_with(is_word) && !after.starts_with(is_word) && !after.starts_with("(#")
        })
    })
}

/// A path that exists on one developer's machine only. `/root` and `/home` are fair in code about sandboxes.
fn machine_path(path: &str, line: &str) -> Option<&'static str> {
    const EVERYWHERE: [&str; 5] = [
        concat!("/work", "/wt"),
        concat!("/work", "/main"),
        concat!("/work", "/shared"),
        concat!("/Us", "ers/"),
        concat!("/tmp/", "bash_jobs"),
    ];
    const DOCUMENTS: [&str; 2] = [concat!("/ro", "ot/"), concat!("/home/", "runner")];
    let in_document = path.ends_with(".md");
    let wanted = EVERYWHERE.iter().chain(DOCUMENTS.iter().filter(|_| in_document));
    wanted.copied().find(|place| {
        line.match_indices(place)
            .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._>}*~-".contains(c)))
    })
}

/// Hosts change and mirrors exist; which registry is used is cargo's configuration. `deny.toml` has to name one.
fn registry_host(path: &str, line: &str) -> Option<&'static str> {
    const HOSTS: [&str; 7] = [
        concat!("index.", "crates.io"),
        concat!("static.", "crates.io"),
        concat!("crates.io", "-index"),
        concat!("registry.", "npmjs.org"),
        concat!("files.", "pythonhosted.org"),
        concat!("pypi", ".org"),
        concat!("deb.", "debian.org"),
    ];
    if path.ends_with("Cargo.lock") || path == "deny.toml" {
        return None;
    }
    HOSTS.into_iter().find(|host| line.contains(host))
}

/// Checks that every folder of the layout has content; `absent` lists those that are known not to be there yet.
/// Returns the folders that may be taken off that list.
pub fn check_layout(repo: &Repo, files: &[String], absent: &[String], report: &mut Report) -> Vec<String> {
    let has_content = |folder: &str| {
        files.iter().any(|f| {
            f.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
                && std::fs::metadata(repo.root.join(f)).is_ok_and(|m| m.len() > 0)
        })
    };
    for folder in LAYOUT.iter().filter(|f| !has_content(f) && !absent.iter().any(|a| a == *f)) {
        report.add_at(folder, 1, Rule::Layout, "a folder of the layout without content");
    }
    absent.iter().filter(|folder| has_content(folder)).cloned().collect()
}
