//! The bypass corpus: `corpus/*.jsonl`, one case a line, against `duragent_core::policy`.
//!
//! A file begins with `{"about": …}`. `{"group": …, "deny": […], "ask": […], "allow": […], "mode": …}` is the policy of the
//! cases behind it. A case is `[kind, verdict, tool, argument, note]`:
//!
//! - `control`: the plain call, which shows what the policy says. Every group has one.
//! - `disguise`: the verdict holds although a matcher that compares the argument as it came is fooled.
//! - `plain`: the verdict holds, and such a matcher is not fooled either.
//! - `unseen`: what no text shows. The verdict is what happens; that it is not better is known.

use duragent_core::json::{self, ObjectWriter, Value};
use duragent_core::policy::{Argument, Policy, Rule, Verdict, argument, evaluate};
use duragent_core::tool::PolicyArgument;
use std::path::Path;
use std::time::{Duration, Instant};

const WORKDIR: &str = "/home/pi/project";

/// Fewer would mean that files are not found.
const CASES_MIN: usize = 700;

/// Far above what any of them takes, also on a board that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Group {
    name: String,
    policy: Policy,
    controls: usize,
}

struct Case<'a> {
    kind: &'a str,
    expected: &'a str,
    tool: &'a str,
    argument: &'a str,
}

impl Case<'_> {
    /// As the session machine would make it of a call. `raw:TOOL` has its arguments whole, to be read as the tool's.
    fn argument(&self) -> (&str, Argument) {
        let (tool, raw) = self.tool.strip_prefix("raw:").map_or((self.tool, false), |tool| (tool, true));
        let (decl, key) = match tool {
            "bash" => (PolicyArgument::Command("command"), "command"),
            "read_file" | "write_file" | "list_dir" => (PolicyArgument::Path("path"), "path"),
            _ => (PolicyArgument::Whole, ""),
        };
        let mut arguments = self.argument.to_owned();
        if !raw && decl != PolicyArgument::Whole {
            arguments.clear();
            let mut object = ObjectWriter::new(&mut arguments);
            object.str(key, self.argument);
            object.finish();
        }
        (tool, argument(&decl, &arguments, WORKDIR))
    }
}

fn verdict(word: &str) -> Verdict {
    let all = [Verdict::Allow, Verdict::Ask, Verdict::Deny];
    all.into_iter().find(|verdict| verdict.as_str() == word).unwrap_or_else(|| panic!("no verdict {word:?}"))
}

fn group(line: &Value) -> Group {
    let rules = |key| {
        let Some(Value::Array(list)) = line.get(key) else { return Vec::new() };
        list.iter().map(|text| Rule::parse(text.as_str().expect("text")).expect("a rule")).collect()
    };
    let mode = line.get("mode").and_then(Value::as_str).map(verdict);
    let policy = Policy { mode, deny: rules("deny"), ask: rules("ask"), allow: rules("allow"), ..Policy::default() };
    Group { name: line.get("group").and_then(Value::as_str).expect("a name").to_owned(), policy, controls: 0 }
}

/// What a matcher without any of our care says: the pattern against the argument as it came.
fn naive(policy: &Policy, tool: &str, text: &str) -> Verdict {
    let hit = |rules: &[Rule]| {
        rules.iter().any(|rule| like(rule.tool(), tool) && rule.pattern().is_none_or(|pattern| like(pattern, text)))
    };
    match () {
        () if hit(&policy.deny) => Verdict::Deny,
        () if hit(&policy.ask) => Verdict::Ask,
        () if hit(&policy.allow) => Verdict::Allow,
        () => policy.mode.unwrap_or(Verdict::Ask),
    }
}

/// `*` is anything, `?` one character: the simplest glob there is.
fn like(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// What is wrong with a case.
fn check(group: &mut Group, case: &Case<'_>) -> Option<String> {
    let expected = verdict(case.expected);
    let (tool, argument) = case.argument();
    let found = evaluate(std::slice::from_ref(&group.policy), tool, &argument).verdict;
    if found != expected {
        return Some(format!("expected {}, found {}", expected.as_str(), found.as_str()));
    }
    let naive = naive(&group.policy, tool, case.argument);
    match case.kind {
        "control" => group.controls += 1,
        "disguise" if naive == expected => return Some("a simple matcher is not fooled, so it is `plain`".to_owned()),
        "plain" if naive != expected => return Some("a simple matcher is fooled, so it is a `disguise`".to_owned()),
        "disguise" | "plain" | "unseen" => {}
        other => return Some(format!("there is no kind {other:?}")),
    }
    None
}

#[test]
fn rules_hold_for_every_call_of_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy/corpus");
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).expect("the corpus").map(|f| f.expect("a file").path()).collect();
    files.sort();
    let (mut cases, mut wrong, started) = (0, Vec::new(), Instant::now());
    for file in files {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).expect("a file of the corpus");
        let mut now = Group::default();
        for (line, number) in text.lines().zip(1..) {
            let at = format!("{name}:{number}");
            let value = json::parse(line).unwrap_or_else(|error| panic!("{at}: {error}"));
            if let Value::Array(fields) = &value {
                let fields: Vec<&str> = fields.iter().map(|field| field.as_str().expect("text")).collect();
                let [kind, expected, tool, argument, note] = fields[..] else { panic!("{at}: expected five texts") };
                cases += 1;
                if let Some(what) = check(&mut now, &Case { kind, expected, tool, argument }) {
                    let shown: String = argument.chars().take(200).collect();
                    wrong.push(format!("{at}: {} ({note}): {tool} {shown:?}: {what}", now.name));
                }
            } else if value.get("group").is_some() {
                assert!(number < 3 || now.controls > 0, "{at}: the group before has no control");
                now = group(&value);
            }
        }
        assert!(now.controls > 0, "{name}: the last group has no control");
    }
    assert!(wrong.is_empty(), "{} of {cases}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases >= CASES_MIN, "only {cases} cases");
    assert!(started.elapsed() < PATIENCE, "{cases} cases took {:?}", started.elapsed());
}

#[test]
fn no_call_takes_long() {
    // Half of what a shell takes, and more than it does.
    const BYTES: [usize; 2] = [64 * 1024, 1024 * 1024];
    let rules = ["bash:rm *-rf*", "bash:*a*b*c*d", "bash:s*d*o*?x"];
    let deny = rules.iter().map(|rule| Rule::parse(rule).expect("a rule")).collect();
    let layers = [Policy { mode: Some(Verdict::Allow), deny, ..Policy::default() }];
    for piece in [
        "a",
        " ",
        "rm ",
        "sudo ",
        "sudo rm ",
        "sh -c rm;",
        "A=1 ",
        "A='",
        "$IFS",
        "${IFS",
        "${a:-",
        "$'",
        "$'\\x72",
        "{",
        "}",
        "{a,b}",
        "{a,",
        "{a..z}",
        "{,}",
        "<",
        ">x ",
        "1>",
        "`",
        "$(",
        "(",
        "\\",
        "\\\n",
        "\n",
        ";",
        "x;",
        "../",
        "/",
        "=",
        "\"",
        "git -c !",
        "\u{e4}",
    ] {
        for bytes in BYTES {
            let started = Instant::now();
            let text = Argument::Command(piece.repeat(bytes / piece.len()));
            let found = evaluate(&layers, "bash", &text).verdict;
            assert!(started.elapsed() < PATIENCE, "{piece:?} took {:?} ({})", started.elapsed(), found.as_str());
        }
    }
}
