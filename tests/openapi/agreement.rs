//! The description against the source: routes, methods, problem types, media types.

use crate::DESCRIPTION;
use std::collections::{BTreeMap, BTreeSet};

const ROUTES: &str = include_str!("../../src/http/route.rs");
const EVENTS: &str = include_str!("../../src/core/src/event.rs");
const PROBLEMS: &str = include_str!("../../src/http/problem.rs");

/// Variants of `Resource` with their paths, from the arms of `find`.
fn resources() -> BTreeMap<String, String> {
    let arms = ROUTES.lines().filter_map(|line| line.trim().strip_prefix("[\"\", ")?.split_once("] => Resource::"));
    arms.map(|(segments, resource)| {
        let segments = segments.split(", ").map(|segment| match segment {
            "approval" => "{approval_id}".to_owned(),
            variable if !variable.starts_with('"') => format!("{{{variable}}}"),
            fixed => fixed.trim_matches('"').to_owned(),
        });
        let path = segments.fold(String::new(), |path, segment| path + "/" + &segment);
        let name = resource.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        (name.to_owned(), path)
    })
    .collect()
}

/// Methods of each path, from the arms of `methods`; HEAD goes with GET.
fn routed() -> BTreeSet<(String, String)> {
    let (_, rest) = ROUTES.split_once("fn methods(self)").expect("Resource::methods");
    let (body, _) = rest.split_once("\n    }\n").expect("its end");
    let constants = |name: &str| match name.trim_end_matches(',') {
        "GET" => "GET, HEAD".to_owned(),
        other => other.trim_matches('"').to_owned(),
    };
    let mut methods: BTreeMap<&str, String> = BTreeMap::new();
    let mut others = String::new();
    for (names, list) in body.lines().filter_map(|line| line.trim().split_once(" => ")) {
        if names == "_" {
            others = constants(list);
        }
        for name in names.split("Self::").skip(1) {
            methods.insert(name.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default(), constants(list));
        }
    }
    assert!(methods.len() >= 6 && !others.is_empty(), "is the source still read right? {methods:?} {others}");
    let resources = resources();
    assert!(resources.len() >= 18, "is the source still read right? {resources:?}");
    let mut out = BTreeSet::new();
    for (name, path) in resources {
        for method in methods.get(name.as_str()).unwrap_or(&others).split(", ").filter(|m| *m != "HEAD") {
            out.insert((path.clone(), method.to_lowercase()));
        }
    }
    out
}

/// Methods of each path, from the lines of the description.
fn described() -> BTreeSet<(String, String)> {
    let (mut out, mut path) = (BTreeSet::new(), "");
    for line in DESCRIPTION.lines().skip_while(|line| *line != "paths:").take_while(|line| *line != "components:") {
        match line.strip_suffix(':') {
            Some(found) if found.starts_with("  /") => path = found.trim(),
            Some(found) if found.starts_with("    ") && !found.starts_with("     ") => {
                out.insert((path.to_owned(), found.trim().to_owned()));
            }
            _ => {}
        }
    }
    out.retain(|(_, method)| method != "parameters");
    out
}

#[test]
fn routes_and_methods_are_those_of_the_source() {
    assert_eq!(described(), routed());
}

#[test]
fn problem_types_are_those_of_the_source() {
    let source: BTreeSet<&str> = PROBLEMS
        .lines()
        .filter_map(|line| line.strip_prefix("pub(super) const ")?.split_once("= kind(")?.1.split('"').nth(1))
        .collect();
    let names = DESCRIPTION.lines().filter_map(|line| line.trim().strip_prefix("- urn:duragent:problem:"));
    assert!(source.len() >= 22, "is the source still read right? {source:?}");
    assert_eq!(names.collect::<BTreeSet<_>>(), source);
}

#[test]
fn statuses_of_problems_are_described() {
    let statuses = DESCRIPTION.lines().find_map(|line| line.trim().strip_prefix("x-statuses: [")).expect("x-statuses");
    let declared: BTreeSet<&str> = statuses.trim_end_matches(']').split(", ").chain(["404", "409"]).collect();
    let kinds = PROBLEMS.lines().filter_map(|line| line.strip_prefix("pub(super) const ")?.split_once("= kind("));
    let source: BTreeSet<&str> = kinds.filter_map(|(_, rest)| rest.split(',').next()).collect();
    assert_eq!(declared, source);
}

#[test]
fn event_types_are_those_of_the_source() {
    let (_, kinds) = EVENTS.split_once("pub fn kind(&self)").expect("Body::kind");
    let source: BTreeSet<&str> =
        kinds.lines().filter_map(|line| line.split_once("=> \"")?.1.split('"').next()).collect();
    let found = DESCRIPTION.lines().filter_map(|line| line.split_once("type: { const: ")?.1.split(' ').next());
    assert!(source.len() >= 17, "is the source still read right? {source:?}");
    assert_eq!(found.collect::<BTreeSet<_>>(), source);
}

#[test]
fn the_version_is_that_of_the_package() {
    assert!(DESCRIPTION.contains(concat!("\n  version: ", env!("CARGO_PKG_VERSION"), "\n")));
}
