//! Rust source as tidy sees it: tokens with their lines, comments and literals out of the way, test code marked.
//!
//! Not a parser: enough to tell code from text, and where a `#[cfg(test)]` item ends.

/// A word, number, literal or piece of punctuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// As written; `::` is one token, every other punctuation mark stands alone, and what is between quotes is gone.
    pub text: String,
    /// From 1.
    pub line: usize,
    /// Part of an item under `#[cfg(test)]` or `#[test]`.
    pub test: bool,
}

/// A file of Rust.
#[derive(Debug)]
pub struct Source<'a> {
    /// Relative to the root, with `/`.
    pub path: &'a str,
    /// What is left without comments.
    pub tokens: Vec<Token>,
    /// The file is a module that is only built for tests, or part of one.
    pub in_test_module: bool,
}

impl<'a> Source<'a> {
    /// Takes a file apart.
    #[must_use]
    pub fn new(path: &'a str, text: &'a str) -> Self {
        let mut tokens = tokenize(&mask(text));
        mark_tests(&mut tokens);
        Self { path, tokens, in_test_module: false }
    }

    /// True if the whole file is test code.
    #[must_use]
    pub fn is_test_file(&self) -> bool {
        let path = self.path;
        self.in_test_module
            || path.ends_with("/tests.rs")
            // A program that tests start, because cargo gives its path to tests only if it is a binary.
            || path.ends_with("-testbed.rs")
            || ["tests/", "benches/", "fuzz/"].iter().any(|dir| path.starts_with(dir))
            || ["/tests/", "/benches/"].iter().any(|dir| path.contains(dir))
    }

    /// Where the modules are that this file declares under `#[cfg(test)]`: paths without their `.rs`.
    #[must_use]
    pub fn test_modules(&self) -> Vec<String> {
        let stem = self.path.strip_suffix(".rs").unwrap_or(self.path);
        let (parent, name) = stem.rsplit_once('/').unwrap_or(("", stem));
        let folder = if matches!(name, "mod" | "lib" | "main") { parent } else { stem };
        let declares = |i: &usize| self.tokens[*i].test && self.text_at(*i) == "mod" && self.text_at(i + 2) == ";";
        (0..self.tokens.len()).filter(declares).map(|i| format!("{folder}/{}", self.text_at(i + 1))).collect()
    }

    /// The text of the token at `index`, empty past the end.
    #[must_use]
    pub fn text_at(&self, index: usize) -> &str {
        self.tokens.get(index).map_or("", |t| &t.text)
    }

    /// The index after the bracket that closes the one at `open`, or the end.
    #[must_use]
    pub fn after_group(&self, open: usize) -> usize {
        after_group(&self.tokens, open)
    }
}

/// Blanks comments and what is between quotes; every byte keeps its place, and lines stay lines.
#[must_use]
pub fn mask(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    let byte = |i: usize| bytes.get(i).copied().unwrap_or(0);
    while at < bytes.len() {
        let in_word = at > 0 && is_word(byte(at - 1));
        let end = match byte(at) {
            b'/' if byte(at + 1) == b'/' => blank(bytes, &mut out, at, line_end(bytes, at), 0),
            b'/' if byte(at + 1) == b'*' => blank(bytes, &mut out, at, block_comment_end(bytes, at), 0),
            b'"' => blank(bytes, &mut out, at, string_end(bytes, at), 1),
            b'\'' => match char_end(bytes, at) {
                Some(end) => blank(bytes, &mut out, at, end, 1),
                None => blank(bytes, &mut out, at, at + 1, 1),
            },
            b'r' | b'b' | b'c' if !in_word => match raw_string_end(bytes, at) {
                Some((open, end)) => {
                    out.extend_from_slice(&bytes[at..open]);
                    blank(bytes, &mut out, open, end, 1)
                }
                None => blank(bytes, &mut out, at, at + 1, 1),
            },
            _ => blank(bytes, &mut out, at, at + 1, 1),
        };
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Copies `start..end` as blanks but for the line feeds and `keep` bytes at either end; returns `end`.
fn blank(bytes: &[u8], out: &mut Vec<u8>, start: usize, end: usize, keep: usize) -> usize {
    let end = end.min(bytes.len());
    for (i, &b) in bytes.iter().enumerate().take(end).skip(start) {
        let kept = b == b'\n' || i < start + keep || i + keep >= end;
        out.push(if kept { b } else { b' ' });
    }
    end
}

fn is_word(b: u8) -> bool {
    b == b'_' || b.is_ascii_alphanumeric() || b >= 0x80
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|&b| b == b'\n').map_or(bytes.len(), |n| at + n)
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0usize);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of the character literal at `start`, or `None` if a lifetime or label starts there.
fn char_end(bytes: &[u8], start: usize) -> Option<usize> {
    let first = *bytes.get(start + 1)?;
    if first == b'\\' {
        let close = bytes.get(start + 3..)?.iter().position(|&b| b == b'\'')?;
        return Some(start + 3 + close + 1);
    }
    let width = match first {
        0..=0x7f => 1,
        0x80..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    (bytes.get(start + 1 + width) == Some(&b'\'')).then_some(start + 2 + width)
}

/// For `r"…"`, `br#"…"#` and so on: where the opening quote is and where the literal ends.
fn raw_string_end(bytes: &[u8], start: usize) -> Option<(usize, usize)> {
    let mut at = start;
    if matches!(bytes.get(at), Some(b'b' | b'c')) {
        at += 1;
    }
    if bytes.get(at) != Some(&b'r') {
        return None;
    }
    at += 1;
    let hashes = bytes[at..].iter().take_while(|&&b| b == b'#').count();
    let open = at + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = bytes.get(open + 1..)?;
    let length = body.windows(close.len()).position(|w| w == close)?;
    // The closing quote is the last byte that matters; the hashes after it are punctuation to nobody.
    Some((open, open + 1 + length + close.len()))
}

fn tokenize(masked: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut chars = masked.char_indices().peekable();
    while let Some((start, c)) = chars.next() {
        let mut end = start + c.len_utf8();
        let mut take_while = |end: &mut usize, wanted: &dyn Fn(char) -> bool| {
            while let Some((at, c)) = chars.next_if(|(_, c)| wanted(*c)) {
                *end = at + c.len_utf8();
            }
        };
        match c {
            '\n' => line += 1,
            c if c.is_whitespace() => {}
            c if c == '_' || c.is_alphanumeric() => {
                take_while(&mut end, &|c| c == '_' || c.is_alphanumeric());
                tokens.push(Token { text: masked[start..end].to_owned(), line, test: false });
            }
            ':' if masked[end..].starts_with(':') => {
                chars.next();
                tokens.push(Token { text: "::".to_owned(), line, test: false });
            }
            c => tokens.push(Token { text: c.to_string(), line, test: false }),
        }
    }
    tokens
}

fn after_group(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0usize;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return i + 1;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// Marks the items under `#[cfg(test)]`, `#[cfg(all(test, …))]` and `#[test]`.
fn mark_tests(tokens: &mut [Token]) {
    let mut at = 0;
    while at < tokens.len() {
        if !is(tokens, at, "#") || !is(tokens, at + 1, "[") {
            at += 1;
            continue;
        }
        let after = after_group(tokens, at + 1);
        let words = &tokens[at + 2..after];
        let is_cfg =
            is(words, 0, "cfg") && words.iter().any(|t| t.text == "test") && !words.iter().any(|t| t.text == "not");
        let is_test = words.len() == 2 && is(words, 0, "test");
        if !is_cfg && !is_test {
            at = after;
            continue;
        }
        let end = item_end(tokens, after);
        for token in &mut tokens[at..end] {
            token.test = true;
        }
        at = end;
    }
}

fn is(tokens: &[Token], index: usize, text: &str) -> bool {
    tokens.get(index).is_some_and(|t| t.text == text)
}

/// Where the item ends that starts at `at`, its attributes included: after its first `{…}` or `;`.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            ";" => return at + 1,
            "{" => return after_group(tokens, at),
            "(" | "[" => at = after_group(tokens, at),
            _ => at += 1,
        }
    }
    at
}
