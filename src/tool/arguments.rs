//! Arguments of a call: one table per tool, from which the schema for the model is written and against which a call is
//! read, so that the two cannot say different things.

use duragent_core::json::{self, ObjectWriter, Value};
use std::fmt::Write;

/// Most bytes of a wrong argument that are repeated in a message.
const FOUND_BYTES_MAX: usize = 60;

/// What kind of value a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// A whole number from 0.
    Count,
    Flag,
}

impl Kind {
    fn schema(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Count => "integer",
            Self::Flag => "boolean",
        }
    }

    fn holds(self, value: &Value) -> bool {
        match self {
            Self::Text => value.as_str().is_some(),
            Self::Count => value.as_u64().is_some(),
            Self::Flag => value.as_bool().is_some(),
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Count => "a whole number",
            Self::Flag => "true or false",
        }
    }
}

/// A field of the arguments object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
}

impl Field {
    pub(super) const fn required(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, required: true }
    }

    pub(super) const fn optional(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, required: false }
    }
}

/// The JSON Schema of `fields`, compact.
pub(super) fn schema(fields: &[Field]) -> String {
    let mut out = String::new();
    let mut object = ObjectWriter::new(&mut out);
    object.str("type", "object");
    object.object("properties", |properties| {
        for field in fields {
            properties.object(field.name, |property| _ = property.str("type", field.kind.schema()));
        }
    });
    let required = object.key("required");
    required.push('[');
    for (i, field) in fields.iter().filter(|f| f.required).enumerate() {
        if i > 0 {
            required.push(',');
        }
        json::write_string(required, field.name);
    }
    required.push(']');
    object.finish();
    out
}

/// Arguments that are what the table asks for.
#[derive(Debug)]
pub(super) struct Arguments {
    object: Value,
}

impl Arguments {
    /// Reads the arguments object of a call. `null` in an optional field counts as left out, as models like to send it.
    ///
    /// # Errors
    /// What was expected and what was found, for the model.
    pub(super) fn read(text: &str, fields: &[Field]) -> Result<Self, String> {
        let wrong = |what: String| Err(format!("wrong arguments: {what}. expected {}", describe(fields)));
        let object = match json::parse(text) {
            Ok(object @ Value::Object(_)) => object,
            Ok(other) => return wrong(format!("expected an object, found {}", shown(&other))),
            Err(error) => return wrong(format!("not JSON: {error}")),
        };
        if let Value::Object(given) = &object {
            for (key, value) in given {
                match fields.iter().find(|f| f.name == key) {
                    None => return wrong(format!("unknown argument {}", shown(&Value::String(key.clone())))),
                    Some(field) if !field.required && *value == Value::Null => {}
                    Some(field) if field.kind.holds(value) => {}
                    Some(field) => {
                        let expected = field.kind.expected();
                        return wrong(format!("{key} is to be {expected}, found {}", shown(value)));
                    }
                }
            }
        }
        match fields.iter().find(|f| f.required && object.get(f.name).is_none()) {
            Some(missing) => wrong(format!("{} is missing", missing.name)),
            None => Ok(Self { object }),
        }
    }

    /// The text of a field; empty if it was left out.
    pub(super) fn text(&self, name: &str) -> &str {
        self.object.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// The text of an optional field.
    pub(super) fn text_or<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.object.get(name).and_then(Value::as_str).unwrap_or(default)
    }

    /// The number of an optional field.
    pub(super) fn count(&self, name: &str) -> Option<u64> {
        self.object.get(name).and_then(Value::as_u64)
    }

    /// True if the flag was given and set.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.object.get(name).and_then(Value::as_bool).unwrap_or(false)
    }
}

/// `{"command": a string, "timeout_seconds": a whole number (optional)}`
fn describe(fields: &[Field]) -> String {
    let mut out = String::from("{");
    for (i, field) in fields.iter().enumerate() {
        let (comma, optional) = (if i > 0 { ", " } else { "" }, if field.required { "" } else { " (optional)" });
        let _ = write!(out, "{comma}\"{}\": {}{optional}", field.name, field.kind.expected());
    }
    out.push('}');
    out
}

/// The beginning of a value's JSON text.
fn shown(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > FOUND_BYTES_MAX {
        text.truncate(text.floor_char_boundary(FOUND_BYTES_MAX));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [Field; 3] = [
        Field::required("path", Kind::Text),
        Field::optional("limit", Kind::Count),
        Field::optional("all", Kind::Flag),
    ];

    #[test]
    fn the_schema_is_compact_and_lists_what_is_required() {
        let expected = r#"{"type":"object","properties":{"path":{"type":"string"},"limit":{"type":"integer"},"all":{"type":"boolean"}},"required":["path"]}"#;
        assert_eq!(schema(&FIELDS), expected);
        json::parse(&schema(&FIELDS)).unwrap();
        assert_eq!(
            schema(&FIELDS[1..2]),
            r#"{"type":"object","properties":{"limit":{"type":"integer"}},"required":[]}"#
        );
    }

    #[test]
    fn good_arguments() {
        let all = Arguments::read(r#"{"all":true,"limit":3,"path":"a\nb"}"#, &FIELDS).unwrap();
        assert_eq!((all.text("path"), all.count("limit"), all.flag("all")), ("a\nb", Some(3), true));
        let few = Arguments::read(r#"{"path":"p","limit":null}"#, &FIELDS).unwrap();
        assert_eq!((few.text("path"), few.count("limit"), few.flag("all")), ("p", None, false));
        assert_eq!(few.text_or("other", "default"), "default");
    }

    #[test]
    fn wrong_arguments_say_what_was_expected_and_found() {
        let check = |text: &str, what: &str| {
            let error = Arguments::read(text, &FIELDS).unwrap_err();
            let expected = "expected {\"path\": a string, \"limit\": a whole number (optional), \"all\": true or false (optional)}";
            assert_eq!(error, format!("wrong arguments: {what}. {expected}"), "{text}");
        };
        check("", "not JSON: unexpected end at byte 0");
        check("{\"path\":", "not JSON: unexpected end at byte 8");
        check("[]", "expected an object, found []");
        check("\"a\"", "expected an object, found \"a\"");
        check("{}", "path is missing");
        check(r#"{"path":null}"#, "path is to be a string, found null");
        check(r#"{"path":7}"#, "path is to be a string, found 7");
        check(r#"{"path":"p","limit":-1}"#, "limit is to be a whole number, found -1");
        check(r#"{"path":"p","limit":"3"}"#, "limit is to be a whole number, found \"3\"");
        check(r#"{"path":"p","all":1}"#, "all is to be true or false, found 1");
        check(r#"{"file":"p"}"#, "unknown argument \"file\"");
        check(r#"{"path":"p","path":"q"}"#, "not JSON: duplicate key at byte 19");
        let long = format!("{{\"limit\":\"{}\"}}", "é".repeat(1000));
        check(&long, &format!("limit is to be a whole number, found \"{}…", "é".repeat(29)));
    }
}
