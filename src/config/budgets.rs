//! Budgets and prices: what turns, sessions and days may use up, and what tokens cost.
//!
//! Money is a decimal number in the file and a whole number of millionths everywhere else, so that sums come out exactly. It
//! is in whatever currency the prices are in; its name is for people.
//!
//! Absent: what was used up (the logs know it), and the decision that something is too much (`core::session`).

use super::problem::Problem;
use super::read::{self, Problems, Section};
use super::types::{Provider, ProviderKind, from_base};
use super::yaml::Kind;
use duragent_core::session::{Budget, Budgets, Price};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

/// Keys of one budget that are whole numbers, with their ranges. There is no 0: what is not to happen at all needs no budget.
const COUNTS: [(&str, RangeInclusive<u64>); 4] = [
    ("requests", 1..=1_000_000_000),
    ("tokens", 1..=1_000_000_000_000),
    ("tool_calls", 1..=1_000_000_000),
    // Thirty years: a session may live long.
    ("seconds", 1..=1_000_000_000),
];
/// Most money, as a budget or for a million tokens, in millionths: a million.
const MONEY_MAX: u64 = 1_000_000_000_000;
/// Longest name of a currency in characters: a column of a table.
const CURRENCY_CHARS_MAX: usize = 8;

/// What tokens cost, by model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prices {
    /// What money is called, if somebody said so.
    pub currency: Option<String>,
    /// `provider/model` or `provider/*`; the first of equal names counts.
    pub table: Vec<(String, Price)>,
}

impl Prices {
    /// What the tokens of a model cost, if that is known: by its own name, else by that of its provider.
    #[must_use]
    pub fn of(&self, provider: &str, model: &str) -> Option<Price> {
        let named = |model: &str| {
            let is = |name: &str| name.strip_prefix(provider).and_then(|rest| rest.strip_prefix('/')) == Some(model);
            self.table.iter().find(|(name, _)| is(name)).map(|(_, price)| *price)
        };
        named(model).or_else(|| named("*"))
    }
}

/// What is known of the price of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// This, by the table; or nothing, since the model runs on this machine.
    Price(Price),
    /// The provider says it with every answer.
    Told,
    /// Nobody knows.
    Unknown,
}

/// Finds the price of `model` at `provider`, which is called `name`; `base_url` is the agent's own endpoint in its place.
#[must_use]
pub fn price(prices: &Prices, name: &str, provider: &Provider, base_url: Option<&str>, model: &str) -> Known {
    if let Some(price) = prices.of(name, model) {
        return Known::Price(price);
    }
    let near = |url: &str| Provider::new(provider.kind, url).is_local();
    match provider.kind {
        ProviderKind::Ollama | ProviderKind::Replay => Known::Price(Price::default()),
        ProviderKind::OpenRouter => Known::Told,
        _ if near(base_url.unwrap_or(&provider.base_url)) => Known::Price(Price::default()),
        _ => Known::Unknown,
    }
}

/// Reads `budgets` of `duragent.yaml` or `spec`; only the workspace has one of a day.
pub(super) fn read(parent: &Section<'_>, with_day: bool) -> Budgets {
    let section = parent.section_or_empty("budgets");
    section.keys(if with_day { &["turn", "session", "day"] } else { &["turn", "session"] }, &[]);
    let day = if with_day { budget(&section, "day") } else { Budget::default() };
    Budgets { turn: budget(&section, "turn"), session: budget(&section, "session"), day }
}

fn budget(parent: &Section<'_>, key: &str) -> Budget {
    let section = parent.section_or_empty(key);
    section.keys(&["requests", "tokens", "tool_calls", "seconds", "money"], &[]);
    let [requests, tokens, tool_calls, seconds] = COUNTS.map(|(key, range)| section.int_opt(key, range));
    let ms = seconds.map(|seconds| seconds.saturating_mul(1000));
    Budget { requests, tokens, tool_calls, ms, cost_micros: money(&section, "money", 1) }
}

/// The smaller of each: what an agent asks for within what the workspace gives.
#[must_use]
pub fn narrower(workspace: &Budgets, agent: &Budgets) -> Budgets {
    let both = |a: &Budget, b: &Budget| {
        let less = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        Budget {
            requests: less(a.requests, b.requests),
            tokens: less(a.tokens, b.tokens),
            tool_calls: less(a.tool_calls, b.tool_calls),
            ms: less(a.ms, b.ms),
            cost_micros: less(a.cost_micros, b.cost_micros),
        }
    };
    Budgets {
        turn: both(&workspace.turn, &agent.turn),
        session: both(&workspace.session, &agent.session),
        day: both(&workspace.day, &agent.day),
    }
}

/// True if any of them is about money: then prices have to be known.
#[must_use]
pub fn about_money(budgets: &Budgets) -> bool {
    [&budgets.turn, &budgets.session, &budgets.day].iter().any(|budget| budget.cost_micros.is_some())
}

/// Reads `prices` and `prices_file`. What is wrong with the file comes back beside it.
pub(super) fn prices(top: &Section<'_>, dir: &Path, providers: &BTreeMap<String, Provider>) -> (Prices, Vec<Problem>) {
    let (mut prices, mut found) = (Prices::default(), Vec::new());
    if let Some(section) = top.section("prices") {
        table(&section, Some(providers), &mut prices);
    }
    let Some(name) = top.text("prices_file") else { return (prices, found) };
    match read::document(&from_base(dir, name), name) {
        Ok((root, document)) => {
            let problems = Problems::new(name, &document);
            table(&Section::top(&root, &problems), None, &mut prices);
            found = problems.finish();
        }
        Err(problem) if problem.line == 0 => top.error("prices_file", &[name, ": ", &problem.message].concat()),
        Err(problem) => found.push(problem),
    }
    (prices, found)
}

/// Reads a table of prices. A file may be shared by many workspaces, so in it providers need not be there.
fn table(section: &Section<'_>, providers: Option<&BTreeMap<String, Provider>>, prices: &mut Prices) {
    for entry in section.entries {
        let key = entry.key.as_str();
        if key == "currency" {
            currency(section, prices);
            continue;
        }
        let wrong = |message: &str| section.problems().error(entry.id, [&section.child(key), ": ", message].concat());
        match key.split_once('/') {
            Some((provider, model)) if !provider.is_empty() && !model.is_empty() => {
                if providers.is_some_and(|known| !known.contains_key(provider)) {
                    wrong(&format!("there is no provider {provider:?}"));
                }
            }
            _ => wrong("expected currency, \"PROVIDER/MODEL\" or \"PROVIDER/*\""),
        }
        if entry.value.kind == Kind::Int(0) {
            prices.table.push((entry.key.clone(), Price::default()));
            continue;
        }
        let one = Section::of(&entry.value, section.child(key), entry.id, section.problems());
        one.keys(&["input", "output", "cached"], &[]);
        let get = |key| money(&one, key, 0);
        for key in ["input", "output"].into_iter().filter(|key| one.get(key).is_none()) {
            one.missing(key, "write what a million of such tokens costs, or 0 in place of all three");
        }
        if let (Some(input), Some(output)) = (get("input"), get("output")) {
            prices.table.push((entry.key.clone(), Price { input, output, cached: get("cached").unwrap_or(input) }));
        }
    }
}

fn currency(section: &Section<'_>, prices: &mut Prices) {
    let Some(text) = section.text("currency") else { return };
    let letters = !text.is_empty() && text.chars().all(|c| c.is_alphabetic() || "$€£¥₹₩₽".contains(c));
    if !letters || text.chars().count() > CURRENCY_CHARS_MAX {
        section.error("currency", &format!("expected a word like USD, found {text:?}"));
    } else if prices.currency.as_deref().is_some_and(|known| known != text) {
        section.error("currency", "prices and prices_file have to be in one currency");
    } else {
        prices.currency = Some(text.to_owned());
    }
}

/// A decimal number with at most six places, in millionths.
fn money(section: &Section<'_>, key: &str, least: u64) -> Option<u64> {
    let text = section.number_text(key)?;
    let value = micros(&text).filter(|value| (least..=MONEY_MAX).contains(value));
    if value.is_none() {
        let range = if least > 0 { "above 0 and up to 1000000" } else { "from 0 to 1000000" };
        section.unexpected(key, &["a decimal number ", range, " with at most 6 places"].concat());
    }
    value
}

/// Reads `12`, `0.5` or `.5` as millionths.
fn micros(text: &str) -> Option<u64> {
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(places) || whole.len() + places.len() == 0 {
        return None;
    }
    // Zeros at the end say nothing.
    let places = places.trim_end_matches('0');
    let scale = 10u64.checked_pow(6u32.checked_sub(u32::try_from(places.len()).ok()?)?)?;
    let number = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u64>().ok() };
    number(whole)?.checked_mul(1_000_000)?.checked_add(number(places)?.checked_mul(scale)?)
}

#[cfg(test)]
mod tests {
    use super::micros;
    use duragent_core::json::write_decimal;

    #[test]
    fn money_is_exact() {
        for (text, expected) in [
            ("0", Some(0)),
            ("5", Some(5_000_000)),
            ("0.1", Some(100_000)),
            (".25", Some(250_000)),
            ("1.", Some(1_000_000)),
            ("0.000001", Some(1)),
            ("1.50000000", Some(1_500_000)),
            ("18446744073709.551615", Some(u64::MAX)),
            ("18446744073709.551616", None),
            ("0.0000001", None),
            ("", None),
            (".", None),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            (".inf", None),
            ("1_000", None),
            ("1,5", None),
        ] {
            assert_eq!(micros(text), expected, "{text}");
            if let Some(value) = expected {
                let mut again = String::new();
                write_decimal(&mut again, value, 6);
                assert_eq!(micros(&again), expected, "{text}");
            }
        }
    }
}
