//! `duragent ls [--json]`

use super::connect::Connection;
use super::{Common, Failure, print, text};
use duragent_core::json::Value;

pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let mut json = false;
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("json") => json = true,
            other => return Err(other.unexpected().into()),
        }
    }
    let dir = common.existing()?;
    let connection = Connection::open(&dir)?;
    let answer = connection.get("/api/v1/agents")?;
    connection.close();
    if json {
        text::put_json(&answer.to_string())?;
        return Ok(0);
    }
    let agents = text::list(&answer, "agents");
    if agents.is_empty() {
        let example = dir.join("agents/assistant/agent.yaml");
        text::say(&format!("no agents yet; make one with: duragent init, or write {}", example.display()));
        return Ok(0);
    }
    let mut table = text::Table::new(&["AGENT", "MODEL", "TOOLS", "DESCRIPTION"]);
    for agent in agents {
        table.row(row(agent));
    }
    print(&table.text(text::width()))
}

fn row(agent: &Value) -> Vec<String> {
    let field = |name| text::field(agent, name);
    match agent.get("error").and_then(Value::as_str) {
        Some(error) => vec![field("name"), "-".into(), "-".into(), format!("broken: {error}")],
        None => {
            let model = format!("{}/{}", field("provider"), field("model"));
            vec![field("name"), model, text::list(agent, "tools").len().to_string(), field("description")]
        }
    }
}
