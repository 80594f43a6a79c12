"""OpenAI's client against the fakes of OpenAI and OpenRouter: python client_openai.py URL[,URL] openai|openrouter"""

import sys

import openai
from openai.types.chat import ChatCompletionChunk

from common import check, done, known, raises

which = sys.argv[2]
client = None
ROUTER = ["provider", "native_finish_reason", "reasoning", "reasoning_details", "cost", "is_byok", "cost_details"]
EXTRAS = ROUTER if which == "openrouter" else []
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "bash",
            "description": "Runs a command",
            "parameters": {"type": "object", "properties": {"command": {"type": "string"}}},
        },
    }
]


def stream(messages, **more):
    """The whole answer, put together as the client does it, and its chunks held against the client's own types."""
    options = dict(model="m", messages=messages, tools=TOOLS, stream=True, stream_options={"include_usage": True})
    text, calls, details, finish, usage = "", [], [], None, None
    for chunk in client.chat.completions.create(**options, **more):
        ChatCompletionChunk.model_validate(chunk.to_dict())
        known(chunk, EXTRAS)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
            details += getattr(choice.delta, "reasoning_details", None) or []
            for call in choice.delta.tool_calls or []:
                if call.id:
                    check(call.index == len(calls), "calls come in order")
                    calls.append({"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": ""}})
                check(call.index is not None, "a call has an index")
                calls[call.index]["function"]["arguments"] += call.function.arguments or ""
    message = {"role": "assistant", "content": text or None}
    if calls:
        message["tool_calls"] = calls
    if details:
        message["reasoning_details"] = details
    return message, finish, usage


def scenario(url):
    """All that is asked of one server."""
    global client
    client = openai.OpenAI(base_url=url, api_key="key", max_retries=0, timeout=60)
    user = {"role": "user", "content": "hi"}
    message, finish, usage = stream([user])
    check(message["content"] == "Schöne Grüße 🦀" and finish == "stop", message)
    check((usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details.cached_tokens) == (100, 9, 60), usage)
    if which == "openrouter":
        check(abs(usage.cost - 0.000123) < 1e-9, usage)

    message, finish, _ = stream([user])
    calls = message["tool_calls"]
    check(finish == "tool_calls" and [c["function"]["name"] for c in calls] == ["bash", "bash"], message)
    check([c["function"]["arguments"] for c in calls] == ['{"command":"ls -l"}', '{"command":"date"}'], calls)
    check(calls[0]["id"] != calls[1]["id"], "ids differ")
    results = [{"role": "tool", "tool_call_id": c["id"], "content": "ok"} for c in calls]
    after, finish, _ = stream([user, message, *results])
    check(after["content"] == "Done." and finish == "stop", after)

    # As the client's own helper does it.
    with client.chat.completions.stream(model="m", messages=[user], tools=TOOLS) as helper:
        for _ in helper:
            pass
        whole = helper.get_final_completion()
    check(whole.choices[0].message.tool_calls[0].function.name == "bash", whole)

    raises(openai.BadRequestError, "did not have response messages", lambda: stream([user, message]))
    raises(openai.BadRequestError, "must be a response to a preceeding message", lambda: stream([user, *results]))
    error = raises(openai.RateLimitError, "", lambda: stream([user]))
    check(error.response.headers["retry-after"] == "7", error.response.headers)
    raises(openai.AuthenticationError, "", lambda: stream([user]))
    raises(openai.PermissionDeniedError, "", lambda: stream([user]))
    raises(openai.InternalServerError, "", lambda: stream([user]))
    raises(openai.APIError, "", lambda: stream([user]))
    raises((openai.APIError, openai.APIConnectionError, Exception), "", lambda: stream([user]))


for address in sys.argv[1].split(","):
    scenario(address)
done()
