//! What servers say when they refuse, which [`FailureKind`] it stands for, and what to do about it.
//!
//! A code in the body says more than the HTTP status, and what is said of a prompt that is too long says more than
//! either: servers agree on no code for it.

use duragent_core::event::FailureKind;
use duragent_core::json::{self, Value};

/// What the usual JSON errors say: `{"error":"…"}`, `{"error":{"message":…,"type":…,"code":…}}`, `{"message":…}`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ErrorReport {
    /// For people.
    pub message: Option<String>,
    /// For the machine: `code`, else `type`. Numbers as text.
    pub code: Option<String>,
    /// The model's window in tokens, if it has a field of its own (`n_ctx` of llama.cpp).
    pub context_tokens: Option<u64>,
}

impl ErrorReport {
    /// Reads it from a body or a frame.
    #[must_use]
    pub fn of(body: &Value) -> Self {
        let error = body.get("error").unwrap_or(body);
        if let Some(text) = error.as_str() {
            return Self { message: Some(text.into()), ..Self::default() };
        }
        let text = |key| match error.get(key) {
            Some(Value::String(text) | Value::Number(text)) => Some(text.clone()),
            _ => None,
        };
        let mut message = text("message").or_else(|| text("detail"));
        // OpenRouter quotes here what the one behind it said.
        if let (Some(message), Some(raw)) = (&mut message, error.get("metadata").and_then(|m| m.get("raw")?.as_str())) {
            message.push_str(": ");
            message.push_str(raw);
        }
        let context_tokens = error.get("n_ctx").and_then(Value::as_u64);
        Self { message, code: text("code").or_else(|| text("type")), context_tokens }
    }

    /// Reads it from a text that may be JSON.
    #[must_use]
    pub fn read(text: &str) -> Self {
        json::parse(text).map(|body| Self::of(&body)).unwrap_or_default()
    }
}

/// What an error amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// For the machine.
    pub kind: FailureKind,
    /// The HTTP status that says the same.
    pub status: u16,
    /// The model's window in tokens, if it was told.
    pub context_tokens: Option<u64>,
}

/// What an error of this status amounts to; `said` is its message or its whole body. Status 200 stands for an error
/// within an answer: what is not known to be final may work later.
#[must_use]
pub fn judge(status: u16, report: &ErrorReport, said: &str) -> Verdict {
    let lower = said.to_ascii_lowercase();
    if report.context_tokens.is_some() || is_too_long(&lower) {
        let context_tokens = report.context_tokens.or_else(|| window(&lower));
        return Verdict { kind: FailureKind::TooLong, status: 413, context_tokens };
    }
    let status = match report.code.as_deref().and_then(status_of_code) {
        _ if lower.contains("credit balance is too low") => 402,
        Some(known) => known,
        None if status == 200 => 500,
        None => status,
    };
    Verdict { kind: kind_of_status(status), status, context_tokens: None }
}

/// The failure that an HTTP status stands for.
#[must_use]
pub fn kind_of_status(status: u16) -> FailureKind {
    match status {
        401..=403 | 407 => FailureKind::Refused,
        408 | 409 | 425 | 429 | 500.. => FailureKind::Overloaded,
        413 => FailureKind::TooLong,
        _ => FailureKind::Invalid,
    }
}

/// The HTTP status that an error code in JSON stands for, where it is a known one.
#[must_use]
pub fn status_of_code(code: &str) -> Option<u16> {
    if let Ok(status) = code.parse::<u16>() {
        return (400..600).contains(&status).then_some(status);
    }
    Some(match code {
        // The first comes with 429, but no waiting helps.
        "insufficient_quota" | "billing_hard_limit_reached" | "billing_error" => 402,
        "invalid_api_key" | "authentication_error" => 401,
        "permission_error" => 403,
        "context_length_exceeded" | "exceed_context_size_error" | "request_too_large" => 413,
        "invalid_request_error" => 400,
        "model_not_found" | "not_found_error" => 404,
        "rate_limit_exceeded" | "rate_limit_error" => 429,
        "server_error" | "api_error" => 500,
        "overloaded_error" | "server_overloaded" => 529,
        "timeout_error" => 504,
        _ => return None,
    })
}

/// What to do about a status that is final; empty if nothing can be said.
#[must_use]
pub fn remedy(status: u16, host: &str, key_from: Option<&str>) -> String {
    const PAY: [(&str, &str); 3] = [
        ("openai.com", "https://platform.openai.com/settings/organization/billing"),
        ("openrouter.ai", "https://openrouter.ai/settings/credits"),
        ("anthropic.com", "https://console.anthropic.com/settings/billing"),
    ];
    let parts = match (status, key_from) {
        (401, Some(from)) => ["; check the API key: ", from],
        (401, None) => ["; no API key is configured: set api_key_env or api_key_file of the provider", ""],
        (402, _) => match PAY.iter().find(|(name, _)| host.ends_with(name)) {
            Some((_, place)) => ["; add credit: ", place],
            None => ["; add credit with the provider", ""],
        },
        (403, Some(from)) => ["; the API key may not do this: ", from],
        (407, _) => ["; the proxy wants a user and a password: write them into proxy", ""],
        _ => return String::new(),
    };
    parts.concat()
}

/// Whether a message, in lower case, says that the prompt does not fit the model. Not: that the model with such a window
/// does not fit the machine.
fn is_too_long(said: &str) -> bool {
    let about = ["context length", "context size", "context window", "context limit"];
    let says = ["exceed", "longer than", "maximum context"];
    let prompt = ["prompt is too long", "prompt too long", "input is too long", "context_length_exceeded"];
    prompt.iter().any(|text| said.contains(text))
        || about.iter().any(|text| said.contains(text)) && says.iter().any(|text| said.contains(text))
}

/// The window that a message names: `208310 tokens > 200000 maximum`, `maximum context length is 8192 tokens`, `available
/// context size (4096 tokens)`.
fn window(said: &str) -> Option<u64> {
    const GAP_MAX: usize = 6;
    let number = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != ',').unwrap_or(text.len());
        text[..end].replace(',', "").parse().ok().filter(|tokens| *tokens > 0)
    };
    if let Some((_, after)) = said.split_once("> ") {
        return number(after);
    }
    ["context length", "context size", "context window", "context limit"].iter().find_map(|about| {
        let (_, after) = said.split_once(about)?;
        let at = after.find(|c: char| c.is_ascii_digit())?;
        let gap = &after[..at];
        // "by 812 tokens" is how much too long it is.
        if gap.len() > GAP_MAX || gap.contains("by") { None } else { number(&after[at..]) }
    })
}

#[cfg(test)]
mod tests {
    use super::{ErrorReport, Verdict, judge, kind_of_status, remedy};
    use duragent_core::event::FailureKind::{Invalid, Overloaded, Refused, TooLong};

    #[test]
    fn every_usual_shape_of_error_is_read() {
        let cases: &[(&str, Option<&str>, Option<&str>)] = &[
            (r#"{"error":"no model"}"#, Some("no model"), None),
            (
                r#"{"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}}"#,
                Some("slow down"),
                Some("rate_limit_exceeded"),
            ),
            (r#"{"error":{"message":"m","type":"server_error","code":null}}"#, Some("m"), Some("server_error")),
            (
                r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
                Some("m"),
                Some("overloaded_error"),
            ),
            (r#"{"error":{"message":"m","code":402}}"#, Some("m"), Some("402")),
            (r#"{"error":{"message":"m","code":502,"metadata":{"raw":"why"}}}"#, Some("m: why"), Some("502")),
            (r#"{"message":"m","code":"c"}"#, Some("m"), Some("c")),
            (r#"{"detail":"Not Found"}"#, Some("Not Found"), None),
            (r#"{"object":"error","message":"m","code":400}"#, Some("m"), Some("400")),
            ("{}", None, None),
            ("[]", None, None),
            ("<html>", None, None),
        ];
        for (text, message, code) in cases {
            let report = ErrorReport::read(text);
            assert_eq!((report.message.as_deref(), report.code.as_deref()), (*message, *code), "{text}");
        }
    }

    #[test]
    fn statuses_have_their_kinds() {
        let statuses = [
            (400, Invalid),
            (401, Refused),
            (402, Refused),
            (403, Refused),
            (404, Invalid),
            (407, Refused),
            (408, Overloaded),
            (409, Overloaded),
            (413, TooLong),
            (425, Overloaded),
            (429, Overloaded),
            (500, Overloaded),
            (503, Overloaded),
            (529, Overloaded),
            (302, Invalid),
            (101, Invalid),
        ];
        for (status, kind) in statuses {
            assert_eq!(kind_of_status(status), kind, "{status}");
        }
    }

    #[test]
    fn a_code_says_more_than_the_status_and_200_is_an_error_within_an_answer() {
        let cases = [
            (429, "insufficient_quota", Refused, 402),
            (400, "authentication_error", Refused, 401),
            (200, "402", Refused, 402),
            (200, "overloaded_error", Overloaded, 529),
            (200, "rate_limit_error", Overloaded, 429),
            (200, "invalid_request_error", Invalid, 400),
            (200, "something_new", Overloaded, 500),
            (404, "something_new", Invalid, 404),
            (404, "200", Invalid, 404),
            (404, "70000", Invalid, 404),
            (400, "context_length_exceeded", TooLong, 413),
            (400, "request_too_large", TooLong, 413),
        ];
        for (status, code, kind, meant) in cases {
            let report = ErrorReport { code: Some(code.into()), ..ErrorReport::default() };
            let want = Verdict { kind, status: meant, context_tokens: None };
            assert_eq!(judge(status, &report, "m"), want, "{status} {code}");
        }
        let low = "Your credit balance is too low to access the Anthropic API.";
        let report = ErrorReport { code: Some("invalid_request_error".into()), ..ErrorReport::default() };
        assert_eq!(judge(400, &report, low).status, 402);
    }

    /// As recorded, shortened: Anthropic, OpenAI and vLLM, OpenRouter, llama.cpp, Ollama, others.
    #[test]
    fn a_prompt_that_is_too_long_is_known_by_what_is_said_and_the_window_with_it() {
        let cases: &[(&str, Option<u64>)] = &[
            ("prompt is too long: 208310 tokens > 200000 maximum", Some(200_000)),
            ("input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease it", Some(200_000)),
            ("This model's maximum context length is 16384 tokens. However, you requested 122946 tokens", Some(16_384)),
            ("This endpoint's maximum context length is 8192 tokens. However, you requested about 12000", Some(8192)),
            ("the request exceeds the available context size. try increasing the context size", None),
            ("request (1407 tokens) exceeds the available context size (256 tokens), try increasing it", Some(256)),
            ("input length (9533 tokens) exceeds the model's maximum context length (2048 tokens)", Some(2048)),
            ("prompt too long; exceeded max context length by 812 tokens", None),
            ("the prompt is longer than the context length currently available to the model", None),
            ("Requested tokens (2285) exceed context window of 2048", Some(2048)),
            ("Prompt has 5,958,968 tokens, but exceeds the configured context size: 256,000 tokens", Some(256_000)),
            ("The input (140000 tokens) is longer than the model's context length (131072 tokens).", Some(131_072)),
        ];
        for (said, context_tokens) in cases {
            let want = Verdict { kind: TooLong, status: 413, context_tokens: *context_tokens };
            for status in [400, 500, 200] {
                assert_eq!(judge(status, &ErrorReport::default(), said), want, "{said}");
            }
        }
        let own_field = r#"{"error":{"code":400,"message":"m","type":"exceed_context_size_error","n_prompt_tokens":14429,"n_ctx":8192}}"#;
        assert_eq!(judge(400, &ErrorReport::read(own_field), "m").context_tokens, Some(8192));
        for said in ["requested context size too large for model", "model requires more memory", "too many requests"] {
            assert_eq!(judge(400, &ErrorReport::default(), said).kind, Invalid, "{said}");
        }
    }

    #[test]
    fn what_is_final_comes_with_what_to_do() {
        let from = Some("environment variable X_KEY");
        let cases = [
            (401, "h", from, "; check the API key: environment variable X_KEY"),
            (401, "h", None, "; no API key is configured: set api_key_env or api_key_file of the provider"),
            (402, "openrouter.ai", from, "; add credit: https://openrouter.ai/settings/credits"),
            (402, "h", from, "; add credit with the provider"),
            (403, "h", from, "; the API key may not do this: environment variable X_KEY"),
            (403, "h", None, ""),
            (407, "h", None, "; the proxy wants a user and a password: write them into proxy"),
            (404, "h", from, ""),
        ];
        for (status, host, from, want) in cases {
            assert_eq!(remedy(status, host, from), want, "{status}");
        }
    }
}
