//! `duragent completions bash|zsh|fish`: a script for the shell, made from the tables of commands.
//!
//! Completed are commands, the commands of `session`, and their options. Absent: agents and sessions, which would start a
//! process on every press of a key.

use super::session::SUBCOMMANDS;
use super::{COMMANDS, Common, Failure, args, print};

/// Options in front of every command.
const COMMON: &[&str] = &["--dir", "--profile", "--help", "--version"];

/// A command as a shell has to know it.
struct Entry {
    name: &'static str,
    summary: &'static str,
    options: Vec<&'static str>,
}

pub fn completions(_: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let mut shell = None;
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Value(value) if shell.is_none() => shell = Some(args::text(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let script = match shell.as_deref() {
        Some("bash") => bash(),
        Some("zsh") => zsh(),
        Some("fish") => fish(),
        Some(other) => return Err(Failure::usage(format!("cannot write for {other:?}"), "expected bash, zsh or fish")),
        None => return Err(Failure::usage("expected a shell, found none", "expected bash, zsh or fish")),
    };
    print(&script)
}

fn commands() -> Vec<Entry> {
    COMMANDS.iter().map(|c| Entry { name: c.name, summary: c.summary, options: options(c.usage) }).collect()
}

fn subcommands() -> Vec<Entry> {
    SUBCOMMANDS.iter().map(|c| Entry { name: c.name, summary: c.summary, options: options(c.usage) }).collect()
}

/// The options that a usage names.
fn options(usage: &'static str) -> Vec<&'static str> {
    let words = usage.split(|c: char| c.is_whitespace() || "[]|,=".contains(c));
    words.filter(|word| word.len() > 1 && word.starts_with('-')).collect()
}

fn names(entries: &[Entry]) -> String {
    entries.iter().map(|e| e.name).collect::<Vec<_>>().join(" ")
}

/// `NAME) VARIABLE="OPTIONS" ;;` for every command that has options.
fn cases(entries: &[Entry], variable: &str, indent: &str) -> String {
    let with_options = entries.iter().filter(|e| !e.options.is_empty());
    with_options.map(|e| format!("{indent}{}) {variable}=\"{}\" ;;\n", e.name, e.options.join(" "))).collect()
}

fn bash() -> String {
    let (commands, subcommands) = (commands(), subcommands());
    format!(
        r#"# duragent: completions for bash. Load with: source <(duragent completions bash)
_duragent() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" command="" sub="" words="" i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "${{COMP_WORDS[i]}}" in
        --dir | --profile) ((i++)) ;;
        -*) ;;
        *) if [[ -z $command ]]; then command="${{COMP_WORDS[i]}}"; elif [[ -z $sub ]]; then sub="${{COMP_WORDS[i]}}"; fi ;;
        esac
    done
    case "$command" in
    "") words="{common} {names}" ;;
    session)
        case "$sub" in
        "") words="{subnames}" ;;
{subcases}        esac
        ;;
{cases}    esac
    COMPREPLY=()
    while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -W "$words" -- "$current")
    if [[ ${{#COMPREPLY[@]}} -eq 0 ]]; then compopt -o default 2>/dev/null; fi
}}
complete -F _duragent duragent
"#,
        common = COMMON.join(" "),
        names = names(&commands),
        subnames = names(&subcommands),
        subcases = cases(&subcommands, "words", "        "),
        cases = cases(&commands, "words", "    "),
    )
}

fn zsh() -> String {
    let described = |entries: &[Entry]| -> String {
        let quoted = |text: &str| text.replace('\'', "'\\''").replace(':', "\\:");
        entries.iter().map(|e| format!("        '{}:{}'\n", e.name, quoted(e.summary))).collect()
    };
    let (commands, subcommands) = (commands(), subcommands());
    format!(
        r#"#compdef duragent
# duragent: completions for zsh. Load with: source <(duragent completions zsh)
_duragent() {{
    local -a commands subs
    local command="" sub="" words_=""
    local -i i
    commands=(
{commands}    )
    subs=(
{subs}    )
    for ((i = 2; i < CURRENT; i++)); do
        case "${{words[i]}}" in
        --dir | --profile) ((i++)) ;;
        -*) ;;
        *) if [[ -z $command ]]; then command="${{words[i]}}"; elif [[ -z $sub ]]; then sub="${{words[i]}}"; fi ;;
        esac
    done
    case "$command" in
    "") _describe command commands; compadd -- {common}; return ;;
    session)
        case "$sub" in
        "") _describe command subs; return ;;
{subcases}        esac
        ;;
{cases}    esac
    if [[ -n $words_ && "${{words[CURRENT]}}" == -* ]]; then compadd -- ${{=words_}}; else _files; fi
}}
compdef _duragent duragent
"#,
        commands = described(&commands),
        subs = described(&subcommands),
        common = COMMON.join(" "),
        subcases = cases(&subcommands, "words_", "        "),
        cases = cases(&commands, "words_", "    "),
    )
}

fn fish() -> String {
    let mut out = String::from("# duragent: completions for fish. Load with: duragent completions fish | source\n");
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let option = |option: &str| match option.strip_prefix("--") {
        Some(long) => format!("-l {long}"),
        None => format!("-s {}", option.trim_start_matches('-')),
    };
    let mut complete = |condition: &str, rest: &str| {
        out.push_str(&format!("complete -c duragent -n {} {rest}\n", quoted(condition)));
    };
    let none = "__fish_use_subcommand";
    for common in COMMON {
        complete(none, &option(common));
    }
    for entry in commands() {
        complete(none, &format!("-f -a {} -d {}", entry.name, quoted(entry.summary)));
        for each in &entry.options {
            complete(&format!("__fish_seen_subcommand_from {}", entry.name), &option(each));
        }
    }
    let subs = subcommands();
    let inside = "__fish_seen_subcommand_from session";
    for entry in &subs {
        let first = format!("{inside}; and not __fish_seen_subcommand_from {}", names(&subs));
        complete(&first, &format!("-f -a {} -d {}", entry.name, quoted(entry.summary)));
        for each in &entry.options {
            complete(&format!("{inside}; and __fish_seen_subcommand_from {}", entry.name), &option(each));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::options;

    #[test]
    fn options_are_read_from_usage_lines() {
        for (usage, expected) in [
            ("version", &[] as &[&str]),
            ("ps [--json] [--agent A] [--status S]", &["--json", "--agent", "--status"]),
            ("log SESSION [-f] [--json]", &["-f", "--json"]),
            ("verify SESSION|--all", &["--all"]),
            ("run AGENT [PROMPT|-] [--output-format text|json|stream-json]", &["--output-format"]),
            ("x [-o FILE, --output=FILE]", &["-o", "--output"]),
        ] {
            assert_eq!(options(usage), expected, "{usage}");
        }
    }
}
