use super::super::budgets::{Known, price};
use super::super::{Agent, Workspace};
use super::*;
use duragent_core::session::{Budget, Budgets, Compaction, Price};

const FILE: &str = "agents/a/agent.yaml";

fn agent(provider: &str, more: &str) -> String {
    let head = "apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata: {name: a}\n";
    format!("{head}spec:\n  model: {{provider: {provider}, name: m}}\n{more}")
}

fn load(config: &str, agent: &str, more: &[(&str, &[u8])]) -> (Workspace, Agent) {
    let config = format!("{TRUST}{config}");
    let mut files = vec![("duragent.yaml", config.as_bytes()), (FILE, agent.as_bytes())];
    files.extend(more);
    let folder = Folder::with(&files);
    let mut workspace = Workspace::load(&folder.0, &env, &TOOLS).expect("a workspace");
    let agent = workspace.agents.remove("a").expect("agent a").expect("a usable agent");
    (workspace, agent)
}

#[test]
fn budgets_are_read_and_an_agent_can_only_narrow_them() {
    let config =
        "budgets:\n  turn: {requests: 5, seconds: 60}\n  session: {tokens: 1000, money: 0.50}\n  day: {money: 12}\n";
    let spec = "  budgets:\n    turn: {requests: 9, tool_calls: 3}\n    session: {tokens: 10, money: 0.000001}\n";
    let (workspace, agent) = load(config, &agent("ollama", spec), &[]);
    let budget = Budget::default();
    let day = Budget { cost_micros: Some(12_000_000), ..budget };
    assert_eq!(
        workspace.config.budgets,
        Budgets {
            turn: Budget { requests: Some(5), ms: Some(60_000), ..budget },
            session: Budget { tokens: Some(1000), cost_micros: Some(500_000), ..budget },
            day,
        }
    );
    assert_eq!(
        agent.budgets,
        Budgets {
            turn: Budget { requests: Some(5), ms: Some(60_000), tool_calls: Some(3), ..budget },
            session: Budget { tokens: Some(10), cost_micros: Some(1), ..budget },
            day,
        }
    );
    assert_eq!(load("", &self::agent("ollama", ""), &[]).1.budgets, Budgets::default(), "no limit is the default");
}

#[test]
fn mistakes_in_budgets_have_their_place() {
    let range = "expected a whole number from 1 to 1000000000, found";
    let money = "expected a decimal number above 0 and up to 1000000 with at most 6 places, found";
    let line = |column: u32, rest: &str| format!("duragent.yaml:2:{column}: {rest}");
    for (text, expected) in [
        ("turn: {requests: 0}", line(28, &format!("budgets.turn.requests: {range} 0"))),
        ("day: {seconds: 1.5}", line(26, &format!("budgets.day.seconds: {range} 1.5"))),
        ("day: {money: 0}", line(24, &format!("budgets.day.money: {money} 0"))),
        ("day: {money: 0.0000001}", line(24, &format!("budgets.day.money: {money} 0.0000001"))),
        ("day: {money: -1}", line(24, &format!("budgets.day.money: {money} -1"))),
        ("day: {money: 1e3}", line(24, &format!("budgets.day.money: {money} 1e3"))),
        ("day: {money: 1000000.1}", line(24, &format!("budgets.day.money: {money} 1000000.1"))),
        ("day: {money: '5'}", line(24, &format!("budgets.day.money: {money} \"5\""))),
        ("day: {money: ${SET}}", line(24, &format!("budgets.day.money: {money} another value in the environment"))),
        ("day: {token: 5}", line(17, "unknown key \"token\" in budgets.day (did you mean \"tokens\"?)")),
        ("week: {}", line(11, "unknown key \"week\" in budgets (expected one of turn, session, day)")),
    ] {
        let text = text.replace("${SET}", "'${SET}'");
        after_trust(&[(&format!("budgets: {{{text}}}\n"), &[&expected])]);
    }
    after_trust(&[("budgets: {day: {money: '${NUMBER}'}, turn: , session: {money: 1000000}}\n", &[])]);
    let config = [("duragent.yaml", TRUST.as_bytes())];
    let expected = "agents/a/agent.yaml:6:13: unknown key \"day\" in spec.budgets (expected one of turn, session)";
    table(FILE, &config, &[(&agent("ollama", "  budgets: {day: {requests: 1}}\n"), &[expected])]);
}

#[test]
fn prices_are_found_by_model_then_by_provider_then_in_the_file() {
    let config = "prices:\n  currency: EUR\n  openai/gpt-5: {input: 1.25, output: 10, cached: 0.125}\n  \
                  openrouter/a/b: {input: 1, output: 2}\n  openai/free: 0\nprices_file: costs/prices.yaml\n";
    let file = "currency: EUR\nopenai/*: {input: 2, output: 4}\nopenai/gpt-5: 0\nelsewhere/x: 0\n";
    let (workspace, _) = load(config, &agent("ollama", ""), &[("costs/prices.yaml", file.as_bytes())]);
    let prices = &workspace.config.prices;
    let price_of = |input: u64, output: u64, cached: u64| Some(Price { input, output, cached });
    for (provider, model, expected) in [
        ("openai", "gpt-5", price_of(1_250_000, 10_000_000, 125_000)),
        ("openai", "gpt-5-mini", price_of(2_000_000, 4_000_000, 2_000_000)),
        ("openai", "free", price_of(0, 0, 0)),
        ("openrouter", "a/b", price_of(1_000_000, 2_000_000, 1_000_000)),
        ("openrouter", "a", None),
        ("open", "ai/gpt-5", None),
        ("elsewhere", "x", price_of(0, 0, 0)),
    ] {
        assert_eq!(prices.of(provider, model), expected, "{provider}/{model}");
    }
    assert_eq!(prices.currency.as_deref(), Some("EUR"));
    // A million prompt tokens, a tenth of them from the cache, and ten thousand of an answer.
    let usage = duragent_core::event::Usage {
        input_tokens: 1_000_000,
        output_tokens: 10_000,
        cached_tokens: 100_000,
        cost_micros: 0,
    };
    assert_eq!(prices.of("openai", "gpt-5").map(|p| p.of(&usage)), Some(1_125_000 + 12_500 + 100_000));
}

#[test]
fn mistakes_in_prices_have_their_place() {
    let money = "expected a decimal number from 0 to 1000000 with at most 6 places, found";
    let missing = "write what a million of such tokens costs, or 0 in place of all three";
    after_trust(&[
        (
            "prices: {openai/m: {input: 1}}\n",
            &[&format!("duragent.yaml:2:10: missing key \"output\" in prices.openai/m; {missing}")],
        ),
        (
            "prices: {openai/m: {input: x, output: 1}}\n",
            &[&format!("duragent.yaml:2:28: prices.openai/m.input: {money} \"x\"")],
        ),
        ("prices: {openai/m: 5}\n", &["duragent.yaml:2:20: prices.openai/m: expected a mapping (key: value), found 5"]),
        (
            "prices: {gpt-5: 0}\n",
            &["duragent.yaml:2:10: prices.gpt-5: expected currency, \"PROVIDER/MODEL\" or \"PROVIDER/*\""],
        ),
        ("prices: {openia/x: 0}\n", &["duragent.yaml:2:10: prices.openia/x: there is no provider \"openia\""]),
        (
            "prices: {currency: 'US D'}\n",
            &["duragent.yaml:2:20: prices.currency: expected a word like USD, found \"US D\""],
        ),
        ("prices_file: none.yaml\n", &["duragent.yaml:2:14: prices_file: none.yaml: no such file"]),
    ]);
    let config = |text: &str| format!("{TRUST}{text}");
    let at = |prices: &str, config: &str, expected: &[&str]| {
        table("p.yaml", &[("duragent.yaml", config.as_bytes())], &[(prices, expected)]);
    };
    let named = config("prices_file: p.yaml\n");
    at(
        "openai/m: {inptu: 1, input: 1, output: 2}\n",
        &named,
        &["p.yaml:1:12: unknown key \"inptu\" in openai/m (did you mean \"input\"?)"],
    );
    at("a: [", &named, &["p.yaml:2:1: did not find expected node content, while parsing a flow node"]);
    at(
        "currency: USD\n",
        &config("prices: {currency: EUR}\nprices_file: p.yaml\n"),
        &["p.yaml:1:11: currency: prices and prices_file have to be in one currency"],
    );
}

#[test]
fn money_needs_a_price_unless_the_model_is_near_or_tells_it() {
    let config = "budgets: {day: {money: 5}}\nproviders:\n  near: {kind: openai, base_url: 'http://127.0.0.1:1/v1'}\n  \
                  far: {kind: openai, base_url: 'https://models.example.org/v1'}\n";
    let said = |provider: &str, config: &str, more: &str| {
        let config = format!("{TRUST}{config}");
        let lines = lines(&[("duragent.yaml", config.as_bytes()), (FILE, agent(provider, more).as_bytes())]);
        lines.into_iter().filter(|line| !line.contains(": warning: ")).collect::<Vec<_>>()
    };
    let no_price = |name: &str| {
        let remedy = format!("add it to prices in duragent.yaml, or \"{name}\": 0 there");
        let column = 29 + name.len() - "/m".len();
        vec![format!(
            "agents/a/agent.yaml:5:{column}: spec.model.name: a budget limits money, but there is no price for {name}; {remedy}"
        )]
    };
    let none: Vec<String> = Vec::new();
    assert_eq!(said("far", config, ""), no_price("far/m"));
    assert_eq!(said("openai", config, ""), no_price("openai/m"));
    for free in ["near", "ollama", "openrouter"] {
        assert_eq!(said(free, config, ""), none, "{free}");
    }
    // The remedy, and the same without a budget of money.
    assert_eq!(said("far", &format!("{config}prices: {{far/m: 0}}\n"), ""), none);
    assert_eq!(said("far", &format!("{config}prices: {{'far/*': {{input: 1, output: 1}}}}\n"), ""), none);
    let without = config.replace("money", "requests");
    assert_eq!(said("far", &without, ""), none);
    // So do the models that are asked if the first does not answer.
    let chain = |fallback: &str| {
        let text = agent("ollama", "").replace("name: m}", &format!("name: m, fallback: {fallback}}}"));
        let files = [("duragent.yaml", format!("{TRUST}{config}")), (FILE, text)];
        let lines = lines(&files.each_ref().map(|(name, text)| (*name, text.as_bytes())));
        lines.into_iter().filter(|line| !line.contains(": warning: ")).collect::<Vec<_>>()
    };
    assert_eq!(chain("[{provider: near, name: m}, {provider: openrouter, name: a/b}]"), none);
    let last = chain("[{provider: near, name: m}, {provider: far, name: x}]");
    assert!(matches!(&last[..], [line] if line.contains("there is no price for far/x")), "{last:?}");
    // An agent's own budget asks for prices as well.
    assert_eq!(said("far", &without, "  budgets: {turn: {money: 1}}\n"), no_price("far/m"));
    let (workspace, _) = load(config, &agent("ollama", ""), &[]);
    let of = |name: &str, base_url| {
        let provider = &workspace.config.providers[name];
        price(&workspace.config.prices, name, provider, base_url, "m")
    };
    assert_eq!(of("near", Some("https://models.example.org/v1")), Known::Unknown, "its own endpoint is elsewhere");
    assert_eq!(of("far", Some("http://localhost:1")), Known::Price(Price::default()));
    assert_eq!(of("openrouter", None), Known::Told);
}

#[test]
fn compaction_has_two_words_and_three_of_another_time() {
    let config = [("duragent.yaml", TRUST.as_bytes())];
    let with = |word: &str| agent("ollama", &format!("  session: {{compaction: {word}}}\n"));
    for (word, expected) in [("summary", Compaction::Summary), ("truncate", Compaction::Truncate)] {
        table(FILE, &config, &[(&with(word), &[])]);
        assert_eq!(load("", &with(word), &[]).1.compaction, expected);
    }
    assert_eq!(load("", &agent("ollama", ""), &[]).1.compaction, Compaction::Summary);
    for word in ["discard", "archive", "disabled"] {
        let warning = format!(
            "agents/a/agent.yaml:6:25: warning: spec.session.compaction: {word}: ignored, logs are never cut; there are summary \
             and truncate"
        );
        table(FILE, &config, &[(&with(word), &[&warning])]);
    }
    let error = "agents/a/agent.yaml:6:25: spec.session.compaction: expected summary or truncate, found \"sumary\" (did you \
                 mean \"summary\"?)";
    table(FILE, &config, &[(&with("sumary"), &[error])]);
}

#[test]
fn the_effective_configuration_shows_budgets_and_prices() {
    let config = "budgets: {turn: {requests: 5, seconds: 90}, day: {money: 0.5}}\nprices: {currency: USD, openai/m: {input: 3, output: 15, \
                  cached: 0.3}}\n";
    let config = format!("{TRUST}{config}");
    let spec = agent("openai", "  budgets: {turn: {requests: 2}}\n  session: {compaction: truncate}\n");
    let folder = Folder::with(&[("duragent.yaml", config.as_bytes()), (FILE, spec.as_bytes())]);
    let dump = report(&folder.0).dump.expect("a workspace");
    for text in [
        "budgets:\n  turn:\n    requests: 5\n    seconds: 90\n  day:\n    money: 0.5\n",
        "prices:\n  currency: \"USD\"\n  \"openai/m\": {input: 3, output: 15, cached: 0.3}\n",
        "    compaction: truncate\n  budgets:\n    turn:\n      requests: 2\n      seconds: 90\n  tools:",
        "  call_repeats_max: 5\n  offline_seconds_max: 86400\n",
    ] {
        assert!(dump.contains(text), "{text}\n{dump}");
    }
    let without = Folder::with(&[("duragent.yaml", TRUST.as_bytes())]);
    let dump = report(&without.0).dump.expect("a workspace");
    assert!(!dump.contains("budgets") && !dump.contains("prices"), "{dump}");
}
