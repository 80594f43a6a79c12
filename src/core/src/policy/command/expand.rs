//! What a shell makes of a text before it runs anything, as far as the text alone says it.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::iter::Peekable;
use core::str::Chars;

/// Expansions within expansions (`${a:-${b:-rm}}`) that are looked through.
const NESTED_MAX: usize = 4;

/// Most expansions of braces in one command. The first word is the program, and it is expanded first.
const BRACES_MAX: usize = 1024;

/// Most bytes that they are made of, together.
const BRACES_BYTES_MAX: usize = 1024 * 1024;

/// Braces of one word that are tried: with so many open ones in front, it is the name of no program.
const BRACES_OPEN_MAX: usize = 32;

/// Without the line feeds that a backslash takes away.
pub(super) fn continued(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut escaped = false;
    for c in text.chars() {
        if escaped && c == '\n' {
            out.pop();
            escaped = false;
            continue;
        }
        escaped = c == '\\' && !escaped;
        out.push(c);
    }
    out
}

/// `$IFS` stands for a blank between words, whatever is cut off it.
fn separators(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, sign) = rest.split_at(at);
        out.push_str(before);
        (rest, _) = match (sign.strip_prefix("$IFS"), sign.strip_prefix("${IFS")) {
            (Some(after), _) => (after, out.push(' ')),
            (_, Some(after)) => (after.split_once('}').map_or("", |(_, after)| after), out.push(' ')),
            _ => (sign.get(1..).unwrap_or(""), out.push('$')),
        };
    }
    out.push_str(rest);
    out
}

/// How to read what the text does not say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unset {
    /// `${x:+word}` is the word, as if `x` were set.
    words: bool,
    /// So many layers of `$(…)` and backticks, from within, say nothing.
    silent: usize,
}

/// Ways to read it.
pub(super) const UNSET: [Unset; 6] = [
    Unset { words: true, silent: 0 },
    Unset { words: false, silent: 0 },
    Unset { words: true, silent: 1 },
    Unset { words: false, silent: 1 },
    Unset { words: true, silent: NESTED_MAX },
    Unset { words: false, silent: NESTED_MAX },
];

/// As the shell would have it if no variable were set: `${x:-rm}` is `rm`, `r${x}m` and `` r`:`m `` are `rm` too, `$'\x72m'` is
/// decoded, `$IFS` is a blank.
pub(super) fn expanded(text: &str, unset: Unset) -> String {
    let mut text = separators(text).replace("``", "").replace("$()", "");
    for _ in 0..unset.silent {
        text = silenced(&text);
    }
    for _ in 0..NESTED_MAX {
        if !text.contains('$') {
            break;
        }
        text = once(&text, unset.words);
    }
    text
}

/// Without the substitutions of commands that have no other one in them.
fn silenced(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut open: Option<(usize, char)> = None;
    for c in text.chars() {
        match (c, open) {
            (')', Some((at, '('))) | ('`', Some((at, '`'))) => {
                out.truncate(at);
                open = None;
                continue;
            }
            ('(', _) => open = out.ends_with('$').then(|| (out.len() - 1, '(')),
            ('`', _) => open = Some((out.len(), '`')),
            (')', _) => open = None,
            _ => {}
        }
        out.push(c);
    }
    out
}

fn once(text: &str, words: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek().copied()) {
            ('$', Some('\'')) => {
                chars.next();
                ansi_c(&mut chars, &mut out);
            }
            ('$', Some('"')) => {}
            ('$', Some('{')) => {
                chars.next();
                parameter(&mut chars, words, &mut out);
            }
            ('$', Some('@' | '*' | '#' | '?' | '-' | '!' | '0'..='9')) => drop(chars.next()),
            ('$', Some('_' | 'a'..='z' | 'A'..='Z')) => {
                while chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_').is_some() {}
            }
            _ => out.push(c),
        }
    }
    out
}

/// Behind `${`: the word of `${name:-word}` and its like, that of `${name:+word}` if `words`, nothing for anything else.
fn parameter(chars: &mut Peekable<Chars<'_>>, words: bool, out: &mut String) {
    while chars.next_if(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '!' | '#' | '@' | '*' | ':')).is_some() {}
    let word = chars.next_if(|c| matches!(c, '-' | '+' | '=' | '?')).is_some_and(|c| words || c != '+');
    let (mut depth, mut before) = (1, ' ');
    for c in chars.by_ref() {
        depth += usize::from(c == '{' && before == '$');
        depth -= usize::from(c == '}');
        if depth == 0 {
            return;
        }
        if word {
            out.push(c);
        }
        before = c;
    }
}

/// Behind `$'`, up to the quote that ends it: escapes as in bash(1), QUOTING.
fn ansi_c(chars: &mut Peekable<Chars<'_>>, out: &mut String) {
    while let Some(c) = chars.next() {
        if c == '\'' {
            return;
        }
        if c != '\\' {
            out.push(c);
            continue;
        }
        let code = match chars.next() {
            Some('x') => number(chars, 16, 2),
            Some('u') => number(chars, 16, 4),
            Some('U') => number(chars, 16, 8),
            Some('c') => chars.next().map_or(0, |c| u32::from(c) & 0x1f),
            Some('n') => u32::from('\n'),
            Some('r') => u32::from('\r'),
            Some('a' | 'b' | 'e' | 'E' | 'f' | 't' | 'v') => u32::from(' '),
            Some(octal @ '0'..='7') => {
                let first = octal.to_digit(8).unwrap_or(0);
                let mut value = first;
                for _ in 0..2 {
                    let Some(digit) = chars.peek().and_then(|c| c.to_digit(8)) else { break };
                    chars.next();
                    value = value * 8 + digit;
                }
                value & 0xff
            }
            Some(other) => u32::from(other),
            None => return,
        };
        out.extend(char::from_u32(code).filter(|c| *c != '\0'));
    }
}

fn number(chars: &mut Peekable<Chars<'_>>, radix: u32, digits: usize) -> u32 {
    let mut value = 0_u32;
    for _ in 0..digits {
        let Some(digit) = chars.peek().and_then(|c| c.to_digit(radix)) else { break };
        chars.next();
        value = (value << 4) | digit;
    }
    value
}

/// A command without its redirections: `>x rm y` and `rm >x y` both run `rm y`.
pub(super) fn without_redirections(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    let mut chars = part.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '<' && c != '>' {
            out.push(c);
            continue;
        }
        // The descriptor in front of it belongs to it, as a number or `{name}`.
        let word = match out.strip_suffix('}').and_then(|out| out.rsplit_once('{')) {
            Some((before, name)) if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => before.len(),
            _ => out.trim_end_matches(|c: char| c.is_ascii_digit()).len(),
        };
        if out.get(..word).is_some_and(|before| before.is_empty() || before.ends_with(char::is_whitespace)) {
            out.truncate(word);
        }
        while chars.next_if(|c| matches!(c, '<' | '>' | '-' | ' ' | '\t')).is_some() {}
        let mut quote = None;
        while let Some(c) = chars.next_if(|c| quote.is_some() || !c.is_whitespace() && !matches!(c, '<' | '>')) {
            match quote {
                _ if c == '\\' => drop(chars.next()),
                Some(end) if c == end => quote = None,
                None if matches!(c, '"' | '\'') => quote = Some(c),
                _ => {}
            }
        }
        out.push(' ');
    }
    out
}

/// The words with `{a,b}` and `{a..c}` expanded, one blank between them, as far as the limits reach; `None` if there is nothing
/// to expand.
pub(super) fn braces(words: &[&str]) -> Option<String> {
    let mut open: Vec<String> = words.iter().rev().map(|word| (*word).to_owned()).collect();
    let mut done = String::new();
    let (mut expansions, mut bytes) = (0, 0);
    while let Some(word) = open.pop() {
        let more = expansions < BRACES_MAX && bytes < BRACES_BYTES_MAX;
        match more.then(|| brace(&word)).flatten() {
            Some(mut list) => {
                list.dedup();
                expansions += 1;
                bytes += list.iter().map(String::len).sum::<usize>();
                open.extend(list.into_iter().rev());
            }
            None => {
                done.push_str(&word);
                done.push(' ');
            }
        }
    }
    (expansions > 0).then_some(done)
}

/// What the first brace of a word becomes.
fn brace(word: &str) -> Option<Vec<String>> {
    for (start, _) in word.match_indices('{').take(BRACES_OPEN_MAX) {
        let (mut depth, mut commas, mut end) = (0_usize, Vec::new(), None);
        for (at, c) in word.get(start..)?.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 1 => {
                    end = Some(start + at);
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 1 => commas.push(start + at),
                _ => {}
            }
        }
        let Some(end) = end else { continue };
        let (before, after) = (word.get(..start)?, word.get(end + 1..)?);
        let build = |middle: &str| [before, middle, after].concat();
        if !commas.is_empty() {
            let starts = core::iter::once(start).chain(commas.iter().copied());
            let ends = commas.iter().copied().chain(core::iter::once(end));
            return Some(starts.zip(ends).filter_map(|(from, to)| Some(build(word.get(from + 1..to)?))).collect());
        }
        if let Some((first, last)) = word.get(start + 1..end)?.split_once("..")
            && let ([first], [last]) = (first.as_bytes(), last.as_bytes())
        {
            let range = (*first.min(last)..=*first.max(last)).map(|b| build(char::from(b).encode_utf8(&mut [0; 4])));
            return Some(range.collect());
        }
    }
    None
}

/// A word without `.`, `..` and double slashes in it, if it is a path; as it is otherwise.
pub(super) fn path(word: &str) -> String {
    if !word.contains('/') || word.contains("://") {
        return word.to_owned();
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in word.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut out = String::from(if word.starts_with('/') { "/" } else { "" });
    out.push_str(&parts.join("/"));
    if out.is_empty() { ".".to_owned() } else { out }
}
