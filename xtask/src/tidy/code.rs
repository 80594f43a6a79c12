//! Rules about calls and words in Rust code.

use super::source::Source;
use super::{Report, Rule};

/// Talks to cargo through the environment and its standard output.
const BUILD_SCRIPT: &str = "build.rs";

/// Checks one file against all of them.
pub fn check(source: &Source<'_>, report: &mut Report) {
    walls(source, report);
    panics(source, report);
    prints(source, report);
    dropped_results(source, report);
}

/// What only one place may name, whether in tests or not.
fn walls(source: &Source<'_>, report: &mut Report) {
    for (i, token) in source.tokens.iter().enumerate() {
        let path = source.path;
        match token.text.as_str() {
            "unsafe" if !may_be_unsafe(path) => {
                report.add(source, token.line, Rule::Unsafe, "`unsafe` outside the platform crate");
            }
            "libc" if !may_be_unsafe(path) && (source.text_at(i + 1) == "::" || is_use(source, i)) => {
                report.add(source, token.line, Rule::Unsafe, "`libc` outside the platform crate");
            }
            "serde_yaml" if path != "src/config/yaml.rs" => {
                report.add(source, token.line, Rule::Yaml, "`serde_yaml` is named in src/config/yaml.rs only");
            }
            "env" if !reads_environment_freely(source, token.test) && names_environment(source, i) => {
                report.add(source, token.line, Rule::Environment, "environment variables are read in src/config only");
            }
            _ => {}
        }
    }
}

/// The platform crate, and the tests that call the kernel as an attacker does: of the sandbox, and of the front door.
fn may_be_unsafe(path: &str) -> bool {
    ["platform/", "tests/sandbox/", "tests/siege/sockets.rs"].iter().any(|dir| path.starts_with(dir))
}

fn is_use(source: &Source<'_>, index: usize) -> bool {
    index > 0 && source.text_at(index - 1) == "use"
}

fn reads_environment_freely(source: &Source<'_>, test: bool) -> bool {
    let may = |dir: &&str| source.path.starts_with(*dir);
    test || source.is_test_file() || ["src/config/", "xtask/", BUILD_SCRIPT].iter().any(may)
}

/// True if `env::var…` starts at `index`, or `env::{…, var…}`.
fn names_environment(source: &Source<'_>, index: usize) -> bool {
    const NAMES: [&str; 6] = ["var", "vars", "var_os", "vars_os", "set_var", "remove_var"];
    if source.text_at(index + 1) != "::" {
        return false;
    }
    match source.text_at(index + 2) {
        "{" => (index + 3..source.after_group(index + 2)).any(|i| NAMES.contains(&source.text_at(i))),
        name => NAMES.contains(&name),
    }
}

/// Calls that end the process, outside tests.
fn panics(source: &Source<'_>, report: &mut Report) {
    if source.is_test_file() {
        return;
    }
    for (i, token) in source.tokens.iter().enumerate().filter(|(_, t)| !t.test) {
        let call = match token.text.as_str() {
            "panic" | "todo" | "unimplemented" | "dbg" if source.text_at(i + 1) == "!" => format!("{}!", token.text),
            "." if source.text_at(i + 1) == "unwrap" && source.text_at(i + 2) == "(" => ".unwrap()".to_owned(),
            "." if source.text_at(i + 1) == "expect" && is_option_expect(source, i) => ".expect()".to_owned(),
            _ => continue,
        };
        let text = format!("{call} outside tests: return an error that says what, where, expected, found, remedy");
        report.add(source, token.line, Rule::Panics, &text);
    }
}

/// Tells `option.expect("why")` from a parser's own `self.expect(b'{', "what")`.
fn is_option_expect(source: &Source<'_>, dot: usize) -> bool {
    let open = dot + 2;
    if source.text_at(open) != "(" {
        return false;
    }
    let own_method = dot > 0 && source.text_at(dot - 1) == "self" && (dot < 2 || source.text_at(dot - 2) != ".");
    let end = source.after_group(open) - 1;
    let (mut at, mut arguments) = (open + 1, usize::from(end > open + 1));
    while at < end {
        match source.text_at(at) {
            "," if at + 1 < end => {
                arguments += 1;
                at += 1;
            }
            "(" | "[" | "{" => at = source.after_group(at),
            _ => at += 1,
        }
    }
    let byte_or_char =
        source.text_at(open + 1) == "'" || (source.text_at(open + 1) == "b" && source.text_at(open + 2) == "'");
    arguments == 1 && !own_method && !byte_or_char
}

/// Printing belongs to the command line.
fn prints(source: &Source<'_>, report: &mut Report) {
    let may = |dir: &&str| source.path.starts_with(*dir);
    if source.is_test_file() || ["src/cli/", "xtask/", "plugins/", BUILD_SCRIPT].iter().any(may) {
        return;
    }
    for (i, token) in source.tokens.iter().enumerate().filter(|(_, t)| !t.test) {
        if matches!(token.text.as_str(), "println" | "eprintln" | "print" | "eprint") && source.text_at(i + 1) == "!" {
            report.add(source, token.line, Rule::Prints, &format!("{}! outside src/cli", token.text));
        }
    }
}

/// The result of a write or sync that nobody looks at: `let _ = f.flush();`, `drop(f.flush())`, `f.flush().ok();`.
fn dropped_results(source: &Source<'_>, report: &mut Report) {
    if source.is_test_file() {
        return;
    }
    let words = |i: usize, words: &[&str]| words.iter().enumerate().all(|(n, w)| source.text_at(i + n) == *w);
    for (i, token) in source.tokens.iter().enumerate().filter(|(_, t)| !t.test) {
        let range = if words(i, &["let", "_", "="]) {
            i..statement_end(source, i)
        } else if token.text == "drop" && source.text_at(i + 1) == "(" {
            i..source.after_group(i + 1)
        } else if words(i, &[".", "ok", "(", ")", ";"]) {
            statement_start(source, i)..i
        } else {
            continue;
        };
        if let Some(name) = range.clone().find_map(|at| dropped_call(source, at)) {
            // `let x = f.flush().ok();` is looked at; only a statement of its own throws the result away.
            let kept = token.text == "." && matches!(source.text_at(range.start), "let" | "return");
            if !kept {
                let text = format!("the result of .{name}() is thrown away: a failed write must be seen by somebody");
                report.add(source, token.line, Rule::DroppedResults, &text);
            }
        }
    }
}

fn dropped_call<'s>(source: &'s Source<'_>, at: usize) -> Option<&'s str> {
    const NAMES: [&str; 8] = ["flush", "sync_all", "sync_data", "write", "write_all", "fsync", "fdatasync", "sync_dir"];
    let name = source.text_at(at + 1);
    (source.text_at(at) == "." && source.text_at(at + 2) == "(" && NAMES.contains(&name)).then_some(name)
}

fn statement_end(source: &Source<'_>, mut at: usize) -> usize {
    while at < source.tokens.len() && source.text_at(at) != ";" {
        at = match source.text_at(at) {
            "(" | "[" | "{" => source.after_group(at),
            _ => at + 1,
        };
    }
    at
}

fn statement_start(source: &Source<'_>, mut at: usize) -> usize {
    while at > 0 && !matches!(source.text_at(at - 1), ";" | "{" | "}") {
        at -= 1;
    }
    at
}
