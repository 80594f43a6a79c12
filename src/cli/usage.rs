//! `duragent usage [SESSION] [--json]`: what was spent today, or by a session, beside the budgets of it.

use super::connect::{Connection, session_id};
use super::{Common, Failure, args, print, text};
use duragent_core::json::Value;

/// What is counted, as budgets call it.
const WORDS: [&str; 5] = ["requests", "tokens", "tool_calls", "seconds", "money"];
/// The same at the head of a column.
const HEADS: [&str; 5] = ["REQUESTS", "TOKENS", "TOOL_CALLS", "SECONDS", "MONEY"];

pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let (mut session, mut json) = (None, false);
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("json") => json = true,
            lexopt::Arg::Value(value) if session.is_none() => session = Some(args::text(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let connection = Connection::open(&common.existing()?)?;
    let usage = match &session {
        Some(session) => {
            let id = session_id(&connection, session)?;
            connection.get(&["/api/v1/usage?session=", &id].concat())?
        }
        None => all(&connection)?,
    };
    connection.close();
    if json {
        text::put_json(&usage.to_string())?;
        return Ok(0);
    }
    let page = Page { usage: &usage, money: knows_money(&usage) };
    let one = session.and_then(|_| text::list(&usage, "sessions").first());
    print(&one.map_or_else(|| page.day(), |entry| page.session(entry)))
}

/// All of it, page by page.
fn all(connection: &Connection) -> Result<Value, Failure> {
    const PATH: &str = "/api/v1/usage?limit=1000";
    let mut usage = connection.get(PATH)?;
    loop {
        let next = text::field(&usage, "next");
        if next.is_empty() {
            return Ok(usage);
        }
        let mut more = connection.get(&[PATH, "&after=", &next].concat())?;
        if let (Some(Value::Array(sessions)), Some(Value::Array(others))) =
            (field_mut(&mut usage, "sessions"), field_mut(&mut more, "sessions"))
        {
            sessions.append(others);
        }
        if let (Some(next), Some(later)) = (field_mut(&mut usage, "next"), field_mut(&mut more, "next")) {
            std::mem::swap(next, later);
        }
    }
}

fn field_mut<'v>(object: &'v mut Value, key: &str) -> Option<&'v mut Value> {
    let Value::Object(fields) = object else { return None };
    fields.iter_mut().find(|(name, _)| name == key).map(|(_, value)| value)
}

/// True if there is any money to speak of.
fn knows_money(usage: &Value) -> bool {
    let spent = |of: &Value, key: &str| of.get(key).is_some_and(|sum| text::field(sum, "money") != "0");
    let limited = |of: &Value| of.get("budget").is_some_and(|budget| budget.get("money").is_some());
    let sessions = text::list(usage, "sessions");
    usage.get("currency").is_some()
        || spent(usage, "today")
        || limited(usage)
        || sessions.iter().any(|entry| spent(entry, "total") || limited(entry))
}

struct Page<'v> {
    usage: &'v Value,
    money: bool,
}

impl Page<'_> {
    /// The day, and who had a part in it.
    fn day(&self) -> String {
        let mut out = ["day ", &text::field(self.usage, "day"), ", until 00:00 UTC\n\n"].concat();
        out.push_str(&self.figures(self.usage, "today"));
        for (head, key) in [("AGENT", "agents"), ("MODEL", "models"), ("SESSION", "sessions")] {
            let rows = text::list(self.usage, key);
            if rows.is_empty() {
                continue;
            }
            let last = (key == "sessions").then_some("LEFT IN ITS LIFE");
            let heads: Vec<&str> = [head].into_iter().chain(self.words(HEADS)).chain(last).collect();
            let mut table = text::Table::new(&heads);
            for row in rows {
                let name = match key {
                    "agents" => text::field(row, "agent"),
                    "models" => [text::field(row, "provider"), text::field(row, "model")].join("/"),
                    _ => text::field(row, "session"),
                };
                let mut cells = vec![name];
                cells.extend(self.words(WORDS).map(|word| self.cell(row, "today", word)));
                cells.extend(last.map(|_| self.left(row)));
                table.row(cells);
            }
            out.push('\n');
            out.push_str(&table.text(text::width()));
        }
        self.explained(self.usage, "today", &mut out);
        out
    }

    /// One session's whole life.
    fn session(&self, entry: &Value) -> String {
        let (session, agent) = (text::field(entry, "session"), text::field(entry, "agent"));
        let mut out = text::clean(&["session ", &session, " of ", &agent, ", all its life\n\n"].concat());
        out.push_str(&self.figures(entry, "total"));
        self.explained(entry, "total", &mut out);
        out
    }

    /// What was used beside what may be.
    fn figures(&self, of: &Value, key: &str) -> String {
        let mut table = text::Table::new(&["", "USED", "BUDGET", "LEFT"]);
        for word in self.words(WORDS) {
            let [budget, left] = ["budget", "left"].map(|key| self.cell(of, key, word));
            table.row(vec![word.to_owned(), self.cell(of, key, word), budget, left]);
        }
        table.text(text::width())
    }

    /// What is left of each, in words.
    fn left(&self, of: &Value) -> String {
        let cells = self.words(WORDS).map(|word| (word, self.cell(of, "left", word)));
        let cells = cells.filter(|(_, cell)| !cell.is_empty());
        cells.map(|(word, cell)| [word, ": ", &cell].concat()).collect::<Vec<_>>().join(", ")
    }

    /// A figure: money with its currency, and marked if part of it is a guess.
    fn cell(&self, of: &Value, key: &str, word: &str) -> String {
        let Some(sum) = of.get(key) else { return String::new() };
        let mut cell = text::field(sum, word);
        if matches!(word, "tokens" | "money") && !matches!(text::field(sum, "estimated").as_str(), "" | "0") {
            cell.insert(0, '~');
        }
        let currency = text::field(self.usage, "currency");
        if word == "money" && !cell.is_empty() && !currency.is_empty() {
            cell.extend([" ", &currency]);
        }
        cell
    }

    fn explained(&self, of: &Value, key: &str, out: &mut String) {
        let estimated = of.get(key).map(|sum| text::field(sum, "estimated")).unwrap_or_default();
        if let Some(n) = estimated.parse().ok().filter(|n| *n > 0) {
            let requests = text::count(n, "request");
            out.extend(["\n~ with ", &requests, " at the worst case, since nobody said what came of it\n"]);
        }
    }

    /// Without money where there is none.
    fn words(&self, words: [&'static str; 5]) -> impl Iterator<Item = &'static str> + use<> {
        words.into_iter().take(if self.money { 5 } else { 4 })
    }
}
