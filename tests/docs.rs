//! Keeps `docs/formats.md` honest: what the code defines has to be there, as the code has it.

use duragent::config::{Limits, ServerLimits};
use duragent_core::{event::Body, line};
use std::collections::BTreeSet;
use std::process::Command;

const FORMATS: &str = include_str!("../docs/formats.md");
const EVENTS: &str = include_str!("../src/core/src/event.rs");
const PROBLEMS: &str = include_str!("../src/http/problem.rs");
const ROUTES: &str = include_str!("../src/http/route.rs");

/// Checks that every item is in the page, in the form that `written` gives it.
fn check<T: std::fmt::Debug>(what: &str, least: usize, items: &[T], written: impl Fn(&T) -> String) {
    assert!(
        items.len() >= least,
        "{what}: expected {least} at least, found {items:?}: is the source still read right?"
    );
    let missing: Vec<String> = items.iter().map(written).filter(|text| !FORMATS.contains(text.as_str())).collect();
    assert!(missing.is_empty(), "{what} that docs/formats.md does not have: {missing:#?}");
}

/// The texts between `before` and the next quotation mark, one a line at most.
fn quoted<'t>(text: &'t str, before: &str) -> Vec<&'t str> {
    text.lines().filter_map(|line| line.split_once(before)?.1.split('"').next()).collect()
}

/// The wire names of all event types: what `Body::kind` says.
fn event_types() -> Vec<&'static str> {
    let (_, kinds) = EVENTS.split_once("pub fn kind(&self)").expect("Body::kind");
    quoted(kinds, "=> \"")
}

/// The log lines that the page shows as examples.
fn example_lines() -> impl Iterator<Item = &'static str> {
    FORMATS.lines().filter(|line| line.starts_with("{\"seq\":"))
}

#[test]
fn every_event_type_has_a_row() {
    check("event types", 17, &event_types(), |kind| format!("\n| `{kind}` | "));
}

#[test]
fn every_event_type_has_an_example_that_the_codec_reads_and_writes() {
    let mut seen = BTreeSet::new();
    for text in example_lines() {
        let event = line::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(!matches!(event.body, Body::Unknown { .. }), "{text}");
        let mut again = String::new();
        line::encode(&event, 0, &mut again);
        let body = |line: &str| line.rsplit_once(",\"crc\":").map(|(body, _)| body.to_owned());
        assert_eq!(body(&again), body(text), "the codec writes it in another way");
        seen.insert(event.body.kind().to_owned());
    }
    let missing: Vec<_> = event_types().into_iter().filter(|kind| !seen.contains(*kind)).collect();
    assert!(missing.is_empty(), "event types without an example line: {missing:?}");
}

#[test]
fn the_first_two_example_lines_are_chained_as_the_page_says() {
    let mut crc = line::CRC_START;
    for text in example_lines().take(2) {
        crc = line::check(text.as_bytes(), crc).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

#[test]
fn every_limit_has_a_row_with_its_default_and_range() {
    for (what, count, table) in [("limits", 11, Limits::TABLE), ("limits of the server", 7, ServerLimits::TABLE)] {
        check(what, count, table, |(name, default, range)| {
            format!("\n| `{name}` | {default} | {} to {} | ", range.start(), range.end())
        });
    }
}

#[test]
fn every_command_has_a_row() {
    let help = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_duragent")).args(args).env_clear().output().expect("it runs");
        assert!(output.status.success(), "{args:?}: {output:?}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let rows = text.lines().filter_map(|line| line.strip_prefix("  "));
        rows.filter_map(|row| row.split_whitespace().next().map(str::to_owned)).collect::<Vec<_>>()
    };
    // A row is `name`, or `name` with arguments.
    let row = |name: &str| if FORMATS.contains(&format!("\n| `{name}` ")) { "`" } else { " " };
    check("commands", 16, &help(&["--help"]), |name| match name.as_str() {
        "session" => "\n| `session show ".to_owned(),
        name => format!("\n| `{name}{}", row(name)),
    });
    check("commands on sessions", 9, &help(&["session", "--help"]), |name| format!("\n| `session {name} "));
}

#[test]
fn every_problem_type_has_a_row_with_its_status() {
    let kinds: Vec<(&str, &str)> = PROBLEMS
        .lines()
        .filter_map(|line| line.strip_prefix("pub(super) const ")?.split_once("= kind(")?.1.split_once(", \""))
        .map(|(status, rest)| (status, rest.split('"').next().unwrap_or_default()))
        .collect();
    check("problem types", 22, &kinds, |(status, name)| format!("\n| `urn:duragent:problem:{name}` | {status} | "));
}

#[test]
fn every_route_has_a_row() {
    let arms = ROUTES.lines().filter_map(|line| line.trim().strip_prefix("[\"\", ")?.split_once("] =>"));
    let paths: Vec<String> = arms
        .map(|(segments, _)| {
            let segments = segments.split(", ").map(|segment| match segment {
                "approval" => "{approval_id}".to_owned(),
                variable if !variable.starts_with('"') => format!("{{{variable}}}"),
                fixed => fixed.trim_matches('"').to_owned(),
            });
            segments.fold(String::new(), |path, segment| path + "/" + &segment)
        })
        .collect();
    check("routes", 17, &paths, |path| format!(" {path}` | "));
}
