//! Policy: whether a tool call may run, by rules that people write.
//!
//! Invariants: deny wins over ask, ask over allow, over all layers together, so no layer lifts another's deny; what no rule
//! matches gets the strictest `mode`; nothing said means ask; a call whose arguments cannot be read is denied. Matching
//! takes time in proportion to pattern times text, whatever the pattern.
//!
//! Two directions of error are treated differently. An allow pattern must not match more than its author saw: with a
//! wildcard it never matches a command that holds shell control characters, and a relative path pattern never
//! leaves the working directory. A deny or ask pattern may match more: it is tried on the parts of a command and on
//! simple disguises of it as well (module `command`).
//!
//! Absent: certainty about what a shell will do. Rules on commands keep honest models from mistakes; the sandbox is the
//! wall. Paths are compared as text: symbolic links are the sandbox's business.

mod command;
mod glob;
#[cfg(test)]
mod tests;

use crate::json::{self, Value};
use crate::tool::{PolicyArgument, Tags};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use command::Form;
use core::fmt;
use glob::{Glob, Style};

/// Most bytes of one rule: bounds the time of a match, and is more than a line that people still read.
pub const RULE_BYTES_MAX: usize = 1024;

/// What [`Decision::rule`] says when a call is denied because its arguments are not what the tool declares.
pub const UNREADABLE: &str = "arguments that policy cannot read";

/// What happens to a call. Ordered by strictness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It runs.
    Allow,
    /// A person decides.
    Ask,
    /// It does not run.
    Deny,
}

impl Verdict {
    /// The word in `policy.yaml`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }
}

/// Why a text is not a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleError {
    /// Nothing before the colon, or something no tool can be called.
    Tool,
    /// A colon with nothing behind it.
    Pattern,
    /// More than [`RULE_BYTES_MAX`] bytes.
    Length,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tool => f.write_str("expected tool:pattern or tool, with a tool name of letters, digits, _, - and *"),
            Self::Pattern => {
                f.write_str("expected a pattern after the colon; without the colon every argument matches")
            }
            Self::Length => write!(f, "expected at most {RULE_BYTES_MAX} bytes"),
        }
    }
}

impl core::error::Error for RuleError {}

/// One line of a policy: `tool` or `tool:pattern`. In the tool name `*` stands for anything. In a pattern for commands and
/// other text `*` stands for anything, `?` for one character; in one for paths neither crosses a `/`, and `**` does.
/// `\*`, `\?` and `\\` stand for `*`, `?` and `\`. A lone `*` in a deny or ask rule matches every argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    text: String,
    /// Bytes of the tool name at the start of `text`.
    tool: usize,
}

impl Rule {
    /// Reads a rule.
    ///
    /// # Errors
    /// [`RuleError`]
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        let (tool, pattern) = text.split_once(':').map_or((text, None), |(tool, pattern)| (tool, Some(pattern)));
        let good = |b: u8| b.is_ascii_alphanumeric() || b"_-*?".contains(&b);
        if tool.is_empty() || !tool.bytes().all(good) {
            return Err(RuleError::Tool);
        }
        if pattern == Some("") {
            return Err(RuleError::Pattern);
        }
        if text.len() > RULE_BYTES_MAX {
            return Err(RuleError::Length);
        }
        Ok(Self { text: text.to_owned(), tool: tool.len() })
    }

    /// The rule that matches calls of `tool` with exactly this argument, for an approval that is to hold always. `None`
    /// if there is no such rule: the argument is empty, unreadable or too long.
    #[must_use]
    pub fn exact(tool: &str, argument: &Argument) -> Option<Self> {
        let text = match argument {
            Argument::Command(text) | Argument::Text(text) => text,
            Argument::Path { relative, absolute } => relative.as_ref().unwrap_or(absolute),
            Argument::Unreadable => return None,
        };
        let mut rule = format!("{tool}:");
        for c in text.chars() {
            if matches!(c, '*' | '?' | '\\') {
                rule.push('\\');
            }
            rule.push(c);
        }
        Self::parse(&rule).ok()
    }

    /// The rule as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The tool name, wildcards included.
    #[must_use]
    pub fn tool(&self) -> &str {
        self.text.get(..self.tool).unwrap_or("")
    }

    /// The pattern; `None` means any argument.
    #[must_use]
    pub fn pattern(&self) -> Option<&str> {
        self.text.get(self.tool + 1..)
    }

    /// True if the rule is about this tool.
    #[must_use]
    pub fn is_about(&self, tool: &str) -> bool {
        Glob::new(self.tool(), Style::Text).matches(tool)
    }

    /// Matches narrowly, as an allow rule must.
    fn allows(&self, tool: &str, argument: &Argument) -> bool {
        if !self.is_about(tool) {
            return false;
        }
        let Some(pattern) = self.pattern() else { return true };
        match argument {
            Argument::Command(text) => {
                let glob = Glob::new(pattern, Style::Command);
                let seen_through = || !command::is_opaque(text) && !command::exceeds(pattern, text);
                pattern == "*" || (glob.matches(text) && (!glob.has_wildcard() || seen_through()))
            }
            Argument::Path { relative, absolute } => {
                let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
                let path = if pattern.starts_with('/') { Some(absolute) } else { relative.as_ref() };
                let glob = Glob::new(pattern, Style::Path);
                let plain = |path: &str| !glob.has_wildcard() || !path.contains(char::is_control);
                path.is_some_and(|path| glob.matches(path) && plain(path))
            }
            Argument::Text(text) => Glob::new(pattern, Style::Text).matches(text),
            Argument::Unreadable => false,
        }
    }

    /// Matches widely, as a deny or ask rule should. `forms` are those of the argument, if it is a command; `None` if
    /// they could not be looked through, and then the rule holds.
    fn stops(&self, tool: &str, argument: &Argument, forms: Option<&[Form]>) -> bool {
        if !self.is_about(tool) {
            return false;
        }
        let Some(pattern) = self.pattern().filter(|pattern| *pattern != "*") else { return true };
        match argument {
            Argument::Command(text) => {
                let glob = Glob::new(pattern, Style::Text);
                // What begins with a wildcard matches from the first place on whatever it matches from a later one on.
                let (first, matches) = (glob.starts_anywhere(), |text: &str| glob.matches(text));
                matches(text) || forms.is_none_or(|forms| forms.iter().any(|form| form.any(first, &matches)))
            }
            Argument::Path { relative, absolute } => {
                // Whatever the case of its letters: some file systems make no difference.
                let pattern = pattern.strip_prefix("./").unwrap_or(pattern).to_ascii_lowercase();
                let glob = Glob::new(&pattern, Style::Path);
                // With a slash behind it as well, so that `secret/**` covers the directory itself.
                [Some(absolute), relative.as_ref()].into_iter().flatten().any(|path| {
                    let mut path = path.to_ascii_lowercase();
                    glob.matches(&path) || {
                        path.push('/');
                        glob.matches(&path)
                    }
                })
            }
            Argument::Text(text) => Glob::new(pattern, Style::Text).matches(text),
            Argument::Unreadable => true,
        }
    }
}

/// The rules of one layer: the workspace's, or an agent's, or what was granted for a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// For calls that no rule of any layer matches.
    pub mode: Option<Verdict>,
    /// Calls that never run.
    pub deny: Vec<Rule>,
    /// Calls that a person decides.
    pub ask: Vec<Rule>,
    /// Calls that run.
    pub allow: Vec<Rule>,
    /// Tags of tools, by rules without a pattern.
    pub tags: Vec<(Rule, Tags)>,
}

/// The argument of a call that patterns are matched against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// A shell command, without white space around it.
    Command(String),
    /// A path without `.`, `..` and double slashes.
    Path {
        /// From the working directory on, `.` for that directory; `None` if the path is outside of it.
        relative: Option<String>,
        /// From the root on.
        absolute: String,
    },
    /// The whole arguments as compact JSON.
    Text(String),
    /// The arguments are not a JSON object, or not of the declared type.
    Unreadable,
}

/// What policy says of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What happens.
    pub verdict: Verdict,
    /// The rule that said so, as written; [`UNREADABLE`]; or `None` if it was the mode.
    pub rule: Option<String>,
}

/// The tags of a tool: what all layers together say of it, `default` if none says anything. A union, so that no layer takes
/// away what another one has said.
#[must_use]
pub fn tags<'p>(layers: impl Iterator<Item = &'p Policy>, tool: &str, default: Tags) -> Tags {
    let mut said = layers.flat_map(|layer| &layer.tags).filter(|(rule, _)| rule.is_about(tool)).peekable();
    if said.peek().is_none() {
        return default;
    }
    said.fold(Tags::default(), |mut all, (_, tags)| {
        all.add(*tags);
        all
    })
}

/// Takes from a call what patterns are matched against. `workdir` is where the tool's relative paths start, absolute.
#[must_use]
pub fn argument(decl: &PolicyArgument, arguments_json: &str, workdir: &str) -> Argument {
    let Ok(value) = json::parse(arguments_json) else { return Argument::Unreadable };
    let Value::Object(_) = &value else { return Argument::Unreadable };
    match decl {
        PolicyArgument::Command(name) => match value.get(name) {
            Some(Value::String(text)) => Argument::Command(text.trim_ascii().to_owned()),
            _ => Argument::Unreadable,
        },
        PolicyArgument::Path(name) => match value.get(name) {
            // A tool may take a missing path for its working directory.
            None | Some(Value::Null) => path(".", workdir),
            Some(Value::String(text)) => path(text, workdir),
            Some(_) => Argument::Unreadable,
        },
        PolicyArgument::Whole => {
            let mut text = String::new();
            value.write(&mut text);
            Argument::Text(text)
        }
    }
}

fn path(text: &str, workdir: &str) -> Argument {
    let workdir = normalized("/", workdir);
    let absolute = if text.starts_with('/') { normalized("/", text) } else { normalized(&workdir, text) };
    let relative = match absolute.strip_prefix(workdir.as_str()) {
        Some("") => Some(".".to_owned()),
        Some(rest) if workdir == "/" => Some(rest.to_owned()),
        Some(rest) => rest.strip_prefix('/').map(ToOwned::to_owned),
        None => None,
    };
    Argument::Path { relative, absolute }
}

/// `base` (absolute, normalized) and then `text`, without `.`, `..` and empty parts. `..` at the root stays there.
fn normalized(base: &str, text: &str) -> String {
    let mut parts: Vec<&str> = base.split('/').filter(|p| !p.is_empty()).collect();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Decides a call by all layers together.
#[must_use]
pub fn evaluate(layers: &[Policy], tool: &str, argument: &Argument) -> Decision {
    let forms = match argument {
        Argument::Command(text) => command::forms(text),
        _ => Some(Vec::new()),
    };
    let forms = forms.as_deref();
    let hit = |rule: &Rule, verdict| Decision { verdict, rule: Some(rule.as_str().to_owned()) };
    if let Some(rule) = layers.iter().flat_map(|p| &p.deny).find(|r| r.stops(tool, argument, forms)) {
        return hit(rule, Verdict::Deny);
    }
    if *argument == Argument::Unreadable {
        return Decision { verdict: Verdict::Deny, rule: Some(UNREADABLE.to_owned()) };
    }
    if let Some(rule) = layers.iter().flat_map(|p| &p.ask).find(|r| r.stops(tool, argument, forms)) {
        return hit(rule, Verdict::Ask);
    }
    if let Some(rule) = layers.iter().flat_map(|p| &p.allow).find(|r| r.allows(tool, argument)) {
        return hit(rule, Verdict::Allow);
    }
    Decision { verdict: layers.iter().filter_map(|p| p.mode).max().unwrap_or(Verdict::Ask), rule: None }
}
