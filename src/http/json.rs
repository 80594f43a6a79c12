//! JSON of the API: small helpers to write it, and bodies read with the place of every mistake.

use super::problem::{Place, Problem};
use duragent_core::json::{self, ObjectWriter, Reader};

/// One object as a string.
pub(super) fn object(fill: impl FnOnce(&mut ObjectWriter<'_>)) -> String {
    let mut out = String::new();
    let mut writer = ObjectWriter::new(&mut out);
    fill(&mut writer);
    writer.finish();
    out
}

/// An array of JSON texts.
pub(super) fn array<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let mut out = String::from("[");
    for item in items {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(item.as_ref());
    }
    out.push(']');
    out
}

/// A JSON string.
pub(super) fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    json::write_string(&mut out, text);
    out
}

type Field<'f, 'a> = &'f mut dyn FnMut(&'static str, &mut Reader<'a>) -> Result<(), json::Error>;

/// Reads a body that is one object with no keys but `keys`. `take` gets each key that is there and has to read its value.
pub(super) fn read_object<'a>(
    body: &'a [u8],
    keys: &'static [&'static str],
    take: Field<'_, 'a>,
) -> Result<(), Problem> {
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(e) => {
            let good = body.get(..e.valid_up_to()).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default();
            return Err(place(good, good.len(), "", "UTF-8", "bytes that are not"));
        }
    };
    let mut reader = Reader::new(text);
    let mut field = "";
    read_fields(text, &mut reader, keys, &mut field, take).map_err(|wrong| match wrong {
        Wrong::Json(error) => {
            let (expected, found) = match error.what.strip_prefix("expected ") {
                Some(expected) => (expected, found_at(text, error.byte)),
                None => ("well-formed JSON", error.what.into()),
            };
            place(text, error.byte, field, expected, &found)
        }
        Wrong::UnknownKey(byte, key) => {
            let expected = format!("one of the keys {}", keys.join(", "));
            place(text, byte, &key, &expected, "an unknown key")
        }
        Wrong::SecondKey(byte) => place(text, byte, field, "each key once", "it a second time"),
    })
}

enum Wrong {
    Json(json::Error),
    UnknownKey(usize, String),
    SecondKey(usize),
}

impl From<json::Error> for Wrong {
    fn from(error: json::Error) -> Self {
        Self::Json(error)
    }
}

fn read_fields<'a>(
    text: &'a str,
    reader: &mut Reader<'a>,
    keys: &'static [&'static str],
    field: &mut &'static str,
    take: Field<'_, 'a>,
) -> Result<(), Wrong> {
    reader.begin_object()?;
    let (mut first, mut seen) = (true, Vec::new());
    loop {
        let rest = text.as_bytes().get(reader.offset()..).unwrap_or_default();
        let byte = reader.offset() + rest.iter().take_while(|b| b" \t\r\n,".contains(b)).count();
        let Some(key) = reader.key(&mut first)? else { break };
        let Some(known) = keys.iter().find(|k| **k == key) else {
            return Err(Wrong::UnknownKey(byte, key.into_owned()));
        };
        *field = known;
        if seen.contains(known) {
            return Err(Wrong::SecondKey(byte));
        }
        seen.push(*known);
        take(known, reader)?;
        *field = "";
    }
    Ok(reader.end()?)
}

fn place(text: &str, byte: usize, field: &str, expected: &str, found: &str) -> Problem {
    let (line, column) = json::Error { byte, what: "" }.position(text);
    Problem::at(Place { line, column, field: field.into(), expected: expected.into(), found: found.into() })
}

/// What stands at `byte`, in words.
fn found_at(text: &str, byte: usize) -> String {
    match text.get(byte..).and_then(|rest| rest.chars().next()) {
        None => "the end".into(),
        Some('"') => "a string".into(),
        Some('{') => "an object".into(),
        Some('[') => "an array".into(),
        Some('t' | 'f') => "a truth value".into(),
        Some('n') => "null".into(),
        Some('-' | '0'..='9') => "a number".into(),
        Some(other) => format!("{other:?}"),
    }
}

/// A whole number that is not 0 unless `zero`. `2.0` is one, as JSON Schema has it.
pub(super) fn whole(reader: &mut Reader<'_>, zero: bool) -> Result<u64, json::Error> {
    // Past the space, for the place of a mistake.
    reader.peek();
    let byte = reader.offset();
    let text = reader.number()?;
    let digits = match text.split_once('.') {
        Some((digits, fraction)) if fraction.bytes().all(|b| b == b'0') => digits,
        _ => text,
    };
    match digits.parse() {
        Ok(number) if number > 0 || zero => Ok(number),
        _ if zero => Err(json::Error { byte, what: "expected a whole number from 0 to 2^64-1" }),
        _ => Err(json::Error { byte, what: "expected a whole number from 1 to 2^64-1" }),
    }
}

/// A body that has to have the key `field`, and has not.
pub(super) fn missing(field: &'static str) -> Problem {
    let (expected, found) = ("the key".into(), "none".into());
    Problem::at(Place { line: 1, column: 1, field: field.into(), expected, found })
}
