//! Reads `policy.yaml`, adds a rule to it when an approval is to hold always, and knows the tags of tools.
//!
//! Variables are not expanded here: a rule says what it matches, whatever the environment.

use super::agent::header;
use super::problem::{Problem, has_errors};
use super::read::{self, Problems, Section};
use super::yaml::{self, Kind, Node};
use super::{Agent, Workspace};
use duragent_core::policy::{self, Policy, Rule, Verdict};
use duragent_core::tool::Tags;
use duragent_platform::sandbox::{Mode, Network};
use std::fmt::Write as _;
use std::io;
use std::path::Path;

/// Most rules in one list, to bound the time of a decision.
pub const RULES_MAX: usize = 1000;

/// Reads a policy; `None` if there is no such file. `name` is what messages call it.
///
/// # Errors
/// Everything that is wrong with it, warnings included.
pub fn load(path: &Path, name: &str) -> Result<Option<(Policy, Vec<Problem>)>, Vec<Problem>> {
    if matches!(std::fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        return Ok(None);
    }
    let (root, document) = read::document(path, name).map_err(|problem| vec![problem])?;
    let problems = Problems::new(name, &document);
    let policy = read(&root, &problems);
    let list = problems.finish();
    if has_errors(&list) { Err(list) } else { Ok(Some((policy, list))) }
}

fn read(root: &Node, problems: &Problems<'_>) -> Policy {
    let top = Section::top(root, problems);
    top.keys(&["apiVersion", "kind", "mode", "deny", "ask", "allow", "tags"], &["notify"]);
    header(&top, "Policy", false);
    let mode = match top.get("mode").and_then(read::text_of) {
        // Words of older policies.
        Some("dangerous") => Some(Verdict::Allow),
        Some("restrict") => Some(Verdict::Deny),
        _ => top
            .word("mode", &["allow", "ask", "deny"])
            .and_then(|index| [Verdict::Allow, Verdict::Ask, Verdict::Deny].get(index).copied()),
    };
    let list = |key| rules(&top, key);
    Policy { mode, deny: list("deny"), ask: list("ask"), allow: list("allow"), tags: tags(&top) }
}

/// The section `tags`: from names of tools, with wildcards, to lists of words.
fn tags(top: &Section<'_>) -> Vec<(Rule, Tags)> {
    let Some(section) = top.section("tags") else { return Vec::new() };
    if section.entries.len() > RULES_MAX {
        top.error("tags", &format!("expected at most {RULES_MAX} tools, found {}", section.entries.len()));
        return Vec::new();
    }
    let mut out = Vec::new();
    for entry in section.entries {
        let key = entry.key.as_str();
        let problems = section.problems();
        let Some(rule) = Rule::parse(key).ok().filter(|rule| rule.pattern().is_none()) else {
            let message = format!("tags: expected the name of a tool, of letters, digits, _, - and *, found {key:?}");
            problems.error(entry.id, message);
            continue;
        };
        if section.get(key).is_none() {
            problems.error(entry.id, format!("{}: expected a list; write [] for no tags", section.child(key)));
        }
        let mut tags = Tags::default();
        for node in section.list(key) {
            let word = read::text_of(node).unwrap_or_default();
            match tags.tag_mut(word) {
                Some(tag) => *tag = true,
                None => problems.error(node.id, unknown_tag(&section.child(key), word, &read::found(node, problems))),
            }
        }
        out.push((rule, tags));
    }
    out
}

fn unknown_tag(place: &str, word: &str, found: &str) -> String {
    let hint = match read::suggest(word, &mut Tags::WORDS.into_iter()) {
        Some(near) => format!(" (did you mean {near:?}?)"),
        None => String::new(),
    };
    format!("{place}: expected private, untrusted or egress, found {found}{hint}")
}

impl Workspace {
    /// The tags of a tool of `agent`: what the policies say, else what the tool can do where it runs. Files that it reads are
    /// the user's. A command reads them too, and can carry out what it likes where its network leads out. That it brings in
    /// what strangers wrote is for people to say: every second command would be asked for.
    #[must_use]
    pub fn tags(&self, agent: &Agent, tool: &str) -> Tags {
        let network = !matches!(agent.sandbox.policy.network, Network::None | Network::Loopback);
        let out = tool == "bash" && (network || self.config.sandbox.mode == Mode::Trust);
        let private = matches!(tool, "bash" | "read_file" | "list_dir" | "search_files");
        let default = Tags { private, untrusted: false, egress: out };
        policy::tags(self.policy.iter().chain(&agent.policy), tool, default)
    }
}

fn rules(top: &Section<'_>, key: &str) -> Vec<Rule> {
    let nodes = top.list(key);
    if nodes.len() > RULES_MAX {
        top.error(key, &format!("expected at most {RULES_MAX} rules, found {}", nodes.len()));
        return Vec::new();
    }
    let mut out = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let problems = top.problems();
        let Some(text) = read::text_of(node) else {
            let found = read::found(node, problems);
            let remedy = if matches!(node.kind, Kind::Map(_)) { "; put it in quotes" } else { "" };
            problems.error(node.id, format!("{key}[{index}]: expected \"tool:pattern\", found {found}{remedy}"));
            continue;
        };
        match Rule::parse(text) {
            Ok(rule) => {
                if let Some(remedy) = misleading(&rule) {
                    problems.warn(node.id, format!("{key}[{index}]: {text:?} matches nothing; {remedy}"));
                }
                out.push(rule);
            }
            Err(error) => problems.error(node.id, format!("{key}[{index}]: {error}, found {text:?}")),
        }
    }
    out
}

/// What to write instead of a rule in the notation of older policies, where a kind stood in front of the tool, and of a path that
/// no shell expands.
fn misleading(rule: &Rule) -> Option<String> {
    let rest = rule.pattern().unwrap_or("*");
    match rule.tool() {
        tool if rest.starts_with("~/") && !rule.is_about("bash") => {
            Some(format!("{tool} does not expand ~, write the whole path"))
        }
        "builtin" => Some(format!("write {rest:?}")),
        "cli" => Some("tools of type cli are not supported yet".to_owned()),
        "mcp" => Some(format!("write {:?}", format!("mcp__{}", rest.replacen(':', "__", 1)))),
        _ => None,
    }
}

/// Adds `rule` to the list `allow` of the policy at `path`, which is made if it is not there. Comments and everything else
/// stay as they are. `replace` puts the new contents in the file's place, whole or not at all.
///
/// # Errors
/// If the file cannot be read or written, or is written in a way that text cannot be put into safely (`allow: [a, b]` over
/// several lines, anchors); the error says so, and the file is as it was.
pub fn append_allow(path: &Path, rule: &Rule, replace: &dyn Fn(&Path, &[u8]) -> io::Result<()>) -> io::Result<()> {
    const NAME: &str = "policy.yaml";
    let invalid = |problem: String| io::Error::new(io::ErrorKind::InvalidData, problem);
    let (old, text) = match load(path, NAME) {
        Ok(None) => (Policy::default(), "apiVersion: duragent/v1alpha1\nkind: Policy\n".to_owned()),
        Ok(Some((policy, _))) => (policy, std::fs::read_to_string(path)?),
        Err(problems) => {
            let first = problems.iter().find(|p| !p.warning).or(problems.first());
            return Err(invalid(first.map(ToString::to_string).unwrap_or_default()));
        }
    };
    if old.allow.contains(rule) {
        return Ok(());
    }
    let text = inserted(&text, rule);
    // The proof that the insertion is what was meant: read it back.
    let mut expected = old;
    expected.allow.insert(0, rule.clone());
    let good = yaml::parse(text.as_bytes()).ok().is_some_and(|(root, document)| {
        let problems = Problems::new(NAME, &document);
        let mut found = read(&root, &problems);
        // Where in the list it stands makes no difference.
        if let Some(at) = found.allow.iter().position(|r| r == rule) {
            let ours = found.allow.remove(at);
            found.allow.insert(0, ours);
        }
        !has_errors(&problems.finish()) && found == expected
    });
    if !good {
        let message = format!(
            "cannot add a rule to the way {} is written; add it by hand: {}",
            path.display(),
            quoted(rule.as_str())
        );
        return Err(invalid(message));
    }
    replace(path, text.as_bytes())
}

/// The text with a line for the rule: the first of the list `allow`, or a new list at the end.
fn inserted(text: &str, rule: &Rule) -> String {
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let item = quoted(rule.as_str());
    let mut out = String::with_capacity(text.len() + item.len() + 16);
    let mut lines = text.split_inclusive('\n').peekable();
    let mut done = false;
    while let Some(line) = lines.next() {
        let value = line.strip_prefix("allow:").map(|rest| rest.split(" #").next().unwrap_or("").trim());
        match value {
            Some("") if !done => {
                out.push_str(line);
                if !line.ends_with('\n') {
                    out.push_str(newline);
                }
                // As far in as the items that are there; block lists may stand at the column of their key.
                let item_line = lines.clone().find(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#'));
                let indent = match item_line.filter(|l| l.trim_start().starts_with('-')) {
                    Some(line) => line.len() - line.trim_start().len(),
                    None => 2,
                };
                let _ = write!(out, "{:indent$}- {item}{newline}", "");
                done = true;
            }
            Some("[]" | "null" | "~") if !done => {
                let _ = write!(out, "allow:{newline}  - {item}{newline}");
                done = true;
            }
            Some(flow) if !done && flow.starts_with('[') && flow.ends_with(']') => {
                out.push_str(&line.replacen('[', &format!("[{item}, "), 1));
                done = true;
            }
            _ => out.push_str(line),
        }
    }
    if !done {
        if !out.is_empty() && !out.ends_with('\n') {
            out.push_str(newline);
        }
        let _ = write!(out, "allow:{newline}  - {item}{newline}");
    }
    out
}

/// As a double-quoted YAML scalar on one line.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            // Control characters, line separators and what YAML calls unprintable.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
