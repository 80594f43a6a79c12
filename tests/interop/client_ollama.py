"""Ollama's client against the fake: python client_ollama.py URL[,URL]"""

import sys

import ollama

from common import check, done, known, raises

client = None
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
user = {"role": "user", "content": "hi"}


def ask(messages, model="m"):
    """The whole answer: text, thinking, calls, and the last frame."""
    text, thinking, calls, last = "", "", [], None
    for frame in client.chat(model=model, messages=messages, tools=TOOLS, stream=True, keep_alive="10m", options={"num_ctx": 4096}):
        known(frame)
        text += frame.message.content or ""
        thinking += frame.message.thinking or ""
        calls += frame.message.tool_calls or []
        last = frame
    check(last.done, last)
    return text, thinking, calls, last


def scenario(url):
    """All that is asked of one server."""
    global client
    client = ollama.Client(host=url, timeout=60)
    text, thinking, calls, last = ask([user])
    check(text == "Schöne Grüße 🦀" and thinking == "I should look." and not calls, text)
    check((last.prompt_eval_count, last.eval_count, last.done_reason) == (100, 9, "stop"), last)
    for _ in range(2):
        text, thinking, calls, last = ask([user])
        check([c.function.arguments for c in calls] == [{"command": "ls -l"}, {"command": "date"}], calls)
        check(last.done_reason == "stop", last)
    called = {"role": "assistant", "content": text, "thinking": thinking, "tool_calls": calls}
    results = [{"role": "tool", "tool_name": c.function.name, "content": "ok"} for c in calls]
    check(ask([user, called, *results])[0] == "Done.", "the end")

    listed = client.list()
    known(listed)
    check([m.model for m in listed.models] == ["m:latest"], listed)
    shown = client.show("m")
    known(shown)
    check("tools" in shown.capabilities and shown.modelinfo["fake.context_length"] == 40960, shown)
    known(client.ps())
    check([m.model for m in client.ps().models] == ["m:latest"], client.ps())
    loaded = client.generate(model="m")
    known(loaded)
    check(loaded.done and loaded.done_reason == "load", loaded)
    client.generate(model="m", keep_alive=0)
    check(client.ps().models == [], client.ps())

    error = raises(ollama.ResponseError, "not found", lambda: ask([user], model="other"))
    check(error.status_code == 404, error)
    error = raises(ollama.ResponseError, "error parsing tool call", lambda: ask([user]))
    check(error.status_code == 500, error)
    raises(ollama.ResponseError, "error was encountered", lambda: ask([user]))


for address in sys.argv[1].split(","):
    scenario(address)
done()
