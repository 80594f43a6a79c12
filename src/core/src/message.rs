//! The conversation as every provider can say it, and what comes back from one.

use crate::event::Usage;
use crate::tool::ToolCall;
use alloc::string::String;
use alloc::vec::Vec;

/// One message of the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A person or program.
    User {
        /// What was said.
        content: String,
    },
    /// The model.
    Assistant {
        /// Its text; may be empty if it only calls tools.
        content: String,
        /// Its thinking, echoed where the provider wants it.
        thinking: Option<String>,
        /// What its provider wants back as it was.
        blocks: Option<Blocks>,
        /// The calls it asked for. Each is answered by exactly one following `Tool` message.
        tool_calls: Vec<ToolCall>,
    },
    /// The result of a call.
    Tool {
        /// The call.
        call_id: String,
        /// Tool name.
        name: String,
        /// Result text.
        content: String,
    },
}

/// Opaque parts of an answer, for the provider and model that gave them and no other: signatures are theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocks {
    /// Provider name.
    pub provider: String,
    /// Model name.
    pub model: String,
    /// Compact JSON.
    pub json: String,
}

impl Message {
    /// Bytes of its texts, plus a flat allowance for what a wire format wraps around them.
    #[must_use]
    pub fn weight(&self) -> usize {
        const WRAPPING: usize = 32;
        WRAPPING
            + match self {
                Self::User { content } => content.len(),
                Self::Assistant { content, thinking, blocks, tool_calls } => {
                    let calls: usize = tool_calls.iter().map(|c| WRAPPING + c.name.len() + c.arguments.len()).sum();
                    let blocks = blocks.as_ref().map_or(0, |b| b.json.len());
                    content.len() + thinking.as_ref().map_or(0, String::len).max(blocks) + calls
                }
                Self::Tool { name, content, .. } => name.len() + content.len(),
            }
    }
}

/// A whole answer of a model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// Its text.
    pub text: String,
    /// Its thinking, if any.
    pub thinking: Option<String>,
    /// What the provider wants back with the next request as it was: compact JSON.
    pub blocks: Option<String>,
    /// Calls in order. `call_id` may be empty or repeat across replies: the session gives out its own.
    pub tool_calls: Vec<ToolCall>,
    /// Tokens as reported.
    pub usage: Usage,
    /// As the provider said it.
    pub finish_reason: String,
}
