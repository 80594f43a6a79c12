//! The tables of docs/operations.md have what there is, and nothing else.

use crate::house::House;
use duragent::config::log::SLOW;
use std::collections::{BTreeMap, BTreeSet};

const OPERATIONS: &str = include_str!("../../docs/operations.md");
const PROBLEMS: &str = include_str!("../../src/http/problem.rs");

/// Family by name: its kind and the names of its labels.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

/// The texts between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn documented() -> Families {
    let (_, section) = OPERATIONS.split_once("\n## Metrics\n").expect("a section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let row = |row: &str| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [name, kind, labels, _] = cells[..] else { panic!("expected four cells: {row}") };
        // Behind the colon are values.
        let labels = labels.split(':').next().unwrap_or_default();
        let names = quoted(labels).filter(|name| !name.contains(['…', '_', ':'])).map(str::to_owned).collect();
        (name.trim_end_matches('`').to_owned(), (kind.to_owned(), names))
    };
    rows.map(|text| row(&text.replace("| |", "|  |"))).collect()
}

fn printed() -> Families {
    let house = House::new("");
    let page = house.serve(&[]).metrics();
    let labels = |name: &str| {
        let own = page.samples.keys().filter_map(|series| series.strip_prefix(name));
        let own = own.filter(|rest| rest.starts_with('{') || rest.starts_with("_bucket{"));
        let names = own.flat_map(|rest| {
            let inner = rest.split_once('{').map_or("", |(_, inner)| inner);
            inner
                .split("\",")
                .filter_map(|label| label.split_once('='))
                .map(|(name, _)| name.to_owned())
                .collect::<Vec<_>>()
        });
        names.filter(|name| name != "le").collect::<BTreeSet<_>>()
    };
    page.families.iter().map(|(name, kind)| (name.clone(), (kind.clone(), labels(name)))).collect()
}

#[test]
fn every_family_has_a_row_and_every_row_a_family() {
    let (documented, printed) = (documented(), printed());
    assert!(printed.len() > 40, "{printed:#?}");
    for (name, family) in &printed {
        assert_eq!(documented.get(name), Some(family), "{name} in docs/operations.md");
    }
    let stray: Vec<_> = documented.keys().filter(|name| !printed.contains_key(*name)).collect();
    assert!(stray.is_empty(), "docs/operations.md has what is not there: {stray:?}");
}

#[test]
fn every_problem_type_is_counted_under_its_name() {
    let house = House::new("");
    let page = house.serve(&[]).metrics();
    let named = |line: &'static str| line.strip_prefix("pub(super) const ")?.split_once("= kind(")?.1.split('"').nth(1);
    let types: Vec<&str> = PROBLEMS.lines().filter_map(named).collect();
    assert!(types.len() >= 22, "{types:?}: is the source still read right?");
    for name in &types {
        page.get(&format!("http_problems_total{{type=\"{name}\"}}"));
    }
    let counted = page.samples.keys().filter(|series| series.contains("http_problems_total")).count();
    assert_eq!(counted, types.len() + 1, "all of them and `other`");
}

#[test]
fn every_threshold_has_a_row_with_its_default() {
    for (key, default) in SLOW {
        assert!(OPERATIONS.contains(&format!("\n| `{key}` | {default} | ")), "{key}");
    }
}

#[test]
fn alerts_name_what_is_there() {
    let printed = printed();
    let (_, rules) = OPERATIONS.split_once("groups:\n").expect("alerts");
    let rules = rules.split("```").next().unwrap_or_default();
    let names: BTreeSet<&str> = rules
        .split(|c: char| !(c.is_ascii_lowercase() || c == '_'))
        .filter(|word| word.starts_with("duragent_"))
        .collect();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        assert!(printed.contains_key(name.trim_end_matches("_bucket")), "{name}");
    }
}
