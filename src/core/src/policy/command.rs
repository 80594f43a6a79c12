//! What a command line may hide, by simple means and without being a shell.
//!
//! For a deny or ask rule it over-approximates on purpose: separators count inside quotes, and behind a program that runs others
//! every word may begin a command. A rule that hits a quoted text costs a question; one that misses costs more. For an
//! allow rule it is the other way round: what it does not see through is not covered.
//!
//! Absent: values of variables, encodings, what is on the disk, scripts that are written first and run later
//! (`tests/policy/corpus` has them as `unseen`).

mod expand;
mod words;

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use words::{INTERPRETERS, OPTIONS, OPTIONS_OF_GIT, RESERVED, RUNNERS, SHORT_OPTIONS};

/// Longest command that is looked through: what Linux takes as one argument (execve(2), `MAX_ARG_STRLEN`).
const COMMAND_BYTES_MAX: usize = 128 * 1024;

/// Most forms of one command. A here-document makes a few of every line; a file of some thousand lines fits.
const FORMS_MAX: usize = 64 * 1024;

/// Most bytes that a rule is tried on, over all places of all forms: bounds the time. Behind a program that runs others a line
/// of some KiB comes near it.
const TRIED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What ends a command or starts another one in a shell, redirections apart.
const SEPARATORS: [char; 8] = [';', '|', '&', '\n', '\r', '`', '(', ')'];

/// Where a redirection begins.
const REDIRECTIONS: [char; 2] = ['<', '>'];

/// What stands between a program of a command and one in its options: `--exec=rm`, `alias.x=!rm`, `["rm","x"]`.
const JOINTS: [char; 12] = ['"', '\'', '=', '!', ',', '{', '}', '[', ']', ':', '+', '%'];

/// True if a shell would do more with this text than run one program with plain arguments: what the wildcards of an allow
/// rule never cover.
pub(super) fn is_opaque(text: &str) -> bool {
    let control = |c: char| (c.is_control() && c != '\t') || SEPARATORS.contains(&c) || REDIRECTIONS.contains(&c);
    text.contains(|c| control(c) || c == '$') || (text.contains('{') && (text.contains(',') || text.contains("..")))
}

/// True if `text` leaves the directories that an allow rule with a wildcard names, or has an option that makes the
/// program write a file or run another one, and `pattern` says nothing of it.
pub(super) fn exceeds(pattern: &str, text: &str) -> bool {
    let plain = unquoted(text);
    let program = plain.split_ascii_whitespace().next().map_or("", base_name);
    let up = |text: &str| text.split(['/', ' ', '\t', '=', ':', ',']).any(|part| part == "..");
    if up(&plain) && !up(pattern) {
        return true;
    }
    plain.split_ascii_whitespace().any(|word| {
        let name = word.split('=').next().unwrap_or(word);
        does_more(program, word, name) && !pattern.contains(name)
    })
}

/// True for an option that runs a program or writes a file.
fn does_more(program: &str, word: &str, name: &str) -> bool {
    let Some(letters) = word.strip_prefix('-') else { return false };
    match letters.strip_prefix('-') {
        // Programs take every beginning of an option that is the beginning of no other one.
        Some(long) => !long.is_empty() && words(OPTIONS).any(|option| option.starts_with(name)),
        None => {
            let short = SHORT_OPTIONS.iter().find(|(of, _)| *of == program).map_or("", |(_, letters)| letters);
            words(OPTIONS).any(|option| option == name) || letters.contains(|c| short.contains(c))
        }
    }
}

/// A form of a command: a text that rules are tried on, at some or all of its words.
#[derive(Debug)]
pub(super) struct Form {
    /// Words with one space between them.
    text: String,
    /// Whether a command may begin at every word.
    everywhere: bool,
}

impl Form {
    /// True if `matches` is at one of its places; only at the first one if `first`.
    pub(super) fn any(&self, first: bool, matches: &dyn Fn(&str) -> bool) -> bool {
        let mut rest = self.text.as_str();
        while !matches(rest) {
            match rest.split_once(' ') {
                Some((_, after)) if self.everywhere && !first => rest = after,
                _ => return false,
            }
        }
        true
    }
}

/// Every form of `text` that a deny or ask rule is tried on besides `text` itself. `None` if there are too many to look at.
pub(super) fn forms(text: &str) -> Option<Vec<Form>> {
    if text.len() > COMMAND_BYTES_MAX {
        return None;
    }
    let mut forms = Forms::default();
    let joined = expand::continued(text);
    forms.push(&split(&unquoted(&joined)), false)?;
    // In quotes and in a comment a backslash continues no line, so both ways of reading count.
    let mut seen: Vec<String> = Vec::new();
    for read in [joined.as_str(), text] {
        forms.unseen(&mut seen, read.to_owned())?;
        for unset in expand::UNSET {
            forms.unseen(&mut seen, expand::expanded(read, unset))?;
        }
    }
    Some(forms.list)
}

#[derive(Default)]
struct Forms {
    list: Vec<Form>,
    tried: usize,
}

impl Forms {
    /// Adds a form; `None` if there is no room for it.
    fn push(&mut self, words: &[&str], everywhere: bool) -> Option<()> {
        if words.is_empty() {
            return Some(());
        }
        let text = words.join(" ");
        if self.list.last().is_none_or(|last| last.text != text || last.everywhere != everywhere) {
            // On average, half of it stands behind a place.
            self.tried = self.tried.saturating_add(text.len() * if everywhere { words.len().div_ceil(2) } else { 1 });
            self.list.push(Form { text, everywhere });
        }
        (self.list.len() <= FORMS_MAX && self.tried <= TRIED_BYTES_MAX).then_some(())
    }

    /// [`Forms::parts`] of a text that is none of `seen`.
    fn unseen(&mut self, seen: &mut Vec<String>, text: String) -> Option<()> {
        if !seen.contains(&text) {
            self.parts(&text)?;
            seen.push(text);
        }
        Some(())
    }

    /// The commands between separators.
    fn parts(&mut self, text: &str) -> Option<()> {
        let one_sign = text.replace(">&", ">").replace("<&", "<").replace("&>", ">").replace(">|", ">");
        let parts = || one_sign.split(SEPARATORS);
        // A script in quotes is cut into pieces by its own separators.
        let script = parts().any(|part| {
            let words = unquoted(part);
            let words = split(&words);
            let (program, rest) = program(&words);
            is_in(INTERPRETERS, program) || (is_runner(program, rest) && rest.iter().any(|w| is_in(INTERPRETERS, w)))
        });
        for part in parts() {
            self.command(part, script)?;
            if part.contains(REDIRECTIONS) {
                self.command(&expand::without_redirections(part), script)?;
                part.split(REDIRECTIONS).try_for_each(|piece| self.command(piece, script))?;
            }
        }
        Some(())
    }

    /// One command, and what it is with its braces expanded.
    fn command(&mut self, part: &str, script: bool) -> Option<()> {
        let plain = unquoted(part);
        let words = split(&plain);
        if words.is_empty() {
            return Some(());
        }
        self.simple(part, &words, script)?;
        if part.contains('{')
            && let Some(expanded) = expand::braces(&words)
        {
            self.simple(part, &split(&expanded), script)?;
        }
        Some(())
    }

    /// The words of one command, what it is without assignments, reserved words and its directory, and what it may run.
    fn simple(&mut self, part: &str, words: &[&str], script: bool) -> Option<()> {
        let mut rest = words;
        self.push(rest, false)?;
        while let Some((first, after)) = rest.split_first() {
            if let Some((_, value)) = assignment(first) {
                // `PAGER='rm x' man ls` runs it.
                let mut ran = alloc::vec![base_name(value)];
                ran.extend(after);
                self.push(&ran, false)?;
            } else if !is_in(RESERVED, first) {
                break;
            }
            rest = after;
            // A value in quotes may have blanks in it, and then the program stands further behind.
            self.push(rest, first.contains('=') && part.contains(['"', '\'', '\\']))?;
        }
        let Some((first, after)) = rest.split_first() else { return Some(()) };
        let name = base_name(first);
        let mut bare = alloc::vec![name];
        bare.extend(after);
        self.push(&bare, false)?;
        let paths: Vec<String> = bare.iter().map(|word| expand::path(word)).collect();
        self.push(&paths.iter().map(String::as_str).collect::<Vec<_>>(), false)?;
        if script || is_runner(name, after) {
            self.push(&after.iter().map(|word| base_name(word)).collect::<Vec<_>>(), true)?;
            self.push(after, true)?;
            for joints in [&JOINTS[..], &['/', '"', '\'', '=', '!']] {
                self.push(&split(&part.replace(joints, " ")), true)?;
            }
        }
        Some(())
    }
}

fn split(text: &str) -> Vec<&str> {
    text.split_ascii_whitespace().collect()
}

/// The words of a table.
fn words(table: &'static str) -> impl Iterator<Item = &'static str> {
    table.split_ascii_whitespace()
}

/// True if the program is in the table, under this name or one with a version behind it.
fn is_in(table: &'static str, word: &str) -> bool {
    let name = base_name(word);
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    words(table).any(|known| known == name || known == bare)
}

/// The program of a command and the words behind it.
fn program<'a, 'w>(words: &'a [&'w str]) -> (&'w str, &'a [&'w str]) {
    let at = words.iter().position(|word| assignment(word).is_none() && !is_in(RESERVED, word));
    match at.and_then(|at| words.get(at..)).and_then(<[_]>::split_first) {
        Some((program, rest)) => (base_name(program), rest),
        None => ("", &[]),
    }
}

/// True if the program, with these words behind it, may run another one that is named in them.
fn is_runner(program: &str, rest: &[&str]) -> bool {
    let runs = |word: &&str| {
        let name = word.split('=').next().unwrap_or(word);
        does_more("", word, name) || (program == "git" && (is_in(OPTIONS_OF_GIT, word) || word.contains(['!', ':'])))
    };
    is_in(RUNNERS, program) || is_in(INTERPRETERS, program) || rest.iter().any(runs)
}

/// What stands behind the last slash; all of it if nothing does.
fn base_name(word: &str) -> &str {
    word.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(word)
}

/// Name and value of an assignment, to an element of an array too. Of a subscript with blanks this is the first word or the last.
fn assignment(word: &str) -> Option<(&str, &str)> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let is_name =
        |name: &str| !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.bytes().all(good);
    if let Some((name, rest)) = word.split_once('[')
        && is_name(name)
    {
        return Some((name, rest.split_once("]=").map_or("", |(_, value)| value)));
    }
    let (name, value) = word.split_once('=')?;
    let name = name.strip_suffix('+').unwrap_or(name);
    (is_name(name) || name.ends_with(']')).then_some((name, value))
}

/// Without quotes and backslashes: `r"m"`, `\rm` and `'rm'` all run `rm`.
fn unquoted(text: &str) -> String {
    if text.contains(['"', '\'', '\\']) { text.replace(['"', '\'', '\\'], "") } else { text.to_owned() }
}
