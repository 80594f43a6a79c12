"""Anthropic's client against the fake: python client_anthropic.py URL[,URL]"""

import sys

import anthropic
from anthropic.types import RawMessageStreamEvent
from pydantic import TypeAdapter

from common import check, done, known, raises

client = None
EVENT = TypeAdapter(RawMessageStreamEvent)
TOOLS = [
    {
        "name": "bash",
        "description": "Runs a command",
        "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}},
        "cache_control": {"type": "ephemeral"},
    }
]
user = {"role": "user", "content": "hi"}


def options(messages, **more):
    return dict(model="m", max_tokens=4096, messages=messages, tools=TOOLS, **more)


def ask(messages, **more):
    """The whole answer, put together by the client."""
    with client.messages.stream(**options(messages, **more)) as stream:
        return stream.get_final_message()


def scenario(url):
    """All that is asked of one server."""
    global client
    client = anthropic.Anthropic(base_url=url, api_key="key", max_retries=0, timeout=60)
    # Every event is one that the client knows.
    kinds = []
    for event in client.messages.create(**options([user]), stream=True):
        EVENT.validate_python(event.to_dict())
        known(event)
        kinds.append(event.type)
    check(kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"], kinds)

    message = ask([user])
    known(message, ["parsed_output"])
    check(message.content[0].type == "text" and message.content[0].text == "Schöne Grüße 🦀", message)
    check(message.stop_reason == "end_turn", message)
    usage = message.usage
    check((usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (40, 60, 9), usage)

    thinking = {"type": "enabled", "budget_tokens": 1024}
    message = ask([user], thinking=thinking)
    check([b.type for b in message.content] == ["thinking", "redacted_thinking", "text", "tool_use", "tool_use"], message)
    check(message.content[0].thinking == "I should look." and message.content[0].signature, message)
    uses = message.content[3:]
    check([u.input for u in uses] == [{"command": "ls -l"}, {"command": "date"}] and message.stop_reason == "tool_use", uses)
    results = [{"type": "tool_result", "tool_use_id": u.id, "content": "ok"} for u in uses]
    answer = {"role": "assistant", "content": message.content}
    after = ask([user, answer, {"role": "user", "content": results}], thinking=thinking)
    check(after.content[0].text == "Done.", after)

    bad = anthropic.BadRequestError
    changed = [message.content[0].model_copy(update={"thinking": "I should not."}), *message.content[1:]]
    changed = {"role": "assistant", "content": changed}
    raises(bad, "Invalid `signature` in `thinking` block", lambda: ask([user, changed, {"role": "user", "content": results}]))
    raises(bad, "`tool_use` ids were found without `tool_result`", lambda: ask([user, answer, user]))
    warm, old = {"temperature": 0.2}, {"anthropic-version": "2023-06-01"}
    raises(bad, "temperature: Extra inputs", lambda: ask([user], extra_body=warm))
    raises(bad, "`temperature` may only be set to 1", lambda: ask([user], thinking=thinking, extra_body=warm, extra_headers=old))
    unthought = {"role": "assistant", "content": message.content[2:]}
    raises(bad, "must start with a thinking block", lambda: ask([user, unthought, {"role": "user", "content": results}], thinking=thinking))
    error = raises(anthropic.RateLimitError, "rate_limit_error", lambda: ask([user]))
    check(error.response.headers["retry-after"] == "7", error.response.headers)
    raises(anthropic.AuthenticationError, "authentication_error", lambda: ask([user]))
    raises(anthropic.PermissionDeniedError, "permission_error", lambda: ask([user]))
    error = raises(anthropic.APIStatusError, "overloaded_error", lambda: ask([user]))
    check(error.status_code == 529, error)
    raises(anthropic.APIStatusError, "overloaded_error", lambda: ask([user]))


for address in sys.argv[1].split(","):
    scenario(address)
done()
