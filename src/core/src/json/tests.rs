use super::*;

fn rejects(text: &str, byte: usize, what: &str) {
    let error = parse(text).expect_err(text);
    assert_eq!((error.byte, error.what), (byte, what), "{text}");
}

#[test]
fn text_survives_unchanged() {
    for text in [
        r#"{"a":1,"b":[true,false,null],"c":{"d":"x\ny"},"e":-0.5e+3}"#,
        r#""\"\\\u0000\u001f""#,
        "18446744073709551615",
        r#"["ä","🦀"]"#,
        "[]",
        "{}",
    ] {
        assert_eq!(parse(text).map(|v| v.to_string()).as_deref(), Ok(text));
    }
}

#[test]
fn escapes_are_read() {
    assert_eq!(parse(r#""\u00e4\ud83e\udd80\/\b\f""#), Ok(Value::String("ä🦀/\u{8}\u{c}".into())));
}

#[test]
fn malformed_text_says_where() {
    rejects("", 0, "unexpected end");
    rejects("{\"a\":1,}", 7, "trailing comma");
    rejects("[1 2]", 3, "expected ',' or ']'");
    rejects("{\"a\" 1}", 5, "expected ':'");
    rejects("{\"a\":1,\"a\":2}", 11, "duplicate key");
    rejects("\"\u{1}\"", 1, "control character in a string");
    rejects("\"\\x\"", 2, "unknown escape in a string");
    rejects("\"\\ud800\"", 7, "lone surrogate in a string");
    rejects("\"\\udc00\"", 7, "lone surrogate in a string");
    rejects("\"\\u12\"", 3, "expected four hex digits");
    rejects("\"abc", 4, "string without an end");
    rejects("01", 1, "unexpected text after the value");
    rejects("1.", 2, "expected a digit");
    rejects("nul", 0, "expected a value");
    rejects("{} x", 3, "unexpected text after the value");
}

#[test]
fn depth_is_limited_before_the_stack_is() {
    let nest = |n: usize| "[".repeat(n) + &"]".repeat(n);
    assert!(parse(&nest(DEPTH_MAX)).is_ok());
    rejects(&nest(DEPTH_MAX + 1), DEPTH_MAX + 1, "nested deeper than 128 levels");
    rejects(&"[".repeat(1_000_000), DEPTH_MAX + 1, "nested deeper than 128 levels");
}

#[test]
fn every_truncation_is_an_error_and_none_panics() {
    let text = r#"{"a":[1,-2.5e7,"x\u00e4\\"],"b":{"c":null,"d":true}}"#;
    for end in 0..text.len() {
        assert!(parse(&text[..end]).is_err(), "{}", &text[..end]);
    }
}

#[test]
fn positions_count_lines_and_characters() {
    let text = "{\n  \"ä\": x\n}";
    let error = parse(text).expect_err("x is no value");
    assert_eq!(error.position(text), (2, 8));
}

#[test]
fn writer_writes_what_reader_reads() {
    let mut out = String::new();
    let mut w = ObjectWriter::new(&mut out);
    w.str("s", "a\"b").u64("n", u64::MAX).i64("i", i64::MIN).bool("t", true).str_opt("no", None).raw("r", "[1]");
    w.object("o", |o| {
        o.u64("x", 0);
    });
    w.finish();
    assert_eq!(out, r#"{"s":"a\"b","n":18446744073709551615,"i":-9223372036854775808,"t":true,"r":[1],"o":{"x":0}}"#);
    assert!(parse(&out).is_ok());
}

#[test]
fn runs_of_plain_text_end_where_they_should() {
    for filler in ["a", "\u{7f}", "ä", "🦀", "\u{ff}"] {
        for n in 0..20 {
            let before = filler.repeat(n);
            for (stop, expected) in [("\"", n * filler.len()), ("\\", n * filler.len()), ("\u{1f}", n * filler.len())] {
                let text = [&before, stop, "tail \" tail"].concat();
                assert_eq!(plain_run(text.as_bytes()), expected, "{text:?}");
            }
            assert_eq!(plain_run(before.as_bytes()), before.len());
        }
    }
}

#[test]
fn decimals_have_the_places_they_need() {
    for (n, places, expected) in [
        (0, 6, "0"),
        (1, 6, "0.000001"),
        (100_000, 6, "0.1"),
        (12_000_000, 6, "12"),
        (10_500_010, 6, "10.50001"),
        (1500, 3, "1.5"),
        (u64::MAX, 6, "18446744073709.551615"),
        (7, 0, "7"),
    ] {
        let mut out = String::new();
        write_decimal(&mut out, n, places);
        assert_eq!(out, expected);
    }
}
