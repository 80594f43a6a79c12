//! What an agent is told besides its own prompt: AGENTS.md, and which skills there are.

use super::{Prompts, Reader};
use crate::config::read::{self, Section};
use crate::config::sandbox::{self, canonical};
use crate::config::types::from_base;
use crate::config::{agents_md, is_service, skills};
use duragent_core::agent::AgentSpec;
use duragent_core::skill::Skill;

impl<'r> Reader<'r> {
    /// What `AGENTS.md` says to those who work where the agent does. A service makes a new folder for each session, in which
    /// there is nothing to be read.
    pub(super) fn agents_md(&self, section: &Section<'_>, spec: &mut AgentSpec, prompts: &mut Prompts) {
        let shared = spec.workdir.is_some() || !is_service(self.dir);
        spec.agents_md = section.flag("agents_md").unwrap_or(shared);
        if spec.agents_md && !shared {
            section.warn("agents_md", "there is nothing to be read in a new folder for each session; write a workdir");
        }
        if spec.agents_md && shared {
            let folder = canonical(&sandbox::folder(self.dir));
            let workdir = canonical(&folder.join(spec.workdir.as_deref().unwrap_or("")));
            let protected = &self.config.sandbox.protected;
            let mut hidden = protected.hidden.clone();
            hidden.push(protected.workspace.clone());
            let found = agents_md::load(&workdir, &folder, &hidden);
            spec.guides = found.guides;
            prompts.outside.extend(found.protected);
            prompts.problems.extend(found.warnings);
        }
    }

    /// The agent's skills and the workspace's, less those that `skills` does not name.
    pub(super) fn skills(&self, section: &Section<'_>, prompts: &mut Prompts) -> Vec<Skill> {
        let protected = &self.config.sandbox.protected;
        let folder = std::path::absolute(self.folder).map_or_else(|_| self.folder.to_owned(), |path| canonical(&path));
        let inside = [protected.workspace.clone(), folder];
        let written = section.text("skills_dir");
        let own = from_base(self.folder, written.unwrap_or("skills"));
        if written.is_some() && !own.is_dir() {
            section.warn("skills_dir", "there is no such folder");
        }
        let shown = ["agents/", self.name, "/", written.unwrap_or("skills").trim_start_matches("./")].concat();
        let mut found = skills::Found::default();
        found.add(&skills::Place { dir: &own, shown: shown.trim_end_matches('/'), inside: &inside });
        found.add(&skills::Place { dir: &self.dir.join("skills"), shown: "skills", inside: &inside[..1] });
        prompts.problems.append(&mut found.warnings);
        let mut skills = found.skills;
        if section.get("skills").is_some() {
            let wanted = self.names(section, "skills", &skills);
            skills.retain(|skill| wanted.contains(&skill.name.as_str()));
        }
        skills
    }

    /// The names of skills in the list `key`, with a warning for each that there is not.
    fn names(&self, section: &Section<'r>, key: &str, skills: &[Skill]) -> Vec<&'r str> {
        let mut out = Vec::new();
        for (index, node) in section.list(key).iter().enumerate() {
            let path = format!("spec.{key}[{index}]");
            let Some(name) = read::text_of(node) else {
                let found = read::found(node, self.problems);
                self.problems.error(node.id, format!("{path}: expected the name of a skill, found {found}"));
                continue;
            };
            let mut names = skills.iter().map(|skill| skill.name.as_str());
            if !names.clone().any(|known| known == name) {
                let hint = read::suggest(name, &mut names)
                    .map_or_else(String::new, |word| format!(" (did you mean {word:?}?)"));
                self.problems.warn(node.id, format!("{path}: there is no skill {name:?} that can be used{hint}"));
            }
            out.push(name);
        }
        out
    }
}
