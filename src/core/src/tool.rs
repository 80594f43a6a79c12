//! What the session machine knows of a tool: its declaration, never its code.

use alloc::string::String;

/// What happens to the world if a call runs twice; decides what a crash may do with it (design.md, "What a crash leaves").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffectClass {
    /// Reads only: an interrupted call runs again.
    Pure,
    /// The same call with the same key leaves the same state: an interrupted call runs again.
    Idempotent,
    /// Anything else, and the default: an interrupted call never runs again.
    Once,
}

impl EffectClass {
    /// The wire name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pure => "pure",
            Self::Idempotent => "idempotent",
            Self::Once => "once",
        }
    }

    /// Reads a wire name. Unknown text is `None`; a caller that must go on treats that as [`EffectClass::Once`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "pure" => Some(Self::Pure),
            "idempotent" => Some(Self::Idempotent),
            "once" => Some(Self::Once),
            _ => None,
        }
    }
}

/// What a tool brings into a session or takes out of it; decides whether data may leave (docs/formats.md, "Tags").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tags {
    /// Its results hold what only the user should see.
    pub private: bool,
    /// Its results come from strangers, who may have written them for the model.
    pub untrusted: bool,
    /// It can carry data out.
    pub egress: bool,
}

impl Tags {
    /// Every tag with its word in files.
    pub const WORDS: [&'static str; 3] = ["private", "untrusted", "egress"];

    /// The tag of this word; `None` if there is none.
    pub fn tag_mut(&mut self, word: &str) -> Option<&mut bool> {
        match word {
            "private" => Some(&mut self.private),
            "untrusted" => Some(&mut self.untrusted),
            "egress" => Some(&mut self.egress),
            _ => None,
        }
    }

    /// The words of the tags that are set.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Self::WORDS.into_iter().zip([self.private, self.untrusted, self.egress]).filter_map(|(w, set)| set.then_some(w))
    }

    /// Adds those of `other`.
    pub fn add(&mut self, other: Self) {
        self.private |= other.private;
        self.untrusted |= other.untrusted;
        self.egress |= other.egress;
    }
}

/// Which argument of a call policy patterns are matched against, and how its text is to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyArgument {
    /// A shell command in the named argument.
    Command(&'static str),
    /// A file path in the named argument; normalized lexically before it is matched.
    Path(&'static str),
    /// The whole arguments object as compact JSON.
    Whole,
}

/// A tool as declared to the model and to the session machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolDecl {
    /// Name the model calls it by, `[a-zA-Z0-9_-]{1,64}`.
    pub name: String,
    /// One or two sentences for the model. Every byte is sent with every request: keep it short.
    pub description: String,
    /// JSON Schema of the arguments object, compact JSON text.
    pub parameters: String,
    /// What a crash may do with a call in flight.
    pub effect: EffectClass,
    /// What policy patterns match.
    pub policy: PolicyArgument,
    /// What it brings in or takes out.
    pub tags: Tags,
}

/// A call the model asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Unique within the session.
    pub call_id: String,
    /// Tool name as the model gave it; may name no tool.
    pub name: String,
    /// Arguments: compact JSON text of an object.
    pub arguments: String,
}
