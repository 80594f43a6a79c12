//! What the first request of the default agent weighs, and that a turn with a tool fits a small window.

use crate::house::{House, items, text};
use crate::model::{Answer, Model};
use duragent_core::json;

/// Most bytes of the first request, head included: on a small board reading the prompt is what people wait for.
const REQUEST_BYTES_MAX: usize = 6000;
/// Bytes of a prompt that are taken for a token: few, to be on the safe side.
const BYTES_PER_TOKEN: usize = 3;
/// The window of a small machine, and what of it is kept for the answer.
const WINDOW_TOKENS: usize = 4096;
const ANSWER_TOKENS: usize = 1024;

#[test]
fn the_first_request_of_the_default_agent_is_small() {
    let model = Model::start(vec![]);
    let house = House::init(&model);
    house.turn("hello");
    let first = model.asked();
    assert!(first.bytes <= REQUEST_BYTES_MAX, "the first request has {} bytes: {}", first.bytes, first.body);
    // Nobody pays for what is not there.
    assert!(!first.body.contains("skill") && !first.body.contains("AGENTS"), "{}", first.body);
    // Every skill is one line, whatever its description says.
    let before = first.body.len();
    let long = format!("---\nname: long\ndescription: {}\n---\n", "word ".repeat(200));
    house.write(".duragent/skills/long/SKILL.md", long);
    house.run(&["run", "assistant", "--session", "t", "hello"]);
    let with_skill = model.asked().body.len() - before;
    assert!(with_skill < 600, "one skill and the tool that reads it cost {with_skill} bytes");
}

#[test]
fn a_whole_turn_with_a_tool_fits_a_window_of_4096_tokens() {
    let read = Answer::Call("read_file", r#"{"path":"long.txt"}"#.to_owned());
    let model = Model::start(vec![read, Answer::Say("It is long.")]);
    let house = House::init(&model);
    house.edit("agents/assistant/agent.yaml", "    temperature:", "    context_tokens: 4096\n    temperature:");
    house.write("long.txt", "A line of a file that is longer than the whole window.\n".repeat(1000));
    house.turn("what is in long.txt?");
    let (first, second) = (model.asked().body, model.asked().body);
    let room = (WINDOW_TOKENS - ANSWER_TOKENS) * BYTES_PER_TOKEN;
    assert!(first.len() <= room / 2, "half of the window is left to the turn: {} of {room} bytes", first.len());
    assert!(second.len() <= room, "the second request has {} bytes, {room} fit", second.len());
    let body = json::parse(&second).expect("JSON");
    assert_eq!(body.get("options").and_then(|o| o.get("num_ctx")).and_then(json::Value::as_u64), Some(4096));
    let result = text(items(&body, "messages").last().expect("a message"), "content");
    assert!(result.starts_with("A line of a file") && result.len() > 500, "some of the file is there: {result}");
    let finished = house.events("turn_finished");
    assert_eq!(text(&finished[0], "reason"), "completed");
}
