//! Percent-decoding, and the query of a target.

use super::problem::{self, Problem};
use std::borrow::Cow;

/// `key=value&…`, not decoded yet. Keys that nobody asks for are ignored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query<'a>(pub(super) &'a str);

impl<'a> Query<'a> {
    /// The value of `key`, decoded.
    pub(super) fn text(self, key: &str) -> Result<Option<Cow<'a, str>>, Problem> {
        let mut found = None;
        for pair in self.0.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if name != key && decode(name, true)? != key {
                continue;
            }
            if found.is_some() {
                return Err(Problem::new(problem::BAD_REQUEST, format!("query key {key:?} given twice")));
            }
            found = Some(decode(value, true)?);
        }
        Ok(found)
    }

    /// A whole number.
    pub(super) fn number(self, key: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, Problem> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        match whole_number(&text) {
            Some(n) if range.contains(&n) => Ok(Some(n)),
            _ => {
                let (low, high) = (range.start(), range.end());
                let detail = format!("query key {key:?}: expected a whole number from {low} to {high}, found {text:?}");
                Err(Problem::new(problem::BAD_REQUEST, detail))
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn truth(self, key: &str) -> Result<Option<bool>, Problem> {
        match self.text(key)?.as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(text) => {
                let detail = format!("query key {key:?}: expected true or false, found {text:?}");
                Err(Problem::new(problem::BAD_REQUEST, detail))
            }
        }
    }
}

/// Digits only, unlike `str::parse`, which takes a plus sign.
pub(super) fn whole_number(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Decodes `%41` and, in a query, `+`. Borrows if there is nothing to decode.
pub(super) fn decode(text: &str, plus_is_space: bool) -> Result<Cow<'_, str>, Problem> {
    if !text.bytes().any(|b| b == b'%' || plus_is_space && b == b'+') {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit =
                    || bytes.next().and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
                match (digit(), digit()) {
                    (Some(high), Some(low)) => high << 4 | low,
                    _ => return Err(undecodable(text)),
                }
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|_| undecodable(text))
}

fn undecodable(text: &str) -> Problem {
    let detail = format!("expected percent-encoded UTF-8 in the request target, found {text:?}");
    Problem::new(problem::BAD_REQUEST, detail)
}

#[cfg(test)]
mod tests {
    use super::{Query, decode};

    #[test]
    fn values_are_decoded() {
        let query = Query("a=1&b=%C3%a9+x%2b&c&%64=4&e==&f=1&f=2");
        let check = |key, expected: Option<&str>| {
            assert_eq!(query.text(key).expect("decodes").as_deref(), expected, "{key}");
        };
        check("a", Some("1"));
        check("b", Some("é x+"));
        check("c", Some(""));
        check("d", Some("4"));
        check("e", Some("="));
        check("g", None);
        assert!(query.text("f").is_err());
        assert_eq!(query.number("a", 1..=1), Ok(Some(1)));
        assert!(query.number("a", 2..=3).is_err());
        assert!(query.number("c", 0..=3).is_err());
        assert!(Query("a=+1").number("a", 0..=3).is_err());
        assert!(Query("a=1e0").number("a", 0..=3).is_err());
        assert_eq!(Query("a=false").truth("a"), Ok(Some(false)));
        assert!(Query("a=no").truth("a").is_err());
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        for text in ["%", "%4", "%4g", "%zz", "%ff", "%c3"] {
            assert!(decode(text, false).is_err(), "{text}");
        }
        assert_eq!(decode("a+b", false).as_deref(), Ok("a+b"));
    }
}
