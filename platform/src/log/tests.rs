use super::*;

const TEXT: Style = Style { json: false, priorities: false, dated: false };
const LINES: Style = Style { json: true, priorities: false, dated: false };

/// The line in JSON form, without the time.
fn in_json(text: &str, fields: &[Field<'_>]) -> String {
    let line = LINES.compose(Level::Warn, text, &[fields]);
    let (at, rest) = line.split_once(",\"level\"").expect("a level");
    assert!(at.starts_with("{\"at\":\"20") && at.ends_with("Z\""), "{at}");
    ["{\"level\"", rest].concat()
}

#[test]
fn both_forms_say_the_same() {
    let fields = [
        ("session", Value::Text("a-1")),
        ("path", Value::Text("/tmp/a b")),
        ("empty", Value::Text("")),
        ("duration_ms", Value::Number(1200)),
    ];
    let text = TEXT.compose(Level::Warn, "slow fsync", &[&fields]);
    assert_eq!(text, "duragent: slow fsync session=a-1 path=\"/tmp/a b\" empty=\"\" duration_ms=1200\n");
    let expected = "{\"level\":\"warn\",\"msg\":\"slow fsync\",\"session\":\"a-1\",\"path\":\"/tmp/a b\",\"empty\":\"\",\"duration_ms\":1200}\n";
    assert_eq!(in_json("slow fsync", &fields), expected);
}

#[test]
fn the_priority_is_what_journald_expects() {
    for (level, priority) in [(Level::Error, "<3>"), (Level::Warn, "<4>"), (Level::Info, "<6>"), (Level::Debug, "<7>")]
    {
        for json in [false, true] {
            let line = Style { json, priorities: true, dated: false }.compose(level, "x", &[]);
            assert!(line.starts_with(&[priority, if json { "{" } else { "duragent: x\n" }].concat()), "{line}");
        }
    }
}

/// Everything that ends a line, moves a cursor or turns the direction of writing.
const EVIL: [&str; 9] = ["\n", "\r", "\u{1b}[2J", "\u{9b}2J", "\u{85}", "\u{2028}", "\u{202e}", "\0", "\u{feff}"];

#[test]
fn nothing_from_outside_begins_a_line() {
    for evil in EVIL {
        let forged = format!("a{evil}duragent: forged");
        // The control: as it stands, it would.
        let plain = ["duragent: ", &forged, "\n"].concat();
        assert!(plain.trim_end_matches('\n').chars().any(|c| c.is_control() || is_invisible(c)));
        for style in [TEXT, LINES] {
            for line in [
                style.compose(Level::Warn, &forged, &[]),
                style.compose(Level::Warn, "x", &[&[("p", Value::Text(&forged))]]),
            ] {
                let body = line.strip_suffix('\n').expect("one line feed at the end");
                assert!(!body.chars().any(|c| c.is_control() || is_invisible(c)), "{line:?}");
                assert!(line.contains("a\\"), "it is shown as an escape: {line:?}");
            }
        }
    }
    let quoted = TEXT.compose(Level::Warn, "x", &[&[("p", Value::Text("a\" b=\"c\\"))]]);
    assert_eq!(quoted, "duragent: x p=\"a\\\" b=\\\"c\\\\\"\n", "a field cannot end early");
}

#[test]
fn the_json_form_is_json_whatever_is_in_it() {
    for evil in EVIL.into_iter().chain(["\"", "\\", "\\u", "é", "\u{1f600}"]) {
        let text = format!("a{evil}b");
        let line = LINES.compose(Level::Info, &text, &[&[("p", Value::Text(&text))]]);
        let value = json::parse(line.trim_end_matches('\n')).unwrap_or_else(|e| panic!("{e}: {line}"));
        for key in ["msg", "p"] {
            assert_eq!(value.get(key), Some(&json::Value::String(text.clone())), "{line}");
        }
    }
}

#[test]
fn a_line_has_an_end() {
    // One character of text, one of which escapes take six bytes, one of four bytes: cut where a character ends.
    for unit in ["x", "\u{1}", "\u{1f600}", "\""] {
        let long = unit.repeat(LINE_BYTES_MAX);
        let names =
            ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t"];
        let fields = names.map(|name| (name, Value::Text(long.as_str())));
        for style in [TEXT, LINES] {
            let line = style.compose(Level::Warn, &long, &[&fields]);
            assert!(line.len() <= LINE_BYTES_MAX && line.contains('…') && line.ends_with('\n'), "{}", line.len());
            if style.json {
                json::parse(line.trim_end_matches('\n')).unwrap_or_else(|e| panic!("{e}: {line}"));
            }
        }
    }
    let short = TEXT.compose(Level::Warn, "x", &[&[("a", Value::Text("y")); 2], &[("a", Value::Text("y"))]]);
    assert_eq!(short, "duragent: x a=y a=y a=y\n", "what fits is not cut");
}

#[test]
fn a_minute_has_so_many_lines_and_the_others_are_counted() {
    let (throttle, start) = (Throttle::new(), Instant::now());
    let max = u64::from(LINES_PER_MINUTE_MAX);
    let admitted = (0..max + 5).filter(|_| throttle.admit(start) == Some(0)).count();
    assert_eq!(admitted as u64, max);
    assert_eq!(throttle.admit(start + Duration::from_secs(59)), None);
    assert_eq!(throttle.admit(start + Duration::from_secs(60)), Some(6), "told with the next line");
    assert_eq!(throttle.admit(start + Duration::from_secs(61)), Some(0), "and only once");
}

#[test]
fn names_are_where_they_say() {
    assert_eq!(Level::NAMES, [0, 1, 2, 3].map(|at| Level::at(at).as_str()));
    assert_eq!(Format::NAMES, [0, 1].map(|at| Format::at(at).as_str()));
}
