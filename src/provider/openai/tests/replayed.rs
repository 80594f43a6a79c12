//! What goes back with the next request as it came.

use super::{HELLO, SSE, client, openai};
use crate::provider::http::Timeouts;
use crate::provider::openai::parts::Stream;
use crate::provider::openai::{Dialect, OpenAi};
use crate::provider::stream::Parts;
use crate::provider::testing::{Server, all_cuts, answer, ask, chunked, line, request, simple_request, tool, user};
use crate::provider::{Message, Provider, Request};
use duragent_core::event::FailureKind;
use duragent_core::message::Blocks;
use duragent_core::tool::ToolCall;

/// As recorded from OpenRouter, shortened: comments, reasoning twice, the price in the last chunk.
const ROUTED: &str = concat!(
    ": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n",
    "data: {\"id\":\"gen-1\",\"provider\":\"Anthropic\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"reasoning\":\"Hm, \",\"reasoning_details\":[{\"type\":\"reasoning.text\",\"text\":\"Hm, \",\"format\":\"anthropic-claude-v1\",\"index\":0}]},\"finish_reason\":null}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\",\"reasoning\":\"größe\",\"reasoning_details\":[{\"type\":\"reasoning.text\",\"text\":\"größe\",\"format\":\"anthropic-claude-v1\",\"index\":0}]}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\",\"reasoning\":null,\"reasoning_details\":[{\"type\":\"reasoning.text\",\"signature\":\"c2ln\",\"format\":\"anthropic-claude-v1\",\"index\":0}]}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"toolu_1\",\"type\":\"function\",\"function\":{\"name\":\"bash\",\"arguments\":\"{}\"}}]}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"tool_calls\",\"native_finish_reason\":\"tool_use\"}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":null}],\"usage\":{\"prompt_tokens\":26,\"completion_tokens\":9,\"cost\":0.0001234,\"prompt_tokens_details\":{\"cached_tokens\":20}}}\n\n",
    "data: [DONE]\n\n",
);
const ROUTED_BLOCKS: &str =
    r#"[{"type":"reasoning.text","text":"Hm, größe","format":"anthropic-claude-v1","index":0,"signature":"c2ln"}]"#;

#[test]
fn openrouter_keeps_reasoning_for_the_next_request_and_says_what_it_cost() {
    let client = client();
    for pieces in all_cuts(ROUTED.as_bytes()) {
        let mut stream = Stream::new(&client, Dialect::OpenRouter);
        pieces.iter().try_for_each(|piece| stream.feed(piece, &mut |_| ())).unwrap();
        let reply = stream.into_reply().unwrap();
        assert_eq!(line(&reply), "[Hm, größe] <toolu_1bash{}> 26+9 tool_calls");
        assert_eq!(reply.blocks.as_deref(), Some(ROUTED_BLOCKS));
        assert_eq!((reply.usage.cost_micros, reply.usage.cached_tokens), (124, 20));
    }
    let server = Server::always(chunked(SSE, &[ROUTED]));
    let provider = OpenAi::new(server.client(Timeouts::LOCAL), Dialect::OpenRouter);
    ask(&provider, &replayed(ROUTED_BLOCKS, "tiny")).1.unwrap();
    let body = server.last_body();
    assert!(body.contains(&format!(r#""content":"ok","reasoning_details":{ROUTED_BLOCKS},"tool_calls":"#)), "{body}");
    assert!(body.contains(r#""usage":{"include":true}"#), "{body}");
    for other in
        [provider.body(&replayed(ROUTED_BLOCKS, "other")), openai(&server).body(&replayed(ROUTED_BLOCKS, "tiny"))]
    {
        assert!(!other.contains("reasoning_details"), "{other}");
    }
    for (status, body, kind, what) in [
        (
            402,
            r#"{"error":{"code":402,"message":"Insufficient credits"}}"#,
            FailureKind::Refused,
            "credits; add credit",
        ),
        (
            400,
            r#"{"error":{"code":400,"message":"This endpoint's maximum context length is 8192 tokens. However, you requested about 12000"}}"#,
            FailureKind::TooLong,
            "8192",
        ),
    ] {
        let provider =
            OpenAi::new(Server::always(answer(status, "", body)).client(Timeouts::LOCAL), Dialect::OpenRouter);
        let failure = ask(&provider, &simple_request()).1.unwrap_err();
        assert!(failure.kind == kind && failure.detail.contains(what) && !failure.worked, "{failure:?}");
    }
}

/// A turn in its middle, whose answer by `model` had these blocks.
fn replayed(blocks: &str, model: &str) -> Request {
    let call = ToolCall { call_id: "c1".into(), name: "bash".into(), arguments: "{}".into() };
    let blocks = Blocks { provider: "p".into(), model: model.into(), json: blocks.into() };
    let answer = Message::Assistant {
        content: "ok".into(),
        thinking: Some("hm".into()),
        blocks: Some(blocks),
        tool_calls: vec![call],
    };
    let result = Message::Tool { call_id: "c1".into(), name: "bash".into(), content: "r".into() };
    request(vec![user("a"), answer, result], vec![tool("bash")])
}

#[test]
fn thinking_goes_back_within_its_turn_in_the_field_it_came_in() {
    let came = concat!(
        "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"bash\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n"
    );
    let blocks = |input: &str| {
        let client = client();
        let mut stream = Stream::new(&client, Dialect::Plain);
        stream.feed(input.as_bytes(), &mut |_| ()).unwrap();
        stream.into_reply().unwrap().blocks
    };
    assert_eq!(blocks(came).as_deref(), Some("\"reasoning_content\""));
    assert_eq!(blocks(&came.replace("reasoning_content", "reasoning")), None, "who sends it so refuses it");
    assert_eq!(blocks(HELLO), None, "an answer without calls ends the turn");
    let server = Server::always(Vec::new());
    let within = replayed("\"reasoning_content\"", "tiny");
    assert!(openai(&server).body(&within).contains(r#""content":"ok","reasoning_content":"hm","tool_calls":"#));
    let mut after = within.clone();
    after.messages.push(user("and?"));
    assert!(!openai(&server).body(&after).contains("reasoning_content"));
    assert!(!openai(&server).body(&replayed("\"reasoning_content\"", "other")).contains("reasoning_content"));
}
