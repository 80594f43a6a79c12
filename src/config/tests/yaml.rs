use super::super::env::expand;
use super::super::read::suggest;
use super::super::yaml::{DEPTH_MAX, FILE_BYTES_MAX, KEYS_MAX, Kind, parse};
use super::*;

#[test]
fn files_that_are_no_yaml() {
    table(
        "duragent.yaml",
        &[],
        &[
            ("a:\n\tb: x\n", &["duragent.yaml:2:1: found a tab; YAML indents with spaces"]),
            ("a: 'x\nb: y\n", &["duragent.yaml:3:1: found unexpected end of stream, while scanning a quoted scalar"]),
            ("a: b: c\n", &["duragent.yaml:1:5: mapping values are not allowed in this context"]),
            (
                "a: [1, 2\nb: 3\n",
                &["duragent.yaml:2:2: did not find expected ',' or ']', while parsing a flow sequence"],
            ),
            ("a:\n  b: 1\n c: 2\n", &["duragent.yaml:3:2: did not find expected key, while parsing a block mapping"]),
            (
                "a: @x\n",
                &["duragent.yaml:1:4: found character that cannot start any token, while scanning for the next token"],
            ),
            (
                "a: *nope\n",
                &[
                    "duragent.yaml:1:4: an alias (*name) without its anchor (&name); put text that starts with * in quotes",
                ],
            ),
            (
                "a: !tag x\n",
                &["duragent.yaml:1:4: a: tags (!name) are not supported; put text that starts with ! in quotes"],
            ),
            ("? [a]\n: b\n", &["duragent.yaml:1:3: invalid type: sequence, expected a key of plain text"]),
            ("a: 1\n---\nb: 1\n", &["duragent.yaml:2:1: found a second document (---); a file holds one"]),
            ("# c\n---\na: 1\n---\n", &["duragent.yaml:4:1: found a second document (---); a file holds one"]),
            ("a: b\n# ä\u{7f}", &["duragent.yaml:2:4: found the control character U+007F; remove it"]),
            ("a: \u{0}\n", &["duragent.yaml:1:4: found the control character U+0000; remove it"]),
            ("a: &a [*a]\n", &["duragent.yaml:1:4: nested deeper than 128 levels"]),
        ],
    );
    assert_eq!(
        lines(&[("duragent.yaml", b"a: 1\nb: \xc3\xa4\xff\n")]),
        ["duragent.yaml:2:5: not UTF-8: found byte 0xff; save the file as UTF-8"]
    );
}

#[test]
fn files_of_the_wrong_shape() {
    let first = format!("duragent.yaml:1:1: missing key \"sandbox\" at the top level; {WRITE_A_MODE}");
    let second = format!("duragent.yaml:2:1: missing key \"sandbox\" at the top level; {WRITE_A_MODE}");
    table(
        "duragent.yaml",
        &[],
        &[
            ("", &[&first]),
            ("\u{feff}", &[&first]),
            ("# only a comment\n", &[&second]),
            ("- a\n", &["duragent.yaml:1:1: the file: expected a mapping (key: value), found a list"]),
            ("text\n", &["duragent.yaml:1:1: the file: expected a mapping (key: value), found \"text\""]),
            ("1.50\n", &["duragent.yaml:1:1: the file: expected a mapping (key: value), found 1.50"]),
        ],
    );
}

#[test]
fn a_byte_order_mark_and_crlf_shift_nothing() {
    table(
        "duragent.yaml",
        &[],
        &[
            (
                "\u{feff}sandbox: {mode: trust}\r\nserver: {adress: x}\r\n",
                &["duragent.yaml:2:10: unknown key \"adress\" in server (did you mean \"address\"?)"],
            ),
            ("\u{feff}sandbox: {mode: trust}\nlimits: {}\n", &[]),
        ],
    );
}

#[test]
fn limits_of_a_file() {
    let size = |n: usize| {
        let mut text = TRUST.as_bytes().to_vec();
        text.push(b'#');
        text.resize(n, b'x');
        lines(&[("duragent.yaml", &text)])
    };
    let too_large = "duragent.yaml:1:1: the file has 262145 bytes or more, at most 262144 are read";
    assert_eq!(size(300 * 1024), [too_large]);
    assert_eq!(size(FILE_BYTES_MAX + 1), [too_large]);
    assert_eq!(size(FILE_BYTES_MAX), [""; 0]);

    let nested = |n: usize| format!("a: {}{}\n", "[".repeat(n), "]".repeat(n));
    assert!(parse(nested(DEPTH_MAX - 1).as_bytes()).is_ok());
    let deep = format!("duragent.yaml:1:{}: nested deeper than 128 levels", DEPTH_MAX + 3);
    for text in [nested(DEPTH_MAX), format!("a: {}", "[".repeat(1000))] {
        assert_eq!(lines(&[("duragent.yaml", text.as_bytes())]), [deep.as_str()]);
    }
    // What would keep the parser busy for minutes is not given to it.
    let text = format!("a:\n  {}", "[{".repeat(100_000));
    assert_eq!(lines(&[("duragent.yaml", text.as_bytes())]), ["duragent.yaml:2:1027: nested deeper than 128 levels"]);

    let keys = |n: usize| (0..n).map(|i| format!("k{i}: 1\n")).collect::<String>();
    assert!(parse(keys(KEYS_MAX).as_bytes()).is_ok());
    let fault = parse(keys(KEYS_MAX + 1).as_bytes()).expect_err("too many keys");
    assert_eq!(fault.message, "more than 4096 keys in one mapping");
}

#[test]
fn aliases_do_not_multiply_without_end() {
    let mut values = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..12 {
        values.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(",")));
    }
    let bytes = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), ["*a"; 20].join(","));
    for text in [values, bytes] {
        let fault = parse(text.as_bytes()).expect_err("a bomb");
        assert_eq!(fault.message, "too many values once aliases are followed; write less, or without aliases");
    }
    // The control: aliases as such are fine.
    let (root, _) = parse(b"a: &a [1, 2]\nb: *a\n").expect("aliases");
    let Kind::Map(entries) = root.kind else { panic!("expected a mapping") };
    assert_eq!(entries.len(), 2);
}

#[test]
fn no_text_makes_the_reader_panic() {
    let sample = "a: &x [1, {b: 'c', \"d\\n\": *x}]\n? e\n: |\n  f\n  g\n---\n!t h: >-\n  ${i}\n".as_bytes();
    for end in 0..=sample.len() {
        let _ = parse(&sample[..end]);
    }
    for at in 0..sample.len() {
        for byte in
            [0, b'\t', b'\n', b' ', b'"', b'\'', b'&', b'*', b'!', b'[', b']', b'{', b'}', b'-', b':', b'?', 0xff]
        {
            let mut text = sample.to_vec();
            text[at] = byte;
            let _ = parse(&text);
        }
    }
}

#[test]
fn positions_in_block_and_flow_style() {
    let (root, document) = parse("# ä\na:\n  - ö: [x, y]\n    \"b\": 1.50\n".as_bytes()).expect("a document");
    let found: Vec<_> = (0..9).map(|id| document.position(id)).collect();
    // Mapping, a, list, mapping, ö, list, x, y, b.
    let expected = [(2, 1), (2, 1), (3, 3), (3, 5), (3, 5), (3, 8), (3, 9), (3, 12), (4, 5)];
    assert_eq!(found, expected);
    assert_eq!(document.token(document.position(9)), "1.50");
    assert_eq!(root.id, 0);
}

#[test]
fn variables() {
    for (text, expected) in [
        ("plain", Ok(None)),
        ("a $b $", Ok(None)),
        ("${SET}", Ok(Some("value"))),
        ("a${SET}b${NUMBER}", Ok(Some("avalueb7"))),
        ("$$", Ok(Some("$"))),
        ("$${SET}", Ok(Some("${SET}"))),
        ("${UNSET:-x}", Ok(Some("x"))),
        ("${UNSET:-}", Ok(Some(""))),
        ("${EMPTY:-x}", Ok(Some("x"))),
        ("${EMPTY}", Ok(Some(""))),
        ("${SET:-x}", Ok(Some("value"))),
        ("${UNSET:-a:b}", Ok(Some("a:b"))),
        ("${UNSET}", Err("environment variable UNSET is not set; set it, or write ${UNSET:-default}")),
        ("${", Err("${ without a closing }; write $$ for a dollar sign")),
        ("${SET", Err("${ without a closing }; write $$ for a dollar sign")),
        ("${}", Err("${}: expected ${NAME} or ${NAME:-default}, found the name \"\"")),
        ("${A B}", Err("${A B}: expected ${NAME} or ${NAME:-default}, found the name \"A B\"")),
        ("${1}", Err("${1}: expected ${NAME} or ${NAME:-default}, found the name \"1\"")),
        ("${UNSET:-${SET}}", Err("${UNSET:-…}: a default cannot hold another ${")),
    ] {
        let found = expand(text, &env);
        assert_eq!(found, expected.map(|o| o.map(str::to_owned)).map_err(str::to_owned), "{text}");
    }
}

#[test]
fn suggestions() {
    let words = ["address", "body_bytes_max", "mode", "name"];
    for (word, expected) in [
        ("adress", Some("address")),
        ("adres", Some("address")),
        ("adre", None),
        ("body_byte_max", Some("body_bytes_max")),
        ("mod", Some("mode")),
        ("mde", Some("mode")),
        ("m", None),
        ("", None),
        ("completely", None),
    ] {
        assert_eq!(suggest(word, &mut words.into_iter()), expected, "{word}");
    }
    assert_eq!(suggest(&"x".repeat(5000), &mut words.into_iter()), None);
}
