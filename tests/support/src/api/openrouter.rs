//! OpenRouter's chat completions, streamed: OpenAI's with comments while waiting, `reasoning_details`, prices, and errors of its
//! own (its documentation: "Streaming", "Errors", "Reasoning tokens", "Usage accounting").

use super::{Api, Frame, Part, Refusal, openai, sign};
use crate::answer::{Answer, Fault};
use crate::http::Asked;
use crate::json::{Json, quote};

/// Thinking that only the model's maker can read.
const SECRET: &str = "thought of in secret";

pub(crate) struct OpenRouter;

impl Api for OpenRouter {
    fn base(&self) -> &'static str {
        "/api/v1"
    }

    fn path(&self) -> &'static str {
        "/api/v1/chat/completions"
    }

    fn content_type(&self) -> &'static str {
        "text/event-stream"
    }

    fn headers(&self) -> &'static str {
        "x-generation-id: gen-fake\r\n"
    }

    fn check(&self, _asked: &Asked, body: &Json) -> Result<(), Refusal> {
        openai::check(body)?;
        for (i, message) in body.at("messages").items().iter().enumerate() {
            if let Some(details) = message.get("reasoning_details") {
                check_details(details, i)?;
            }
        }
        Ok(())
    }

    fn frames(&self, answer: &Answer, body: &Json, number: usize) -> Vec<Frame> {
        let say = |part: Part, delta: &str, finish: &str| {
            let choice = format!(
                "{{\"index\":0,\"delta\":{{\"role\":\"assistant\",{delta}}},\"finish_reason\":{finish},\
                 \"native_finish_reason\":{finish},\"logprobs\":null}}"
            );
            Frame::new(part, chunk(body, number, &choice, ""))
        };
        let processing = || Frame::new(Part::Content, ": OPENROUTER PROCESSING");
        let mut frames = vec![processing(), processing()];
        for piece in &answer.thinking {
            let text = quote(piece);
            let details = detail("reasoning.text", &format!("\"text\":{text}"));
            frames.push(say(Part::Content, &format!("\"content\":\"\",\"reasoning\":{text},{details}"), "null"));
        }
        if !answer.thinking.is_empty() {
            let signature = quote(&sign(&answer.thinking.concat()));
            let details = detail("reasoning.text", &format!("\"signature\":{signature}"));
            frames.push(say(Part::Content, &format!("\"content\":\"\",\"reasoning\":null,{details}"), "null"));
        }
        if answer.redacted {
            let details = detail("reasoning.encrypted", &format!("\"data\":{}", quote(&sign(SECRET))));
            frames.push(say(Part::Content, &format!("\"content\":\"\",\"reasoning\":null,{details}"), "null"));
        }
        for piece in &answer.text {
            frames.push(say(Part::Content, &format!("\"content\":{}", quote(piece)), "null"));
            frames.push(processing());
        }
        for delta in openai::calls(answer, number, "toolu_") {
            let delta = delta.trim_start_matches('{').strip_suffix('}').unwrap_or_default();
            frames.push(say(Part::Content, &format!("\"content\":null,{delta}"), "null"));
        }
        frames.push(say(Part::Finish, "\"content\":\"\"", &quote(&openai::finish_reason(answer))));
        if let Some(usage) = answer.usage.filter(|_| !answer.has(&Fault::NoUsage)) {
            let choice = "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null,\
                          \"native_finish_reason\":null,\"logprobs\":null}";
            let rest = format!(
                ",\"usage\":{{\"prompt_tokens\":{},\"completion_tokens\":{},\"total_tokens\":{},\"cost\":{},\"is_byok\":false,\
                 \"prompt_tokens_details\":{{\"cached_tokens\":{}}},\"cost_details\":{{\"upstream_inference_cost\":null}},\
                 \"completion_tokens_details\":{{\"reasoning_tokens\":0}}}}",
                usage.input,
                usage.output,
                usage.input + usage.output,
                // As JavaScript writes such numbers.
                format_args!("0.{:06}", usage.cost_micros),
                usage.cached
            );
            frames.push(Frame::new(Part::Tail, chunk(body, number, choice, &rest)));
        }
        frames.extend(openai::done(answer));
        frames
    }

    fn error(&self, refusal: &Refusal) -> String {
        let Refusal { status, kind, message, .. } = refusal;
        let metadata = if *kind == "provider" { ",\"metadata\":{\"provider_name\":\"Fake\",\"raw\":\"\"}" } else { "" };
        format!(
            "{{\"error\":{{\"message\":{},\"code\":{status}{metadata}}},\"user_id\":\"user_fake\"}}",
            quote(message)
        )
    }

    fn error_in_stream(&self, body: &Json, number: usize) -> Vec<Frame> {
        let choice = "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":\"error\",\
                      \"native_finish_reason\":\"error\",\"logprobs\":null}";
        let error = ",\"error\":{\"code\":502,\"message\":\"Provider disconnected unexpectedly\"}";
        vec![Frame::new(Part::Tail, chunk(body, number, choice, error)), Frame::new(Part::Tail, "data: [DONE]")]
    }

    fn refusal(&self, status: u16) -> Refusal {
        let (kind, message) = match status {
            401 => ("", "User not found."),
            402 => ("", "Insufficient credits. This account never purchased credits."),
            403 => ("", "This model requires moderation, and the input was flagged"),
            404 => ("", "No endpoints found for this model."),
            429 => ("provider", "Provider returned error"),
            500.. => ("provider", "Provider returned error"),
            _ => ("", "Bad request"),
        };
        Refusal { status, kind, ..Refusal::invalid(message) }
    }

    fn too_long(&self, tokens: u64, window: u64) -> Refusal {
        let message = format!(
            "This endpoint's maximum context length is {window} tokens. However, you requested about {tokens} tokens \
             ({tokens} of text input). Please reduce the length of either one."
        );
        Refusal { kind: "", ..Refusal::invalid(message) }
    }
}

fn chunk(body: &Json, number: usize, choices: &str, rest: &str) -> String {
    let model = quote(body.at("model").str().unwrap_or_default());
    format!(
        "data: {{\"id\":\"gen-fake{number}\",\"provider\":\"Fake\",\"model\":{model},\"object\":\"chat.completion.chunk\",\
         \"created\":1795000000,\"choices\":[{choices}]{rest}}}"
    )
}

fn detail(kind: &str, rest: &str) -> String {
    format!("\"reasoning_details\":[{{\"type\":\"{kind}\",{rest},\"format\":\"anthropic-claude-v1\",\"index\":0}}]")
}

/// The maker of the model checks its signatures. Pieces of one detail may come back as they went out, or put together.
fn check_details(details: &Json, message: usize) -> Result<(), Refusal> {
    let mut text = String::new();
    for detail in details.items() {
        text.push_str(detail.at("text").str().unwrap_or_default());
        if let Some(signature) = detail.at("signature").str()
            && signature != sign(&std::mem::take(&mut text))
        {
            return Err(unfit(message, "signature"));
        }
        if detail.at("type").str() == Some("reasoning.encrypted") && detail.at("data").str() != Some(&sign(SECRET)) {
            return Err(unfit(message, "data"));
        }
    }
    if text.is_empty() { Ok(()) } else { Err(unfit(message, "signature")) }
}

fn unfit(message: usize, what: &str) -> Refusal {
    let text = format!("Provider returned error: messages.{message}.content.0: Invalid `{what}` in `thinking` block");
    Refusal { kind: "provider", ..Refusal::invalid(text) }
}
