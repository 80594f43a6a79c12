"""Gets every answer that docs/openapi.yaml describes, and holds each against its description.

The campaign of schemathesis finds what nobody thought of; this finds what chance does not: an approval that waits, a turn
under way, a damaged log. The last check is that no described answer was left out.

    scenario.py DESCRIPTION URL TOKEN ADMIN_TOKEN
"""

import sys
import time

import requests
import schemathesis

import hooks  # noqa: F401, makes the check known

DESCRIPTION, URL, TOKEN, ADMIN_TOKEN = sys.argv[1:]
PROBLEM = "urn:duragent:problem:"
# Longest wait for something that has to come about; a run that gets here has failed.
PATIENCE_S = 30
# Answers that cannot be had here, with the reason.
OUT_OF_REACH = {
    ("GET", "/readyz", "503"): "lasts for an instant; tests/http has it",
}

schema = schemathesis.openapi.from_path(DESCRIPTION)
seen = set()


def ask(method, path, expected, *, ids=None, query=None, headers=None, body=None, token=TOKEN, kind=None, text=None):
    """One request: `expected` is the status, `kind` the last part of the problem's type."""
    operation = schema[path][method]
    case = operation.Case(path_parameters=ids or {}, query=query or {}, media_type="application/json" if body is not None else None)
    if body is not None:
        case.body = body
    given = {"Authorization": f"Bearer {token}"} if token else {}
    given |= headers or {}
    options = {} if text is None else {"data": text}
    response = case.call(base_url=URL, headers=given, timeout=PATIENCE_S, **options)
    where = f"{method} {path} {ids or ''} {query or ''} {headers or ''} {body if text is None else text[:40]}"
    found = response.status_code
    assert found == expected, f"{where}: expected {expected}, found {found}: {response.text}"
    # Checks of the answer; those of the request are the campaign's.
    case.validate_response(response, checks=CHECKS)
    seen.add((method, path, str(found)))
    if found >= 400 and path != "/readyz":
        problem = response.json()
        assert problem["status"] == found, f"{where}: {problem}"
        assert kind is not None and problem["type"] == PROBLEM + kind, f"{where}: expected {kind}, found {problem}"
    return response


CHECKS = [
    schemathesis.checks.CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "status_is_listed",
    )
]
SESSIONS = "/api/v1/sessions"
SESSION = SESSIONS + "/{id}"
MESSAGES, EVENTS, APPROVALS = SESSION + "/messages", SESSION + "/events", SESSION + "/approvals"
PROMPT = SESSION + "/prompt"
APPROVAL = APPROVALS + "/{approval_id}"
STREAM = {"Accept": "text/event-stream"}


def until(what, condition):
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)
    return found


def status_of(session):
    return ask("GET", SESSION, 200, ids={"id": session}).json()["status"]


def machine():
    for path in ("/livez", "/readyz", "/openapi.yaml"):
        ask("GET", path, 200, token=None)
        ask("GET", path, 406, token=None, headers={"Accept": "image/png"}, kind="not-acceptable")
    for path in ("/version", "/metrics", "/api/v1/agents", SESSIONS):
        ask("GET", path, 200)
        ask("GET", path, 401, token=None, kind="unauthorized")
        ask("GET", path, 401, token="wrong", kind="unauthorized")
        ask("GET", path, 406, headers={"Accept": "image/png"}, kind="not-acceptable")


def heads():
    """To HEAD the same is answered as to GET, less the body."""
    places = {"id": "demo", "name": "assistant"}
    for path, item in schema.raw_schema["paths"].items():
        if "get" in item:
            where = URL + path.format(**places)
            headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "*/*"}
            got = requests.get(where, headers=headers, stream=True, timeout=PATIENCE_S)
            head = requests.head(where, headers=headers, timeout=PATIENCE_S)
            got.close()
            for key in ("Content-Type", "Cache-Control"):
                assert head.headers[key] == got.headers[key], f"HEAD {path}: {head.headers} and {got.headers}"
            assert (head.status_code, head.content) == (got.status_code, b""), f"HEAD {path}: {head.status_code}"
    for path, status in (("/nowhere", 404), (SESSIONS + "/nobody", 404), (SESSIONS + "/demo/cancel", 405)):
        found = requests.head(URL + path, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=PATIENCE_S)
        assert (found.status_code, found.content) == (status, b""), f"HEAD {path}: {found.status_code}"
        assert found.headers["Content-Type"] == "application/problem+json", f"HEAD {path}: {found.headers}"


def transport():
    """Answers under `default`, which any request can get."""
    where = {"ids": {"id": "demo"}}
    ask("GET", SESSIONS, 403, headers={"Host": "evil.example"}, kind="forbidden")
    ask("GET", SESSIONS, 403, headers={"Origin": "http://evil.example"}, kind="forbidden")
    ask("GET", SESSIONS, 414, query={"agent": "x" * 8000}, kind="target-too-long")
    ask("GET", SESSIONS, 417, headers={"Expect": "the-unexpected"}, kind="expectation")
    ask("GET", SESSIONS, 431, headers={"X-Long": "x" * 17000}, kind="head-too-large")
    ask("GET", SESSIONS, 400, headers={"X-Control": "\x01"}, kind="bad-request")
    ask("POST", MESSAGES, 413, **where, text='{"content":"' + "x" * 70000 + '"}', headers=JSON, kind="too-large")


JSON = {"Content-Type": "application/json"}


def agents():
    path = "/api/v1/agents/{name}"
    good = ask("GET", path, 200, ids={"name": "assistant"}).json()
    assert good["spec"]["system_prompt"] == "Work.", good
    assert good["spec"]["labels"] == {'tier "x"': "gold"}, good
    assert good["spec"]["model"]["base_url"] == "http://***@127.0.0.1:9/v1", good
    assert good["spec"]["session"] == {"on_disconnect": "continue", "max_tool_iterations": 7}, good
    assert good["spec"]["sandbox"]["backend"] == "trust", good
    broken = ask("GET", path, 200, ids={"name": "broken"}).json()
    assert "error" in broken and "spec" not in broken, broken
    ask("GET", path, 404, ids={"name": "nobody"}, kind="not-found")


def usage():
    path = "/api/v1/usage"
    told = ask("GET", path, 200, query={"limit": "1"}).json()
    assert told["today"]["requests"] > 0 and told["next"] == told["sessions"][0]["session"], told
    one = ask("GET", path, 200, query={"session": "demo"}).json()
    assert [entry["session"] for entry in one["sessions"]] == ["demo"], one
    ask("GET", path, 400, query={"limit": "0"}, kind="bad-request")
    ask("GET", path, 404, query={"session": "nobody"}, kind="not-found")


def sessions():
    made = ask("POST", SESSIONS, 201, body={"agent": "assistant", "id": "demo", "title": "Looking around"})
    assert made.headers["location"] == [SESSIONS + "/demo"], made.headers
    ask("POST", SESSIONS, 201, body={"agent": "assistant"})
    ask("POST", SESSIONS, 400, body={"agent": "assistant", "id": "No Id"}, kind="invalid")
    ask("POST", SESSIONS, 400, body={"agent": "broken"}, kind="invalid")
    ask("POST", SESSIONS, 400, body={"agnt": "assistant"}, kind="bad-request")
    ask("POST", SESSIONS, 404, body={"agent": "nobody"}, kind="not-found")
    ask("POST", SESSIONS, 409, body={"agent": "assistant", "id": "demo"}, kind="conflict")
    ask("POST", SESSIONS, 415, text="agent=assistant", headers={"Content-Type": "text/plain"}, kind="media-type")
    page = ask("GET", SESSIONS, 200, query={"limit": 1}).json()
    ask("GET", SESSIONS, 200, query={"limit": 1, "after": page["next"]})
    for query in ({"limit": 0}, {"status": "busy"}, {"limit": [1, 2]}):
        ask("GET", SESSIONS, 400, query=query, kind="bad-request")
    for path in (SESSION, MESSAGES, EVENTS, SESSION + "/export", PROMPT, APPROVALS):
        for unknown in ("nobody", "No Id"):
            ask("GET", path, 404, ids={"id": unknown}, kind="not-found")
    ask("GET", SESSION, 200, ids={"id": "demo"})


def messages():
    demo = {"id": "demo"}
    body = {"content": "hello"}
    key = {"Idempotency-Key": "k1"}
    first = ask("POST", MESSAGES, 202, ids=demo, body=body, headers=key).json()
    assert first == ask("POST", MESSAGES, 202, ids=demo, body=body, headers=key).json(), "the same key, two turns"
    ask("POST", MESSAGES, 409, ids=demo, body={"content": "other"}, headers=key, kind="conflict")
    done = ask("POST", MESSAGES, 200, ids=demo, body=body, query={"wait": 30}).json()
    assert (done["reason"], done["reply"]) == ("completed", "It is."), done
    turn = ask("POST", MESSAGES, 200, ids=demo, body=body, headers=STREAM).text
    assert "event: message_received\n" in turn and "event: token\n" in turn and "event: turn_finished\n" in turn, turn
    ask("POST", MESSAGES, 200, ids=demo, body=body | {"steps_max": 1, "source": "bench"}, query={"wait": 30})
    for wrong in ({}, {"content": 1}, {"content": " "}, {"content": "x", "steps_max": 0}, {"content": "x", "source": "A B"}):
        kind = "invalid" if wrong.get("content") == " " or "source" in wrong else "bad-request"
        ask("POST", MESSAGES, 400, ids=demo, body=wrong, kind=kind)
    ask("POST", MESSAGES, 400, ids=demo, body=body, query={"wait": 601}, kind="bad-request")
    ask("POST", MESSAGES, 404, ids={"id": "nobody"}, body=body, kind="not-found")
    ask("POST", MESSAGES, 415, ids=demo, text="hello", headers={"Content-Type": "text/plain"}, kind="media-type")
    ask("GET", MESSAGES, 200, ids=demo)
    ask("GET", SESSION + "/export", 200, ids=demo)
    assert ask("GET", PROMPT, 200, ids=demo).json()["system"], "the assistant has a system prompt"


def events():
    demo = {"id": "demo"}
    page = ask("GET", EVENTS, 200, ids=demo, query={"follow": "false", "limit": 2}).json()
    assert [event["seq"] for event in page["events"]] == [1, 2] and page["next"] == 2, page
    ask("GET", EVENTS, 200, ids=demo, headers={"Accept": "application/json"})
    ask("GET", EVENTS, 400, ids=demo, query={"follow": "maybe"}, kind="bad-request")
    ask("GET", EVENTS, 400, ids=demo, headers={"Last-Event-ID": "x"}, kind="bad-request")
    # A session that is closed says nothing more, but its stream goes on: it is read up to a number of events.
    stream = ask("GET", EVENTS, 200, ids=demo, headers={"Last-Event-ID": "1"}).text
    assert stream.startswith("retry: 1000\n\nid: 2\nevent: message_received\ndata: {\"seq\":2,"), stream


def forks():
    fork, demo = SESSION + "/fork", {"id": "demo"}
    ask("POST", fork, 201, ids=demo)
    ask("POST", fork, 201, ids=demo, body={"seq": 9})
    ask("POST", fork, 400, ids=demo, body={"seq": -1}, kind="bad-request")
    ask("POST", fork, 404, ids={"id": "nobody"}, kind="not-found")
    ask("POST", fork, 415, ids=demo, text="{}", headers={"Content-Type": "text/plain"}, kind="media-type")


def turn_under_way():
    cancel, slow = SESSION + "/cancel", {"id": "slow"}
    ask("POST", SESSIONS, 201, body={"agent": "slow", "id": "slow"})
    ask("POST", cancel, 409, ids=slow, kind="conflict")
    ask("POST", MESSAGES, 202, ids=slow, body={"content": "x"}, query={"wait": 1})
    assert status_of("slow") == "running"
    ask("POST", cancel, 202, ids=slow)
    ask("POST", cancel, 404, ids={"id": "nobody"}, kind="not-found")
    until("the turn ends", lambda: status_of("slow") == "idle")


def approvals():
    asking = {"id": "asking"}
    ask("POST", SESSIONS, 201, body={"agent": "asker", "id": "asking"})
    ask("POST", MESSAGES, 202, ids=asking, body={"content": "x"})
    waiting = until("a call waits", lambda: ask("GET", APPROVALS, 200, ids=asking).json()["approvals"])
    assert status_of("asking") == "waiting"
    one = asking | {"approval_id": waiting[0]["approval_id"]}
    ask("POST", APPROVAL, 400, ids=one, body={"decision": "maybe"}, kind="bad-request")
    ask("POST", APPROVAL, 400, ids=one, body={"decision": "grant", "by": "expiry"}, kind="bad-request")
    ask("POST", APPROVAL, 415, ids=one, text="grant", headers={"Content-Type": "text/plain"}, kind="media-type")
    ask("POST", APPROVAL, 404, ids=asking | {"approval_id": "a9-1-1"}, body={"decision": "grant"}, kind="not-found")
    ask("POST", APPROVAL, 404, ids=one | {"id": "nobody"}, body={"decision": "grant"}, kind="not-found")
    ask("POST", APPROVAL, 200, ids=one, body={"decision": "grant", "scope": "session", "by": "somebody"})
    ask("POST", APPROVAL, 409, ids=one, body={"decision": "deny"}, kind="conflict")
    until("the turn ends", lambda: status_of("asking") == "idle")
    said = ask("GET", MESSAGES, 200, ids=asking).json()["messages"]
    assert [message["role"] for message in said] == ["user", "assistant", "tool", "assistant"], said


def damaged():
    gone = {"id": "damaged"}
    shown = ask("GET", SESSION, 200, ids=gone).json()
    assert shown["status"] == "damaged" and "line" not in shown["detail"] and shown["detail"], shown
    ask("POST", MESSAGES, 409, ids=gone, body={"content": "x"}, kind="damaged")
    ask("DELETE", SESSION, 409, ids=gone, kind="damaged")
    ask("GET", PROMPT, 409, ids=gone, kind="damaged")
    ask("POST", SESSION + "/fork", 409, ids=gone, kind="damaged")
    for path in (MESSAGES, SESSION + "/export", APPROVALS):
        ask("GET", path, 200, ids=gone)


def without_agent():
    """The agent of a session that is there cannot be used any more."""
    lost = {"id": "lost"}
    for path, method in ((SESSION, "DELETE"), (APPROVALS, "GET"), (PROMPT, "GET"), (SESSION + "/cancel", "POST"), (EVENTS, "GET")):
        ask(method, path, 400, ids=lost, kind="invalid")
    ask("POST", MESSAGES, 400, ids=lost, body={"content": "x"}, kind="invalid")


def the_end():
    demo = {"id": "demo"}
    ask("DELETE", SESSION, 200, ids=demo)
    ask("DELETE", SESSION, 409, ids=demo, kind="conflict")
    ask("DELETE", SESSION, 404, ids={"id": "nobody"}, kind="not-found")
    ask("POST", MESSAGES, 409, ids=demo, body={"content": "x"}, kind="conflict")
    reload = "/api/admin/v1/reload"
    ask("POST", reload, 401, token=None, kind="unauthorized")
    ask("POST", reload, 401, kind="unauthorized")
    ask("POST", reload, 200, token=ADMIN_TOKEN)
    with open("policy.yaml", "w") as file:
        file.write("mode: perhaps\n")
    ask("POST", reload, 409, token=ADMIN_TOKEN, kind="configuration")
    ask("POST", "/api/admin/v1/shutdown", 202, token=ADMIN_TOKEN)


def main():
    steps = (machine, agents, sessions, heads, transport, messages, usage, events, forks, turn_under_way, approvals, damaged, without_agent, the_end)
    for step in steps:
        step()
    described = {
        (method.upper(), path, status)
        for path, item in schema.raw_schema["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
        for status in operation["responses"]
        if status != "default"
    }
    left_out = sorted(described - seen - OUT_OF_REACH.keys())
    assert not left_out, f"described, and never answered: {left_out}"
    print(f"{len(seen & described)} answers are as described")


main()
