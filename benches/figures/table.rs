//! The table that is printed.

use crate::stats::Sample;
use std::fmt::Write;

/// What a figure is held against: at most so much, or at least.
#[derive(Debug, Clone, Copy)]
pub enum Aim {
    /// Lower is better.
    AtMost(f64),
    /// Higher is better.
    AtLeast(f64),
    /// Shown for its own sake; lower is better.
    Shown,
}

/// What a figure is held against that is measured beside that of somebody else.
#[derive(Debug, Clone, Copy)]
pub enum Beside {
    /// At most so many times the other's.
    AtMost(f64),
    /// At least so many times the other's.
    AtLeast(f64),
    /// Shown for its own sake; higher is better.
    More,
    /// Shown for its own sake; lower is better.
    Less,
}

/// What we and somebody else came to, round by round.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// Who it is.
    pub peer: &'static str,
    /// Ours.
    pub ours: Vec<f64>,
    /// Theirs, in the same order.
    pub theirs: Vec<f64>,
}

/// One line.
#[derive(Debug)]
pub struct Row {
    name: String,
    measured: String,
    spread: String,
    aim: String,
    met: &'static str,
    peer: String,
    ratio: String,
}

impl Row {
    /// A figure from one number.
    pub fn one(name: &str, value: f64, unit: &str, aim: Aim) -> Self {
        let (aim, met) = match aim {
            Aim::AtMost(limit) => (format!("≤ {}", with_unit(limit, unit)), verdict(value <= limit)),
            Aim::AtLeast(limit) => (format!("≥ {}", with_unit(limit, unit)), verdict(value >= limit)),
            Aim::Shown => (String::new(), ""),
        };
        let (name, measured) = (name.to_owned(), with_unit(value, unit));
        Self { name, measured, spread: String::new(), aim, met, peer: String::new(), ratio: String::new() }
    }

    /// A figure from several: their median, with the smallest and the largest beside it.
    pub fn median(name: &str, sample: &Sample, unit: &str, aim: Aim) -> Self {
        let (low, high) = sample.range();
        let spread = format!("{}–{}", number(low), number(high));
        Self { spread, ..Self::one(name, sample.median(), unit, aim) }
    }

    /// A figure that could not be had.
    pub fn failed(name: &str, why: &str) -> Self {
        let why = why.replace('|', "\\|").replace('\n', " ");
        Self { measured: format!("not measured: {why}"), met: "no", ..Self::one(name, f64::NAN, "", Aim::Shown) }
    }

    /// A figure beside that of somebody who was measured in the same run, in turns with us: medians, and the median of the
    /// ratios within a round.
    pub fn beside(name: &str, unit: &str, pairs: &Pairs, aim: Beside) -> Self {
        let (ours, theirs) = (Sample::new(pairs.ours.clone()), Sample::new(pairs.theirs.clone()));
        let over = |a: &[f64], b: &[f64]| Sample::new(a.iter().zip(b).map(|(a, b)| a / b)).median();
        let (more, less) = (over(&pairs.ours, &pairs.theirs), over(&pairs.theirs, &pairs.ours));
        let (aim, met, factor) = match aim {
            Beside::AtLeast(limit) => (format!("≥ {} × {}", number(limit), pairs.peer), verdict(more >= limit), more),
            Beside::AtMost(limit) => {
                (format!("≤ {} × {}", number(limit), pairs.peer), verdict(less >= 1.0 / limit), less)
            }
            Beside::More => (String::new(), "", more),
            Beside::Less => (String::new(), "", less),
        };
        let (peer, ratio) = (with_unit(theirs.median(), unit), format!("{} ×", number(factor)));
        Self { aim, met, peer: format!("{}: {peer}", pairs.peer), ratio, ..Self::median(name, &ours, unit, Aim::Shown) }
    }

    /// Adds the spread of a figure that is not a median.
    pub fn spread(self, text: impl Into<String>) -> Self {
        Self { spread: text.into(), ..self }
    }

    /// Adds what others measured of the peer, in the same unit; `value` is ours.
    pub fn peer(self, peer: f64, value: f64, unit: &str) -> Self {
        let factor = if self.aim.starts_with('≥') { value / peer } else { peer / value };
        let ratio = if value == 0.0 { "∞".to_owned() } else { format!("{} ×", number(factor)) };
        Self { peer: with_unit(peer, unit), ratio, ..self }
    }
}

fn verdict(met: bool) -> &'static str {
    if met { "yes" } else { "**no**" }
}

fn with_unit(value: f64, unit: &str) -> String {
    if unit.is_empty() { number(value) } else { format!("{} {unit}", number(value)) }
}

/// Three significant digits, commas between thousands.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "—".to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor();
    if magnitude >= 3.0 {
        return grouped(value.round());
    }
    let decimals = (2.0 - magnitude).clamp(0.0, 6.0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut out = String::from(if value < 0.0 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// All of it.
pub fn markdown(facts: &[String], rows: &[(u32, Row)]) -> String {
    let mut out = String::new();
    for fact in facts {
        writeln!(out, "- {fact}").ok();
    }
    out.push_str("\n| # | figure | measured | min–max | aim | met | peer | better than peer |\n");
    out.push_str("|--:|---|--:|--:|--:|---|--:|--:|\n");
    for (n, row) in rows {
        let Row { name, measured, spread, aim, met, peer, ratio } = row;
        writeln!(out, "| {n} | {name} | {measured} | {spread} | {aim} | {met} | {peer} | {ratio} |").ok();
    }
    out
}
