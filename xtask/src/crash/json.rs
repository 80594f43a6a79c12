//! A JSON reader of its own, so that a bug in the runtime's reader cannot hide behind itself. Slow, small and strict.
//!
//! Absent: limits. It reads what our own runs wrote.

/// A value. Numbers keep their text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`, `true`, `false` or a number, as written.
    Plain(String),
    /// Unescaped.
    Text(String),
    /// In order.
    List(Vec<Json>),
    /// In order; keys are unique.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The field `key` of an object.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Self::Object(fields) => fields.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The text of the field `key`, empty if there is none.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        match self.get(key) {
            Some(Self::Text(text)) => text,
            _ => "",
        }
    }

    /// The whole number in the field `key`.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<u64> {
        match self.get(key) {
            Some(Self::Plain(text)) => text.parse().ok(),
            _ => None,
        }
    }

    /// The items of the list in the field `key`; none if there is no list.
    #[must_use]
    pub fn list(&self, key: &str) -> &[Json] {
        match self.get(key) {
            Some(Self::List(items)) => items,
            _ => &[],
        }
    }
}

/// Reads a whole text as one value.
///
/// # Errors
/// The byte at which it is no JSON, and what was expected there.
pub fn parse(text: &str) -> Result<Json, (usize, &'static str)> {
    let mut scanner = Scanner { text, at: 0 };
    let value = scanner.value()?;
    scanner.blank();
    if scanner.at == text.len() { Ok(value) } else { Err((scanner.at, "the end")) }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl Scanner<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn blank(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    fn take(&mut self, wanted: &str) -> bool {
        self.blank();
        let found = self.rest().starts_with(wanted);
        self.at += if found { wanted.len() } else { 0 };
        found
    }

    fn expect(&mut self, wanted: &'static str) -> Result<(), (usize, &'static str)> {
        if self.take(wanted) { Ok(()) } else { Err((self.at, wanted)) }
    }

    fn value(&mut self) -> Result<Json, (usize, &'static str)> {
        self.blank();
        match self.rest().chars().next() {
            Some('{') => self.object(),
            Some('[') => self.array(),
            Some('"') => self.string().map(Json::Text),
            Some(_) => self.plain(),
            None => Err((self.at, "a value")),
        }
    }

    fn object(&mut self) -> Result<Json, (usize, &'static str)> {
        let mut fields: Vec<(String, Json)> = Vec::new();
        self.expect("{")?;
        if self.take("}") {
            return Ok(Json::Object(fields));
        }
        loop {
            self.blank();
            let start = self.at;
            let key = self.string()?;
            if fields.iter().any(|(k, _)| *k == key) {
                return Err((start, "each key once"));
            }
            self.expect(":")?;
            fields.push((key, self.value()?));
            if self.take("}") {
                return Ok(Json::Object(fields));
            }
            self.expect(",")?;
        }
    }

    fn array(&mut self) -> Result<Json, (usize, &'static str)> {
        let mut items = Vec::new();
        self.expect("[")?;
        if self.take("]") {
            return Ok(Json::List(items));
        }
        loop {
            items.push(self.value()?);
            if self.take("]") {
                return Ok(Json::List(items));
            }
            self.expect(",")?;
        }
    }

    fn string(&mut self) -> Result<String, (usize, &'static str)> {
        self.expect("\"")?;
        let mut out = String::new();
        loop {
            let c = self.next("a closing quote")?;
            match c {
                '"' => return Ok(out),
                '\\' => out.push(self.escape()?),
                c if c < ' ' => return Err((self.at - 1, "an escape for a control character")),
                c => out.push(c),
            }
        }
    }

    fn next(&mut self, wanted: &'static str) -> Result<char, (usize, &'static str)> {
        let c = self.rest().chars().next().ok_or((self.at, wanted))?;
        self.at += c.len_utf8();
        Ok(c)
    }

    fn escape(&mut self) -> Result<char, (usize, &'static str)> {
        Ok(match self.next("an escape")? {
            c @ ('"' | '\\' | '/') => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let mut units = vec![self.unit()?];
                if (0xd800..0xdc00).contains(&units[0]) && self.rest().starts_with("\\u") {
                    self.at += 2;
                    units.push(self.unit()?);
                }
                let decoded = String::from_utf16(&units).ok();
                decoded.and_then(|d| d.chars().next()).ok_or((self.at, "a pair of surrogates"))?
            }
            _ => return Err((self.at - 1, "a known escape")),
        })
    }

    fn unit(&mut self) -> Result<u16, (usize, &'static str)> {
        let digits = self.rest().get(..4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let unit = digits.and_then(|d| u16::from_str_radix(d, 16).ok()).ok_or((self.at, "four hex digits"))?;
        self.at += 4;
        Ok(unit)
    }

    fn plain(&mut self) -> Result<Json, (usize, &'static str)> {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c)).unwrap_or(rest.len());
        let word = &rest[..end];
        if !matches!(word, "null" | "true" | "false") && !is_number(word) {
            return Err((self.at, "a value"));
        }
        let word = word.to_owned();
        self.at += end;
        Ok(Json::Plain(word))
    }
}

fn is_number(word: &str) -> bool {
    let unsigned = word.strip_prefix('-').unwrap_or(word);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let digits = |d: &str| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit());
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && digits(fraction)
        && digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read() {
        let text = r#" {"a":[1,-0.5e+3,true,null],"b":{"c":"x\n\u00e4\ud83e\udd80\/"},"d":[],"e":{}} "#;
        let value = parse(text).expect("is JSON");
        assert_eq!(value.list("a").len(), 4);
        assert_eq!(value.get("b").map(|b| b.text("c")), Some("x\nä🦀/"));
        assert_eq!(parse("{\"n\":18446744073709551615}").map(|v| v.number("n")), Ok(Some(u64::MAX)));
        assert_eq!(value.number("b"), None);
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in [
            "",
            "{",
            "{\"a\"}",
            "{\"a\":1,}",
            "[1 2]",
            "[1,]",
            "01",
            "1.",
            "-",
            "+1",
            "1e",
            "nul",
            "\"\u{1}\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\u12g4\"",
            "\"a",
            "{} x",
            "{\"a\":1,\"a\":2}",
            "'a'",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
