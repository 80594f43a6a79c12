//! The tools of one agent.

use super::{Tool, builtin};
use duragent_core::tool::ToolDecl;
use std::fmt;

/// An agent asks for a tool that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownTool {
    /// What it asked for.
    pub name: String,
}

impl fmt::Display for UnknownTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown tool {:?}, expected one of {}", self.name, builtin::NAMES.join(", "))
    }
}

impl std::error::Error for UnknownTool {}

/// Tools by name. Shared by the sessions of an agent.
#[derive(Default)]
pub struct Registry {
    /// Sorted by name, which makes the declarations byte-stable: the model's server caches the prefix they are in.
    tools: Vec<Box<dyn Tool>>,
}

impl Registry {
    /// The built-in tools `names`; the same name twice counts once. `environment` is what
    /// processes see of the runtime's: names and values.
    ///
    /// # Errors
    /// [`UnknownTool`] for the first name that is none.
    pub fn new(names: &[String], environment: &[(String, String)]) -> Result<Self, UnknownTool> {
        let mut registry = Self::default();
        for name in names {
            let tool = builtin::make(name, environment).ok_or_else(|| UnknownTool { name: name.clone() })?;
            registry.add(tool);
        }
        Ok(registry)
    }

    /// Adds a tool, or puts it in the place of the one that has its name.
    pub fn add(&mut self, tool: Box<dyn Tool>) {
        match self.position(&tool.decl().name) {
            Ok(at) => drop(std::mem::replace(&mut self.tools[at], tool)),
            Err(at) => self.tools.insert(at, tool),
        }
    }

    /// The tool that the model calls `name`, if the agent has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&dyn Tool> {
        let at = self.position(name).ok()?;
        self.tools.get(at).map(AsRef::as_ref)
    }

    /// What the model and the session machine are told, sorted by name.
    pub fn decls(&self) -> impl Iterator<Item = &ToolDecl> {
        self.tools.iter().map(|tool| tool.decl())
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.tools.binary_search_by(|tool| tool.decl().name.as_str().cmp(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duragent_core::json::{self, ObjectWriter};
    use duragent_core::tool::EffectClass;

    fn registry(names: &[&str]) -> Result<Registry, UnknownTool> {
        Registry::new(&names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>(), &[])
    }

    /// The declarations as a provider would send them.
    fn as_json(registry: &Registry) -> String {
        let mut out = String::new();
        for decl in registry.decls() {
            let mut object = ObjectWriter::new(&mut out);
            object.str("name", &decl.name).str("description", &decl.description).raw("parameters", &decl.parameters);
            object.finish();
        }
        out
    }

    #[test]
    fn names_are_found_and_unknown_ones_name_the_known() {
        let two = registry(&["read_file", "bash", "bash"]).unwrap();
        assert_eq!(two.get("bash").unwrap().decl().name, "bash");
        assert!(two.get("write_file").is_none());
        assert_eq!(two.decls().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["bash", "read_file"]);
        assert_eq!(registry(&[]).unwrap().decls().count(), 0);
        assert_eq!(
            registry(&["bash", "bsah"]).err().unwrap().to_string(),
            "unknown tool \"bsah\", expected one of bash, edit_file, list_dir, read_file, search_files, write_file"
        );
    }

    #[test]
    fn declarations_are_small_and_do_not_depend_on_the_order_asked_for() {
        let all = registry(&builtin::NAMES).unwrap();
        let mut reversed = builtin::NAMES;
        reversed.reverse();
        let text = as_json(&all);
        assert_eq!(text, as_json(&registry(&reversed).unwrap()));
        assert!(text.len() < 2000, "{} bytes go with every request: {text}", text.len());
        for decl in all.decls() {
            json::parse(&decl.parameters).unwrap();
        }
    }

    #[test]
    fn effects_are_what_a_crash_may_rely_on() {
        let all = registry(&builtin::NAMES).unwrap();
        let check = |name: &str, effect| assert_eq!(all.get(name).unwrap().decl().effect, effect, "{name}");
        check("bash", EffectClass::Once);
        check("edit_file", EffectClass::Idempotent);
        check("list_dir", EffectClass::Pure);
        check("read_file", EffectClass::Pure);
        check("search_files", EffectClass::Pure);
        check("write_file", EffectClass::Idempotent);
    }
}
