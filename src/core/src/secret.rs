//! Texts that must not be shown.

use alloc::string::String;
use core::fmt;

/// A key or a token. It cannot be printed: its `Debug` is `***`, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the one place that sends or compares it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;
    use alloc::format;

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::new("sk-geheim".into());
        assert_eq!((format!("{secret:?}").as_str(), secret.expose()), ("***", "sk-geheim"));
        assert_eq!(format!("{:?}", Some([secret])), "Some([***])");
    }
}
