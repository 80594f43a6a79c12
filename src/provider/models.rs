//! Lists of models as OpenAI and Anthropic both give them: `{"data":[{"id":…}]}`.

use super::http::Client;
use super::{Failure, Probe};
use duragent_core::event::FailureKind;
use duragent_core::json::{self, Reader};
use std::time::Duration;

/// How long a probe waits for its answer.
pub(super) const PROBE_WAIT: Duration = Duration::from_secs(10);

/// Most models that a probe lists.
const LISTED_MAX: usize = 8;

/// Asks whether the server answers at all.
pub(super) fn reach(client: &Client, path: &str) -> Result<(), Failure> {
    let answer = client.get(path, PROBE_WAIT)?;
    if answer.status() < 500 { Ok(()) } else { Err(answer.into_refusal().failure) }
}

/// Looks for `model` in the list at `path`.
pub(super) fn probe(client: &Client, path: &str, model: &str) -> Result<Probe, Failure> {
    let answer = client.get(path, PROBE_WAIT)?;
    if matches!(answer.status(), 404 | 405 | 501) {
        let text = [client.host(), " answers; it does not list its models"].concat();
        return Ok(Probe { text, context_tokens: None, lacks_tools: false });
    }
    if !answer.is_success() {
        return Err(answer.into_refusal().failure);
    }
    let models = read(&answer.text()?).map_err(|error| {
        client.failed(FailureKind::Protocol, &format!("/models: {error}; is base_url right, with /v1 at its end?"))
    })?;
    match models.iter().find(|found| found.id == model) {
        Some(found) => {
            let text = [client.host(), " answers and offers ", model].concat();
            Ok(Probe { text: client.quote(&text), context_tokens: found.context_tokens, lacks_tools: false })
        }
        None => {
            let ids: Vec<&str> = models.iter().map(|model| model.id.as_str()).collect();
            let what = format!("model {model:?} is not among the {} offered: {}", ids.len(), listed(&ids));
            Err(client.failed(FailureKind::Invalid, &client.quote(&what)))
        }
    }
}

/// Some of the names, in one line.
pub(super) fn listed(names: &[&str]) -> String {
    names.get(..LISTED_MAX.min(names.len())).unwrap_or_default().join(", ")
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Model {
    id: String,
    context_tokens: Option<u64>,
}

/// The models in a list.
fn read(text: &str) -> Result<Vec<Model>, json::Error> {
    let mut models = Vec::new();
    each(text, "data", &mut |reader| {
        let (mut first, mut model) = (true, Model::default());
        while let Some(key) = reader.key(&mut first)? {
            match &*key {
                "id" => model.id = reader.string()?.into_owned(),
                // OpenRouter; vLLM; some others.
                "context_length" | "max_model_len" | "context_window" => {
                    model.context_tokens = reader.raw()?.parse().ok();
                }
                _ => drop(reader.raw()?),
            }
        }
        models.push(model);
        Ok(())
    })?;
    Ok(models)
}

/// Opens every object in the list `list` of an object, and has `take` read it to its end.
pub(super) fn each<'t>(
    text: &'t str,
    list: &str,
    take: &mut dyn FnMut(&mut Reader<'t>) -> Result<(), json::Error>,
) -> Result<(), json::Error> {
    let mut reader = Reader::new(text);
    reader.begin_object()?;
    let mut first = true;
    while let Some(key) = reader.key(&mut first)? {
        if key != list || reader.peek() != Some(b'[') {
            reader.raw()?;
            continue;
        }
        reader.begin_array()?;
        let mut first = true;
        while reader.element(&mut first)? {
            reader.begin_object()?;
            take(&mut reader)?;
        }
    }
    reader.end()
}

#[cfg(test)]
mod tests {
    use super::{Model, read};

    #[test]
    fn lists_are_read_with_windows_where_they_are_told() {
        let text = r#"{"object":"list","data":[{"id":"a","x":[{}]},{"context_length":8192,"id":"b"},{"id":"c","max_model_len":null}]}"#;
        let model = |id: &str, context_tokens| Model { id: id.into(), context_tokens };
        assert_eq!(read(text).unwrap(), [model("a", None), model("b", Some(8192)), model("c", None)]);
        assert_eq!(read(r#"{"data":null}"#).unwrap(), []);
        for text in ["", "[]", r#"{"data":[1]}"#, r#"{"data":[{"id":7}]}"#, "{} x"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
