//! What a server says of its models.

use crate::provider::models;
use duragent_core::json::{self, Reader};
use std::time::Instant;

/// What is known of a model.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) model: String,
    /// What it is like, once that was told.
    pub(super) shown: Option<Shown>,
    /// When it last answered.
    pub(super) answered: Option<Instant>,
}

impl Known {
    pub(super) fn new(model: &str) -> Self {
        Self { model: model.into(), shown: None, answered: None }
    }
}

/// Whether `name`, as the server lists it, is the `model` that was asked for: without a tag it is the latest.
pub(super) fn is_same(name: &str, model: &str) -> bool {
    name == model || name.strip_suffix(":latest") == Some(model)
}

/// What `/api/show` says that matters here; the rest (licence, template, tensors) can be megabytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown {
    pub(super) context: Option<u64>,
    pub(super) capabilities: Vec<String>,
}

impl Shown {
    /// Old servers say nothing of abilities.
    pub(super) fn lacks_tools(&self) -> bool {
        !self.capabilities.is_empty() && !self.capabilities.iter().any(|known| known == "tools")
    }

    pub(super) fn read(text: &str) -> Result<Self, json::Error> {
        let mut shown = Self::default();
        let mut reader = Reader::new(text);
        reader.begin_object()?;
        let mut first = true;
        while let Some(key) = reader.key(&mut first)? {
            match &*key {
                "capabilities" if reader.peek() == Some(b'[') => {
                    reader.begin_array()?;
                    let mut first = true;
                    while reader.element(&mut first)? {
                        shown.capabilities.push(reader.string()?.into_owned());
                    }
                }
                "model_info" if reader.peek() == Some(b'{') => {
                    reader.begin_object()?;
                    let mut first = true;
                    while let Some(key) = reader.key(&mut first)? {
                        let value = reader.raw()?;
                        if key.ends_with(".context_length") {
                            shown.context = value.parse().ok();
                        }
                    }
                }
                _ => drop(reader.raw()?),
            }
        }
        reader.end()?;
        Ok(shown)
    }
}

/// The names in a list of models (`/api/tags`, `/api/ps`).
pub(super) fn names(text: &str) -> Result<Vec<String>, json::Error> {
    let mut names = Vec::new();
    models::each(text, "models", &mut |reader| {
        let mut first = true;
        while let Some(key) = reader.key(&mut first)? {
            if key == "name" {
                names.push(reader.string()?.into_owned());
            } else {
                reader.raw()?;
            }
        }
        Ok(())
    })?;
    Ok(names)
}
