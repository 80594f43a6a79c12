//! OpenRouter's `reasoning_details`: what a model thought, in the form that its own provider wants back. They come in
//! pieces, and go back as one list in the same order.

use duragent_core::json::{self, Value};

/// Most entries of one answer; more is a stream gone astray.
const DETAILS_MAX: usize = 1024;

/// Fields that come in pieces; of the others the last word counts.
const TEXTS: [&str; 4] = ["text", "summary", "data", "signature"];

/// The list as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Details(Vec<Vec<(String, Value)>>);

impl Details {
    /// Adds those of a chunk.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn take(&mut self, chunk: &str) -> Result<(), &'static str> {
        let chunk = json::parse(chunk).map_err(|error| error.what)?;
        let Some(Value::Array(choices)) = chunk.get("choices") else { return Ok(()) };
        let list = choices.first().and_then(|choice| choice.get("delta")?.get("reasoning_details"));
        let Some(Value::Array(list)) = list else { return Ok(()) };
        for entry in list {
            let Value::Object(fields) = entry else { return Err("reasoning_details is not a list of objects") };
            let count = self.0.len();
            match self.0.last_mut().filter(|last| goes_on(last, entry)) {
                Some(last) => fields.iter().for_each(|(key, value)| merge(last, key, value)),
                None if count < DETAILS_MAX => self.0.push(fields.clone()),
                None => return Err("too many reasoning_details"),
            }
        }
        Ok(())
    }

    /// The whole list, if there is one.
    pub(super) fn into_json(self) -> Option<String> {
        let list = self.0.into_iter().map(Value::Object).collect::<Vec<_>>();
        if list.is_empty() { None } else { Some(Value::Array(list).to_string()) }
    }
}

/// Whether `entry` is more of the `last` one: of the same type, and of the same index and id where both say it. What is
/// encrypted comes whole.
fn goes_on(last: &[(String, Value)], entry: &Value) -> bool {
    let of_last = |key| last.iter().find(|(known, _)| known == key).map(|(_, value)| value);
    let same = |key| match (of_last(key), entry.get(key)) {
        (Some(Value::Null) | None, _) | (_, Some(Value::Null) | None) => true,
        (one, other) => one == other,
    };
    let kind = entry.get("type").and_then(Value::as_str);
    of_last("type") == entry.get("type") && kind != Some("reasoning.encrypted") && same("index") && same("id")
}

fn merge(last: &mut Vec<(String, Value)>, key: &str, value: &Value) {
    match (last.iter_mut().find(|(known, _)| known == key), value) {
        (_, Value::Null) => {}
        (Some((_, Value::String(text))), Value::String(more)) if TEXTS.contains(&key) => text.push_str(more),
        (Some((_, known)), _) => *known = value.clone(),
        (None, _) => last.push((key.into(), value.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::Details;

    fn merged(pieces: &[&str]) -> Result<Option<String>, &'static str> {
        let mut details = Details::default();
        for piece in pieces {
            details.take(&format!(r#"{{"choices":[{{"delta":{{"reasoning_details":{piece}}}}}]}}"#))?;
        }
        Ok(details.into_json())
    }

    #[test]
    fn pieces_become_one_list_in_the_same_order() {
        let cases: &[(&[&str], Option<&str>)] = &[
            (&[], None),
            (&["[]", "null", "7"], None),
            (
                &[
                    r#"[{"type":"reasoning.text","text":"Hm, ","format":"anthropic-claude-v1","index":0,"signature":null}]"#,
                    r#"[{"type":"reasoning.text","text":"so.","format":null,"index":0}]"#,
                    r#"[{"type":"reasoning.text","signature":"c2ln","index":0}]"#,
                ],
                Some(
                    r#"[{"type":"reasoning.text","text":"Hm, so.","format":"anthropic-claude-v1","index":0,"signature":"c2ln"}]"#,
                ),
            ),
            (
                &[
                    r#"[{"type":"reasoning.summary","summary":"a","id":"r1","index":0}]"#,
                    r#"[{"type":"reasoning.summary","summary":"b","index":0},{"type":"reasoning.encrypted","data":"x","index":1}]"#,
                    r#"[{"type":"reasoning.encrypted","data":"y","index":1}]"#,
                    r#"[{"type":"reasoning.text","text":"1","index":2},{"type":"reasoning.text","text":"2","index":3}]"#,
                ],
                Some(concat!(
                    r#"[{"type":"reasoning.summary","summary":"ab","id":"r1","index":0},"#,
                    r#"{"type":"reasoning.encrypted","data":"x","index":1},{"type":"reasoning.encrypted","data":"y","index":1},"#,
                    r#"{"type":"reasoning.text","text":"1","index":2},{"type":"reasoning.text","text":"2","index":3}]"#,
                )),
            ),
        ];
        for (pieces, want) in cases {
            assert_eq!(merged(pieces).unwrap().as_deref(), *want);
        }
        assert!(merged(&["[1]"]).is_err());
        let many = format!("[{}]", vec![r#"{"type":"reasoning.encrypted"}"#; 1025].join(","));
        assert_eq!(merged(&[&many]), Err("too many reasoning_details"));
    }
}
