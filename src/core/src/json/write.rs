//! Writing JSON text, appended to a string.

use alloc::string::String;

/// Appends `text` as a JSON string with quotes. Escapes what RFC 8259 requires, and nothing else.
pub fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut start = 0;
    for (i, b) in text.bytes().enumerate() {
        let escape: &str = match b {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.push_str(&text[start..i]);
                out.push_str("\\u00");
                out.push(char::from(HEX[usize::from(b >> 4)]));
                out.push(char::from(HEX[usize::from(b & 15)]));
                start = i + 1;
                continue;
            }
            _ => continue,
        };
        out.push_str(&text[start..i]);
        out.push_str(escape);
        start = i + 1;
    }
    out.push_str(&text[start..]);
    out.push('"');
}

/// Appends a whole number.
pub fn write_u64(out: &mut String, mut n: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(n % 10).unwrap_or(0);
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend(digits[at..].iter().map(|&b| char::from(b)));
}

/// Appends `n` with its last `places` digits behind a point, as many of them as it takes: 1500 with three places is `1.5`.
pub fn write_decimal(out: &mut String, n: u64, places: u32) {
    let mut scale = 10u64.saturating_pow(places);
    write_u64(out, n / scale);
    let mut rest = n % scale;
    if rest > 0 {
        out.push('.');
    }
    while rest > 0 {
        scale /= 10;
        out.push(char::from(b'0' + u8::try_from(rest / scale).unwrap_or(0)));
        rest %= scale;
    }
}

/// Writes one object, field by field, into a string. `finish` closes it.
#[derive(Debug)]
pub struct ObjectWriter<'a> {
    out: &'a mut String,
    first: bool,
}

impl<'a> ObjectWriter<'a> {
    /// Opens an object at the end of `out`.
    pub fn new(out: &'a mut String) -> Self {
        out.push('{');
        Self { out, first: true }
    }

    /// Writes the key and returns the string that the value is to be appended to.
    pub fn key(&mut self, key: &str) -> &mut String {
        if !core::mem::replace(&mut self.first, false) {
            self.out.push(',');
        }
        self.out.push('"');
        self.out.push_str(key);
        self.out.push_str("\":");
        self.out
    }

    /// A string field.
    pub fn str(&mut self, key: &str, value: &str) -> &mut Self {
        write_string(self.key(key), value);
        self
    }

    /// A string field, left out if `None`.
    pub fn str_opt(&mut self, key: &str, value: Option<&str>) -> &mut Self {
        if let Some(value) = value {
            self.str(key, value);
        }
        self
    }

    /// A number field.
    pub fn u64(&mut self, key: &str, value: u64) -> &mut Self {
        write_u64(self.key(key), value);
        self
    }

    /// A decimal number field, as [`write_decimal`].
    pub fn decimal(&mut self, key: &str, value: u64, places: u32) -> &mut Self {
        write_decimal(self.key(key), value, places);
        self
    }

    /// A signed number field.
    pub fn i64(&mut self, key: &str, value: i64) -> &mut Self {
        let out = self.key(key);
        if value < 0 {
            out.push('-');
        }
        write_u64(out, value.unsigned_abs());
        self
    }

    /// A truth field.
    pub fn bool(&mut self, key: &str, value: bool) -> &mut Self {
        self.key(key).push_str(if value { "true" } else { "false" });
        self
    }

    /// A field whose value is JSON text already.
    pub fn raw(&mut self, key: &str, json: &str) -> &mut Self {
        self.key(key).push_str(json);
        self
    }

    /// An object field, written by `fill`.
    pub fn object(&mut self, key: &str, fill: impl FnOnce(&mut ObjectWriter<'_>)) -> &mut Self {
        let mut inner = ObjectWriter::new(self.key(key));
        fill(&mut inner);
        inner.finish();
        self
    }

    /// Closes the object.
    pub fn finish(self) {
        self.out.push('}');
    }
}
