//! What an agent is: the plain data of its spec, with its texts read in.
//!
//! Invariant: [`AgentSpec::system_prompt`] is a pure function of the spec, byte for byte, so that a model server's prompt
//! cache works over all sessions of an agent.
//!
//! Absent: files and YAML (`config` reads them), its policy ([`crate::policy`]), its tools' code.

use crate::skill::{Skill, catalogue};
use alloc::string::String;
use alloc::vec::Vec;

/// What a turn does when the client that started it goes away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It goes on. The default: that is what a durable session is for.
    #[default]
    Continue,
    /// The session is paused.
    Pause,
}

impl OnDisconnect {
    /// The word in the spec.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Continue => "continue",
            Self::Pause => "pause",
        }
    }
}

/// The model an agent thinks with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelSpec {
    /// Name of a provider in the configuration.
    pub provider: String,
    /// Model name, as the provider knows it.
    pub name: String,
    /// Sampling temperature, 0 to 2; the model's own if `None`.
    pub temperature: Option<f64>,
    /// Most tokens of one answer; the provider's own limit if `None`.
    pub max_output_tokens: Option<u64>,
    /// Endpoint in place of the provider's; without a slash at the end.
    pub base_url: Option<String>,
    /// Context window in tokens; the provider's setting if `None`.
    pub context_tokens: Option<u64>,
    /// What is asked if this model does not answer, in this order; theirs are empty.
    pub fallback: Vec<ModelSpec>,
}

/// An `AGENTS.md`, or what stands in its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guide {
    /// Its path from the working directory on.
    pub path: String,
    /// Its text; or a note of why it is left out.
    pub text: String,
}

/// An agent, as its files describe it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AgentSpec {
    /// Name of its directory; an id.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// For people, as written.
    pub version: Option<String>,
    /// For people and scripts, in the order of the file.
    pub labels: Vec<(String, String)>,
    /// The model.
    pub model: ModelSpec,
    /// Who it is: the text of `SOUL.md`.
    pub soul: Option<String>,
    /// What it does: the text of `SYSTEM_PROMPT.md`.
    pub system_prompt: Option<String>,
    /// What else it is to mind: the text of `INSTRUCTIONS.md`.
    pub instructions: Option<String>,
    /// Whether it is told what the `AGENTS.md` of its working directory, and of those above, say.
    pub agents_md: bool,
    /// What they say, the outermost first.
    pub guides: Vec<Guide>,
    /// Skills that it may read, in the order of the catalogue.
    pub skills: Vec<Skill>,
    /// What happens when a client goes away.
    pub on_disconnect: OnDisconnect,
    /// Most model calls of one turn; the configured limit if `None`.
    pub steps_max: Option<u64>,
    /// Names of the tools it is offered, in the order of the file, without repetition.
    pub tools: Vec<String>,
    /// Where its tools work, as written; relative to the folder that holds the workspace. That folder if `None`.
    pub workdir: Option<String>,
}

impl AgentSpec {
    /// The system prompt: soul, system prompt, instructions, every guide below a heading with its path, and the catalogue of
    /// skills; each trimmed, a blank line between them. Empty if there is none.
    #[must_use]
    pub fn system_prompt(&self) -> String {
        let mut out = String::new();
        for part in [&self.soul, &self.system_prompt, &self.instructions].into_iter().flatten() {
            push_part(&mut out, "", part);
        }
        for Guide { path, text } in &self.guides {
            push_part(&mut out, path, text);
        }
        push_part(&mut out, "", &catalogue(&self.skills));
        out
    }
}

/// Adds a part behind a blank line, and with a heading if it has a path. Nothing if there is no text.
fn push_part(out: &mut String, path: &str, text: &str) {
    let text = text.trim();
    if text.is_empty() {
        return;
    }
    if !out.is_empty() {
        out.push_str("\n\n");
    }
    if !path.is_empty() {
        out.push_str("# From ");
        out.push_str(path);
        out.push_str("\n\n");
    }
    out.push_str(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned;
    use alloc::vec;

    #[test]
    fn guides_and_skills_come_last_each_with_a_heading() {
        let guide = |path: &str, text: &str| Guide { path: path.to_owned(), text: text.to_owned() };
        let skill = Skill { name: "pdf".to_owned(), description: "Reads PDF files.".to_owned(), ..Skill::default() };
        let mut spec = AgentSpec { instructions: Some("mind\n".to_owned()), ..AgentSpec::default() };
        spec.guides = vec![guide("../AGENTS.md", "outer\n"), guide("CLAUDE.md", " \n"), guide("AGENTS.md", "inner")];
        let guides = "# From ../AGENTS.md\n\nouter\n\n# From AGENTS.md\n\ninner";
        assert_eq!(spec.system_prompt(), ["mind\n\n", guides].concat());
        spec.skills = vec![skill];
        assert_eq!(spec.system_prompt(), ["mind\n\n", guides, "\n\n", &catalogue(&spec.skills)].concat());
        (spec.instructions, spec.guides) = (None, Vec::new());
        assert_eq!(spec.system_prompt(), catalogue(&spec.skills));
    }

    #[test]
    fn the_system_prompt_joins_what_is_there() {
        let spec = |soul: &str, system: &str, instructions: &str| AgentSpec {
            soul: Some(soul.to_owned()).filter(|t| !t.is_empty()),
            system_prompt: Some(system.to_owned()).filter(|t| !t.is_empty()),
            instructions: Some(instructions.to_owned()).filter(|t| !t.is_empty()),
            ..AgentSpec::default()
        };
        for (soul, system, instructions, expected) in [
            ("", "", "", ""),
            ("", "work\n", "", "work"),
            ("be\n", "\nwork\r\n", "mind", "be\n\nwork\n\nmind"),
            ("be", " \n", "mind", "be\n\nmind"),
        ] {
            assert_eq!(spec(soul, system, instructions).system_prompt(), expected);
        }
    }
}
