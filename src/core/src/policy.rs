//! Temporary stand-in until the config branch lands.
use crate::tool::PolicyArgument;
use alloc::string::String;
/// V
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// a
    Allow,
    /// b
    Ask,
    /// c
    Deny,
}
/// P
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// m
    pub mode: Option<Verdict>,
}
/// D
pub struct Decision {
    /// v
    pub verdict: Verdict,
    /// r
    pub rule: Option<String>,
}
/// A
pub struct Argument;
/// e
#[must_use]
pub fn evaluate(layers: &[Policy], _: &str, _: &Argument) -> Decision {
    Decision { verdict: layers.iter().find_map(|p| p.mode).unwrap_or(Verdict::Ask), rule: None }
}
/// a
#[must_use]
pub fn argument(_: &PolicyArgument, _: &str, _: &str) -> Argument {
    Argument
}
