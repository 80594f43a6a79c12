//! Answers that the conversation itself asks for: nothing is remembered, so a turn that is asked again after a crash, from whatever
//! process, goes on where it was.
//!
//! The last message of the user is the script, a line an answer:
//!
//! ```text
//! call write_file {"path":"a.txt","content":"x"}
//! slow 200 say one two three
//! ```
//!
//! Line N answers a request that has N - 1 messages of the assistant after that message. `slow MS` before a line pauses before each
//! piece, `wait MS` before the first. After the last line, and to anything that is no script, the answer is "done".

use crate::answer::{Answer, Fault};
use crate::json::Json;
use std::time::Duration;

/// The answer to a request.
pub(crate) fn answer(body: &Json) -> Answer {
    let messages = body.at("messages").items();
    let role = |message: &Json| message.at("role").str().unwrap_or_default().to_owned();
    let told = messages.iter().rposition(|message| role(message) == "user").unwrap_or(0);
    let answered = messages.iter().skip(told).filter(|message| role(message) == "assistant").count();
    let script = messages.get(told).and_then(|message| message.at("content").str()).unwrap_or_default();
    script.lines().nth(answered).and_then(line).unwrap_or_else(|| Answer::text("done"))
}

/// The answer that a line asks for; none if it is no line of a script.
fn line(text: &str) -> Option<Answer> {
    let (word, rest) = text.trim().split_once(' ')?;
    let timed = |fault: fn(Duration) -> Fault| {
        let (time, rest) = rest.split_once(' ')?;
        Some(line(rest)?.with(fault(Duration::from_millis(time.parse().ok()?))))
    };
    match word {
        "say" => Some(Answer::text(rest)),
        "slow" => timed(Fault::Drip),
        "wait" => timed(Fault::Silence),
        "call" => {
            let (name, arguments) = rest.split_once(' ')?;
            matches!(Json::parse(arguments), Ok(Json::Object(_))).then(|| Answer::call(name, arguments))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_answers_in_its_turn_and_the_request_alone_says_which() {
        let script = "call bash {\\\"command\\\":\\\"ls\\\"}\\nslow 20 wait 30 say a b";
        let user = format!(r#"{{"role":"user","content":"{script}"}}"#);
        let (assistant, tool) = (r#"{"role":"assistant","content":""}"#, r#"{"role":"tool","content":"x"}"#);
        let ask = |messages: &[&str]| {
            answer(&Json::parse(&format!(r#"{{"messages":[{}]}}"#, messages.join(","))).expect("is JSON"))
        };
        let first = ask(&[r#"{"role":"system","content":"say no"}"#, &user]);
        assert_eq!((first.calls.len(), first.calls[0].arguments.as_str()), (1, r#"{"command":"ls"}"#));
        let second = ask(&[&user, assistant, tool]);
        assert_eq!(second.text, ["a ", "b"]);
        let (pause, silence) = (Duration::from_millis(20), Duration::from_millis(30));
        assert_eq!(second.faults, [Fault::Silence(silence), Fault::Drip(pause)]);
        assert_eq!(ask(&[&user, assistant, tool, assistant]).text, ["done"]);
        // An earlier turn's answers count no more.
        assert_eq!(ask(&[&user, assistant, &user]).calls, first.calls);
    }

    #[test]
    fn what_is_no_script_is_answered_too() {
        for content in ["", "hello there", "call bash", "call bash no", "slow x say y"] {
            assert_eq!(line(content).map(|answer| answer.text), None, "{content}");
        }
        assert_eq!(answer(&Json::Null).text, ["done"]);
    }
}
