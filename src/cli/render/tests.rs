use super::{Piece, Render, Style, call, clean_json, clean_line, summary};
use duragent_core::event::{Body, Event};
use duragent_core::line;

const PROGRAM: Style = Style { live: false, colour: false };
const TERMINAL: Style = Style { live: true, colour: false };

/// Pieces as one text: what is said as it is, asides in angle brackets.
fn text(pieces: Vec<Piece>) -> String {
    pieces
        .into_iter()
        .map(|piece| match piece {
            Piece::Said(text) => text,
            Piece::Aside(text) => format!("<{}>\n", text.trim_end_matches('\n')),
        })
        .collect()
}

/// An event as it stands in a log, less its head.
fn event(rest: &str) -> Event {
    let text = format!("{{\"seq\":9,\"at\":\"2026-11-22T10:00:00.000Z\",{rest}}}");
    line::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A step of a turn: what happens, and what is to be seen then.
enum On<'a> {
    Token(&'a str),
    Thought(&'a str),
    Event(&'a str),
}

fn check(style: Style, steps: &[(On<'_>, &str)]) {
    let mut render = Render::new(style);
    for (n, (on, expected)) in steps.iter().enumerate() {
        let pieces = match on {
            On::Token(text) => render.token(text, false),
            On::Thought(text) => render.token(text, true),
            On::Event(rest) => render.event(&event(rest)),
        };
        assert_eq!(text(pieces), *expected, "step {n}");
    }
}

const ASKED: &str = r#""type":"model_requested","turn":1,"step":1,"attempt":1,"provider":"p","model":"m""#;
const ANSWERED: &str = r#""type":"model_responded","turn":1,"step":1,"text":"Hello.","tool_calls":[{"call_id":"c1","name":"bash","arguments":{"command":"ls"}}],"usage":{"input_tokens":0,"output_tokens":0},"finish_reason":"stop""#;

#[test]
fn tokens_are_shown_once() {
    check(
        TERMINAL,
        &[(On::Event(ASKED), ""), (On::Token("Hel"), "Hel"), (On::Token("lo."), "lo."), (On::Event(ANSWERED), "\n")],
    );
    check(TERMINAL, &[(On::Event(ASKED), ""), (On::Token("Hel"), "Hel"), (On::Event(ANSWERED), "lo.\n")]);
    check(TERMINAL, &[(On::Event(ANSWERED), "Hello.\n")]);
    check(PROGRAM, &[(On::Event(ASKED), ""), (On::Token("Hel"), ""), (On::Event(ANSWERED), "Hello.\n")]);
}

#[test]
fn who_comes_in_late_sees_the_whole_answer() {
    check(TERMINAL, &[(On::Token("lo."), "lo."), (On::Event(ANSWERED), "\nHello.\n")]);
}

#[test]
fn an_answer_that_failed_is_not_taken_for_the_next_one() {
    let failed = r#""type":"model_failed","turn":1,"step":1,"attempt":1,"kind":"truncated","detail":"cut","retry_at":"2026-11-22T10:00:01.500Z""#;
    check(
        TERMINAL,
        &[
            (On::Token("Hel"), "Hel"),
            (On::Event(failed), "\n<[model] cut; asked again in 2 s>\n"),
            (On::Event(ASKED), ""),
            (On::Token("Hel"), "Hel"),
            (On::Event(ANSWERED), "lo.\n"),
        ],
    );
}

#[test]
fn thinking_stands_apart() {
    check(
        TERMINAL,
        &[
            (On::Thought("hm"), "<hm>\n"),
            (On::Thought("m"), "<m>\n"),
            (On::Token("Hello."), "\nHello."),
            (On::Event(ANSWERED), "\n"),
        ],
    );
}

#[test]
fn calls_and_results_are_asides() {
    let started = r#""type":"tool_started","call_id":"c1","name":"bash","arguments":{"command":"ls\n-l"},"effect":"once","sandbox":{"backend":"trust","enforcement":"none"}"#;
    let finished =
        r#""type":"tool_finished","call_id":"c1","result":"x","exit_code":2,"truncated":true,"duration_ms":12"#;
    let denied = r#""type":"tool_finished","call_id":"c1","result":"x","denied":{"kind":"policy","what":"bash:ls","hint":"h"},"truncated":false,"duration_ms":0"#;
    let interrupted = r#""type":"tool_interrupted","call_id":"c9","reason":"crash""#;
    check(
        PROGRAM,
        &[
            (On::Event(ANSWERED), "Hello.\n"),
            (On::Event(started), "<[bash] ls\\n-l>\n"),
            (On::Event(finished), "<[bash] exit 2, 12 ms, output cut>\n"),
            (On::Event(denied), "<[tool] denied (policy): bash:ls, 0 ms>\n"),
            (On::Event(interrupted), "<[tool] interrupted (crash), outcome unknown; it is not run again>\n"),
        ],
    );
}

#[test]
fn what_happens_to_the_session_is_said() {
    for (rest, expected) in [
        (
            r#""type":"session_recovered","reason":"unfinished_turn","dropped_bytes":7,"turn":3,"crashes":1"#,
            "<[session] recovered (unfinished_turn), turn 3 goes on, 7 bytes cut off>\n",
        ),
        (r#""type":"session_paused","reason":"shutdown""#, "<[session] paused (shutdown)>\n"),
        (r#""type":"session_resumed","reason":"opened""#, "<[session] goes on (opened)>\n"),
        (r#""type":"session_closed","reason":"closed by cli""#, "<[session] closed by cli>\n"),
        (
            r#""type":"session_compacted","through_seq":4,"summary":"s""#,
            "<[session] the model sees a summary of everything up to 4 from here on>\n",
        ),
        (
            r#""type":"approval_decided","approval_id":"a1","decision":"deny","scope":"once","by":"http""#,
            "<[approval] denied (once) by http>\n",
        ),
        (r#""type":"turn_started","turn":1"#, ""),
        (r#""type":"from_the_future","x":1"#, ""),
    ] {
        check(PROGRAM, &[(On::Event(rest), expected)]);
    }
}

/// What a hostile model, tool or client could say: titles, colours, cursor movement in 7 and 8 bits, overwriting, and text
/// that reads differently from what it is.
const HOSTILE: &str = "a\u{1b}]0;t\u{7}\u{1b}[2Jb\u{9b}31m\rc\u{8}d\u{202e}e\u{2066}f";

fn hostile_pieces(style: Style) -> String {
    let mut render = Render::new(style);
    let mut all = render.token(HOSTILE, false);
    all.extend(render.token(HOSTILE, true));
    all.extend(render.message(HOSTILE, HOSTILE));
    all.extend(render.reply(HOSTILE));
    all.extend(render.note(HOSTILE));
    let mut quoted = String::new();
    duragent_core::json::write_string(&mut quoted, HOSTILE);
    for rest in [
        r#""type":"model_responded","turn":1,"step":1,"text":H,"tool_calls":[{"call_id":"c1","name":H,"arguments":{}}],"usage":{"input_tokens":0,"output_tokens":0},"finish_reason":"stop""#,
        r#""type":"tool_started","call_id":"c1","name":H,"arguments":{"command":H},"effect":"once","sandbox":{"backend":"t","enforcement":"none"}"#,
        r#""type":"tool_finished","call_id":"c1","result":H,"denied":{"kind":"fs","what":H,"hint":H},"truncated":false,"duration_ms":0"#,
        r#""type":"tool_interrupted","call_id":"c1","reason":H"#,
        r#""type":"model_failed","turn":1,"step":1,"attempt":1,"kind":"connect","detail":H"#,
        r#""type":"session_closed","reason":H"#,
        r#""type":"approval_decided","approval_id":"a","decision":"deny","scope":"once","by":H"#,
    ] {
        all.extend(render.event(&event(&rest.replace(":H", &format!(":{quoted}")))));
    }
    text(all)
}

#[test]
fn nothing_hostile_reaches_a_terminal() {
    let dangerous = |text: &str| text.chars().filter(|c| super::is_unsafe(*c)).count();
    assert!(dangerous(HOSTILE) >= 8, "the control: it is hostile");
    assert!(dangerous(&hostile_pieces(PROGRAM)) > 0, "the control: programs get what was said");
    assert_eq!(dangerous(&hostile_pieces(TERMINAL)), 0);
    assert_eq!(dangerous(&clean_json(HOSTILE)), 0);
    assert_eq!(dangerous(&call(HOSTILE, HOSTILE)), 0);
    assert_eq!(dangerous(&summary(HOSTILE, 100)), 0);
}

#[test]
fn asides_are_clean_whoever_reads_them() {
    let mut render = Render::new(PROGRAM);
    assert_eq!(text(render.note("a\u{1b}b")), "<a\u{fffd}b>\n");
}

#[test]
fn colour_is_only_there_if_wanted() {
    let mut render = Render::new(Style { live: true, colour: true });
    assert_eq!(render.note("x"), [Piece::Aside("\u{1b}[2mx\u{1b}[0m\n".into())]);
    let mut render = Render::new(TERMINAL);
    assert_eq!(render.note("x"), [Piece::Aside("x\n".into())]);
}

#[test]
fn json_stays_the_same_json() {
    let json = "{\"a\":\"\u{9b}\u{202e}\"}";
    let clean = clean_json(json);
    assert_eq!(clean, "{\"a\":\"\\u009b\\u202e\"}");
    assert_eq!(duragent_core::json::parse(&clean), duragent_core::json::parse(json));
}

#[test]
fn approvals_show_the_whole_call() {
    for (arguments, expected) in [
        (r#"{"command":"rm -rf x"}"#, "bash: rm -rf x"),
        (r#"{"command":"ls\nrm -rf x"}"#, "bash: ls\\nrm -rf x"),
        (r#"{"command":"ls","timeout_seconds":9}"#, r#"bash: {"command":"ls","timeout_seconds":9}"#),
        (r#"{"other":"ls"}"#, r#"bash: {"other":"ls"}"#),
        (r#""not an object""#, r#"bash: "not an object""#),
    ] {
        assert_eq!(call("bash", arguments), expected);
    }
    let long = format!("{{\"command\":\"{}rm\"}}", " ".repeat(5000));
    assert!(call("bash", &long).ends_with("… (1002 more)"), "what is not shown is said to be there");
}

#[test]
fn summaries_say_the_telling_argument() {
    assert_eq!(summary(r#"{"path":"a","limit":3}"#, 100), "a");
    assert_eq!(summary(r#"{"x":1}"#, 100), r#"{"x":1}"#);
    assert_eq!(summary(r#"{"command":"abcdef"}"#, 3), "abc… (3 more)");
    assert_eq!(clean_line("a\tb\nc", 9), "a b\\nc");
}

#[test]
fn the_prompt_is_on_a_line_of_its_own() {
    let mut render = Render::new(TERMINAL);
    assert_eq!(text(render.ask("> ")), "<> >\n");
    assert_eq!(text(render.note("x")), "\n<x>\n", "the prompt was left standing");
    render.ask("> ");
    render.entered();
    assert_eq!(text(render.note("x")), "<x>\n", "return was pressed");
    let body = Body::TurnStarted { turn: 1 };
    assert_eq!(render.event(&Event { seq: 1, at_ms: 0, body }), []);
}
