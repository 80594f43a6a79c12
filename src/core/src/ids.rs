//! Identifiers as newtypes, so that a session cannot be passed where a call is meant.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;

/// Longest identifier in bytes. Ids become directory names and URL segments, so they stay short.
pub const ID_BYTES_MAX: usize = 64;

/// Why a string is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidId {
    /// What was found.
    pub found: String,
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected an id matching [a-z0-9][a-z0-9_-]{{0,63}}, found {:?}", self.found)
    }
}

impl core::error::Error for InvalidId {}

/// True if `text` matches `[a-z0-9][a-z0-9_-]{0,63}` (formats.md), which also makes it safe as a file name.
#[must_use]
pub fn is_id(text: &str) -> bool {
    let bytes = text.as_bytes();
    let head = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    match bytes.split_first() {
        Some((first, rest)) => {
            bytes.len() <= ID_BYTES_MAX && head(*first) && rest.iter().all(|&b| head(b) || b == b'_' || b == b'-')
        }
        None => false,
    }
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Checks and takes `text`.
            ///
            /// # Errors
            /// [`InvalidId`] if it does not match `[a-z0-9][a-z0-9_-]{0,63}`.
            pub fn new(text: &str) -> Result<Self, InvalidId> {
                if is_id(text) { Ok(Self(text.to_owned())) } else { Err(InvalidId { found: text.to_owned() }) }
            }

            /// The text of the id.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id_type!(
    /// Names a session: its directory, its place in URLs.
    SessionId
);
id_type!(
    /// Names an agent: its directory under `agents/`.
    AgentName
);
