//! What a command line may hide, by simple means and without being a shell.
//!
//! Over-approximates on purpose: separators count inside quotes too. A deny rule that hits a quoted text costs a question;
//! one that misses costs more. Absent: variables, encodings, scripts that are written first and run later.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// Most forms of one command. A here-document counts a form or two for every line; a file of some thousand lines fits.
const FORMS_MAX: usize = 16 * 1024;

/// Most bytes of all forms together: `sudo sudo sudo …` makes the square of its length.
const FORMS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What ends a command or starts another one in a shell.
const CONTROL: [char; 10] = [';', '|', '&', '\n', '\r', '`', '<', '>', '(', ')'];

/// True if a shell would do more with this text than run one program with plain arguments.
pub(super) fn has_control(text: &str) -> bool {
    text.contains(CONTROL) || text.contains('\0')
}

/// Words that may stand in front of a command.
const RESERVED: [&str; 11] = ["then", "do", "else", "elif", "if", "while", "until", "!", "{", "time", "in"];

/// Programs that run the command in their arguments.
const WRAPPERS: [&str; 22] = [
    "ash", "bash", "builtin", "busybox", "chroot", "command", "dash", "doas", "env", "eval", "exec", "ionice", "nice",
    "nohup", "setsid", "sh", "stdbuf", "sudo", "time", "timeout", "watch", "xargs",
];

/// Every form of `text` that a deny or ask rule is tried on besides `text` itself: the parts between separators, without
/// quotes, surplus white space, assignments, reserved words, the directory of the program, and wrappers like `sudo`.
/// `None` if there are too many to look at.
pub(super) fn disguises(text: &str) -> Option<Vec<String>> {
    let joined = text.replace("\\\n", "").replace("\\\r\n", "").replace("${IFS}", " ").replace("$IFS", " ");
    let mut forms = Forms::default();
    forms.push(&unquoted(&joined).split_ascii_whitespace().collect::<Vec<_>>())?;
    for part in joined.split(CONTROL) {
        let part = unquoted(part);
        let words: Vec<&str> = part.split_ascii_whitespace().collect();
        let mut words = words.as_slice();
        forms.push(words)?;
        while let Some((first, rest)) = words.split_first() {
            if is_assignment(first) || RESERVED.contains(first) {
                words = rest;
            } else {
                let name = first.rsplit('/').next().unwrap_or(first);
                let mut bare: Vec<&str> = words.to_vec();
                if let Some(word) = bare.first_mut() {
                    *word = name;
                }
                forms.push(&bare)?;
                if !WRAPPERS.contains(&name) {
                    break;
                }
                words = after_options(rest);
            }
            forms.push(words)?;
        }
    }
    Some(forms.list)
}

#[derive(Default)]
struct Forms {
    list: Vec<String>,
    bytes: usize,
}

impl Forms {
    /// Adds a form; `None` if there is no room for it.
    fn push(&mut self, words: &[&str]) -> Option<()> {
        if words.is_empty() {
            return Some(());
        }
        let form = words.join(" ");
        if self.list.last() != Some(&form) {
            self.bytes += form.len();
            self.list.push(form);
        }
        (self.list.len() <= FORMS_MAX && self.bytes <= FORMS_BYTES_MAX).then_some(())
    }
}

/// Passes over a wrapper's options, assignments and numbers (`timeout -k 5 10s env A=1 …`).
fn after_options<'a, 'w>(mut words: &'a [&'w str]) -> &'a [&'w str] {
    while let Some((first, rest)) = words.split_first() {
        let number = first.starts_with(|c: char| c.is_ascii_digit());
        if !(first.starts_with('-') || is_assignment(first) || number) {
            break;
        }
        words = rest;
    }
    words
}

fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else { return false };
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.bytes().all(good)
}

/// Without quotes and backslashes: `r"m"`, `\rm` and `'rm'` all run `rm`.
fn unquoted(text: &str) -> String {
    if text.contains(['"', '\'', '\\']) { text.replace(['"', '\'', '\\'], "") } else { text.to_owned() }
}
