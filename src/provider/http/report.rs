//! What servers say when they refuse, and which [`FailureKind`] it stands for.

use duragent_core::event::FailureKind;
use duragent_core::json;

/// What the usual JSON errors say: `{"error":"…"}`, `{"error":{"message":…,"type":…,"code":…}}`, `{"message":…}`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ErrorReport {
    /// For people.
    pub message: Option<String>,
    /// For the machine: `code`, else `type`. Numbers as text.
    pub code: Option<String>,
}

impl ErrorReport {
    /// Reads it from a body or a frame.
    #[must_use]
    pub fn of(body: &json::Value) -> Self {
        let error = body.get("error").unwrap_or(body);
        if let Some(text) = error.as_str() {
            return Self { message: Some(text.into()), code: None };
        }
        let text = |key| match error.get(key) {
            Some(json::Value::String(text) | json::Value::Number(text)) => Some(text.clone()),
            _ => None,
        };
        Self { message: text("message").or_else(|| text("detail")), code: text("code").or_else(|| text("type")) }
    }
}

/// The failure that an HTTP status stands for.
#[must_use]
pub fn kind_of_status(status: u16) -> FailureKind {
    match status {
        401..=403 => FailureKind::Refused,
        408 | 409 | 425 | 429 | 500.. => FailureKind::Overloaded,
        _ => FailureKind::Invalid,
    }
}

/// The failure that an error code in JSON stands for, where it says more than the status.
#[must_use]
pub fn kind_of_code(code: &str) -> Option<FailureKind> {
    if let Ok(status) = code.parse::<u16>() {
        return (400..600).contains(&status).then(|| kind_of_status(status));
    }
    match code {
        // Comes with 429, but no waiting helps.
        "insufficient_quota"
        | "billing_hard_limit_reached"
        | "invalid_api_key"
        | "authentication_error"
        | "permission_error" => Some(FailureKind::Refused),
        "context_length_exceeded" | "invalid_request_error" | "model_not_found" => Some(FailureKind::Invalid),
        "rate_limit_exceeded" | "overloaded_error" | "server_error" | "server_overloaded" => {
            Some(FailureKind::Overloaded)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{ErrorReport, kind_of_code, kind_of_status};
    use duragent_core::event::FailureKind::{self, Invalid, Overloaded, Refused};
    use duragent_core::json;

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
            (r#"{"error":{"message":"m","code":402}}"#, Some("m"), Some("402")),
            (r#"{"message":"m","code":"c"}"#, Some("m"), Some("c")),
            (r#"{"detail":"Not Found"}"#, Some("Not Found"), None),
            (r#"{"object":"error","message":"m","code":400}"#, Some("m"), Some("400")),
            ("{}", None, None),
            ("[]", None, None),
        ];
        for (text, message, code) in cases {
            let report = ErrorReport::of(&json::parse(text).unwrap());
            assert_eq!((report.message.as_deref(), report.code.as_deref()), (*message, *code), "{text}");
        }
    }

    #[test]
    fn statuses_and_codes_have_their_kinds() {
        let statuses = [
            (400, Invalid),
            (401, Refused),
            (402, Refused),
            (403, Refused),
            (404, Invalid),
            (408, Overloaded),
            (409, Overloaded),
            (413, Invalid),
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
        let codes: &[(&str, Option<FailureKind>)] = &[
            ("429", Some(Overloaded)),
            ("402", Some(Refused)),
            ("200", None),
            ("70000", None),
            ("insufficient_quota", Some(Refused)),
            ("context_length_exceeded", Some(Invalid)),
            ("server_error", Some(Overloaded)),
            ("something_new", None),
        ];
        for (code, kind) in codes {
            assert_eq!(kind_of_code(code), *kind, "{code}");
        }
    }
}
