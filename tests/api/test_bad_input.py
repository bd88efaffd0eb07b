"""Whatever is sent, the answer is a 4xx with a stable code and the place, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.api.conftest import Serving
from tests.api.scripted import MISSING, Api

TABLES = ("runs", "threads", "ready", "slots", "waiting", "scheduled", "events", "leases", "checkpoints")


def stored(api: Api) -> list[tuple[Any, ...]]:
    counts = ", ".join(f"(select count(*) from duragraph.{table})" for table in TABLES)
    return api.rows(f"select {counts}")


@pytest.fixture
async def place(api: Api) -> str:
    """Where a good body would make a run."""
    await api.worker()
    return f"/threads/{await api.thread()}/runs"


BODIES: list[tuple[str, bytes, str, str | None]] = [
    ("nothing", b"", "invalid_field", "assistant_id"),
    ("no json", b"{nope", "invalid_json", None),
    ("half a body", b'{"assistant_id": "GRAPH"', "invalid_json", None),
    ("an array", b"[]", "invalid_field", None),
    ("a number", b"1", "invalid_field", None),
    ("a NUL byte", b'{"assistant_id": "GRAPH", "input": "\x00"}', "invalid_json", None),
    ("an escaped NUL", b'{"assistant_id": "GRAPH", "input": {"a": [1, "\\u0000"]}}', "invalid_text", "input.a.1"),
    ("a NUL in a key", b'{"assistant_id": "GRAPH", "input": {"\\u0000": 1}}', "invalid_text", "input.<key>"),
    ("a lone surrogate", b'{"assistant_id": "GRAPH", "input": "\\ud800"}', "invalid_text", "input"),
    ("the other half", b'{"assistant_id": "GRAPH", "input": "\\udc00 \\ud83d"}', "invalid_text", "input"),
    ("no utf-8", b'{"assistant_id": "GRAPH", "input": "\xff\xfe"}', "invalid_json", None),
    ("a byte order mark", b'\xef\xbb\xbf{"assistant_id": "GRAPH"}', "invalid_json", None),
    ("nan", b'{"assistant_id": "GRAPH", "input": NaN}', "invalid_value", None),
    ("infinity", b'{"assistant_id": "GRAPH", "input": [-Infinity]}', "invalid_value", None),
    ("too deep", b'{"assistant_id": "GRAPH", "input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json", None),
    ("a number beyond a double", b'{"assistant_id": "GRAPH", "input": [1e400]}', "invalid_value", None),
    ("a number of 400 digits", b'{"assistant_id": "GRAPH", "input": ' + b"9" * 400 + b"}", "invalid_value", None),
    ("a huge number", b'{"assistant_id": "GRAPH", "metadata": {"n": 1e400000}}', "invalid_value", None),
    ("no assistant", b'{"input": 1}', "invalid_field", "assistant_id"),
    ("a wrong type", b'{"assistant_id": 1}', "invalid_field", "assistant_id"),
    ("an empty name", b'{"assistant_id": ""}', "invalid_field", "assistant_id"),
    ("metadata that is no object", b'{"assistant_id": "GRAPH", "metadata": []}', "invalid_field", "metadata"),
    ("a wrong mode", b'{"assistant_id": "GRAPH", "stream_mode": "nope"}', "invalid_field", "stream_mode"),
    ("one wrong mode", b'{"assistant_id": "GRAPH", "stream_mode": ["values", 1]}', "invalid_field", "stream_mode.1"),
    (
        "a wrong strategy",
        b'{"assistant_id": "GRAPH", "multitask_strategy": "x"}',
        "invalid_field",
        "multitask_strategy",
    ),
    ("a negative delay", b'{"assistant_id": "GRAPH", "after_seconds": -1}', "invalid_field", "after_seconds"),
    ("a delay in words", b'{"assistant_id": "GRAPH", "after_seconds": "5"}', "invalid_field", "after_seconds"),
    (
        "a wrong limit",
        b'{"assistant_id": "GRAPH", "config": {"recursion_limit": 0}}',
        "invalid_field",
        "config.recursion_limit",
    ),
    ("a wrong point", b'{"assistant_id": "GRAPH", "checkpoint_id": "x"}', "invalid_field", "checkpoint_id"),
    ("a far priority", b'{"assistant_id": "GRAPH", "priority": 99999}', "invalid_field", "priority"),
]


@pytest.mark.parametrize(("body", "code", "field"), [case[1:] for case in BODIES], ids=[case[0] for case in BODIES])
@pytest.mark.parametrize("ending", ["", "/stream", "/wait"])
async def test_a_bad_body_makes_no_run(
    api: Api, place: str, ending: str, body: bytes, code: str, field: str | None
) -> None:
    before = stored(api)
    content = body.replace(b"GRAPH", api.graph_id.encode())
    assert await api.refused("POST", place + ending, content=content) == (code, field)
    assert stored(api) == before


async def test_escaped_text_that_can_be_stored_is(api: Api, place: str) -> None:
    body = f'{{"assistant_id": "{api.graph_id}", "input": "\\ud83d\\ude00 \\\\u0000 \\u00e9"}}'
    run = await api.call("POST", place, content=body.encode())
    assert run["kwargs"]["input"] == "😀 \\u0000 é"


async def test_unknown_things_are_named(api: Api, place: str) -> None:
    before = stored(api)
    good = {"assistant_id": api.graph_id}
    assert await api.refused("POST", place, {"assistant_id": "no-such"}) == ("graph_not_found", "assistant_id")
    assert await api.refused("POST", place, {"assistant_id": MISSING}, 404) == ("assistant_not_found", "assistant_id")
    assert await api.refused("POST", f"/threads/{MISSING}/runs", good, 404) == ("thread_not_found", "thread_id")
    assert await api.refused("POST", "/threads/x/runs", good) == ("invalid_uuid", "thread_id")
    assert await api.refused("GET", f"{place}/x") == ("invalid_uuid", "run_id")
    assert await api.refused("GET", f"{place}/%00") == ("invalid_uuid", "run_id")
    assert await api.refused("DELETE", f"{place}/{MISSING}", status=404) == ("run_not_found", "run_id")
    assert await api.refused("POST", f"{place}/{MISSING}/cancel", status=404) == ("run_not_found", "run_id")
    assert stored(api) == before


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("offset=-1", "offset"),
        ("select=[1]", "select"),
        ("select=nothing", "select"),
    ],
)
async def test_bad_queries_name_their_parameter(api: Api, place: str, query: str, field: str) -> None:
    assert await api.refused("GET", f"{place}?{query}") == ("invalid_parameter", field)


async def test_a_nul_in_a_query_or_a_name_is_refused(api: Api, place: str) -> None:
    assert (await api.refused("GET", f"{place}?status=%00"))[0] == "invalid_text"
    assert (await api.refused("GET", "/workers/%00"))[0] == "invalid_text"
    assert (await api.refused("POST", "/workers/%00/claim", {}))[0] == "invalid_text"


async def test_unknown_paths_and_methods_are_json_too(api: Api) -> None:
    assert await api.refused("GET", "/no/such/path", status=404) == ("not_found", None)
    assert (await api.refused("PUT", "/runs", {}, 405))[0] == "method_not_allowed"


async def test_json_is_taken_whatever_it_is_called(api: Api, place: str) -> None:
    body = f'{{"assistant_id": "{api.graph_id}"}}'.encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "nonsense"):
        await api.call("POST", place, content=body, headers={"content-type": kind})


async def test_oversized_bodies_are_refused_announced_or_not(serving: Serving, fresh_db: str) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    with serving(max_body_bytes=10_000) as live, httpx.Client(base_url=live.url) as http:
        for path in ("/runs", "/runs/wait", "/runs/batch", "/threads", "/workers"):
            for content in (b"x" * 20_000, pieces()):
                response = http.post(path, content=content)
                assert response.status_code == 413, (path, response.text)
                assert response.json()["code"] == "too_large"
                assert "10000" in response.json()["detail"]
        assert http.post("/threads", content=b"{}" + b" " * 9000).status_code == 200


WRITES: list[tuple[str, str]] = [
    ("[]", "writes"),
    ('{"writes": {}}', "writes"),
    ('{"writes": [1]}', "writes.0"),
    ('{"writes": [{"run_id": "x", "token": 1, "write_no": 1}]}', "writes.0"),
    (f'{{"writes": [{{"run_id": "{MISSING}", "token": "1", "write_no": 1}}]}}', "writes.0"),
    (f'{{"writes": [{{"run_id": "{MISSING}", "token": 1, "write_no": 0}}]}}', "writes.0"),
    (f'{{"writes": [{{"run_id": "{MISSING}", "token": 1, "write_no": 1, "events": {{}}}}]}}', "writes.0"),
    (f'{{"writes": [{{"run_id": "{MISSING}", "token": 1, "write_no": 1, "end": []}}]}}', "writes.0"),
]


@pytest.mark.parametrize(("body", "field"), WRITES)
async def test_what_is_no_write_is_refused_by_its_place(api: Api, body: str, field: str) -> None:
    worker = await api.worker()
    assert await api.refused("POST", f"{worker.path}/writes", content=body.encode()) == ("invalid_field", field)
    assert await api.refused("POST", f"{worker.path}/writes", content=b"{") == ("invalid_json", None)


async def test_writes_of_a_run_that_is_not_held_change_nothing(api: Api) -> None:
    worker = await api.worker()
    before = stored(api)
    write = {"run_id": MISSING, "token": 1, "write_no": 1, "events": [{"event": "custom", "data": 1}]}
    for more in ({}, {"end": {"status": "success"}}):
        [result] = await worker.write({**write, **more})
        assert (result["ok"], result["reason"]) == (False, "lease_lost")
    assert stored(api) == before


@pytest.mark.parametrize(
    "part",
    [
        {"events": [{"event": None, "data": 1}]},
        {"events": [{"event": "values", "checkpoint_id": "x"}]},
        {"events": ["x"]},
        {"checkpoints": [{}]},
        {"checkpoints": [{"checkpoint_id": MISSING, "step": "a", "source": "loop", "channels": {}}]},
        {"checkpoints": [{"checkpoint_id": MISSING, "step": 1, "source": "odd", "channels": {}}]},
        {"checkpoints": [{"checkpoint_id": MISSING, "step": 1, "source": "loop", "channels": []}]},
        {"steps": [{"checkpoint_id": MISSING, "task_id": MISSING, "kind": "odd", "name": "a"}]},
        {"interrupts": [{"checkpoint_id": MISSING}]},
        {"end": {"status": "odd"}},
        {"end": {}, "events": [{"event": "custom", "data": 1}]},
        {"checkpoint_id": "x", "end": {"status": "success"}},
    ],
)
async def test_a_malformed_write_of_a_held_run_leaves_nothing(api: Api, part: dict[str, Any]) -> None:
    worker = await api.worker()
    await api.run(await api.thread())
    work = await worker.claim()
    before = stored(api)
    [result] = await worker.write(work.envelope(**part))
    assert (result["ok"], result["reason"]) == (False, "invalid"), result
    assert stored(api) == before
    assert (await work.end())["ok"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "worker_id"),
        ({"worker_id": ""}, "worker_id"),
        ({"worker_id": "x" * 201}, "worker_id"),
        ({"worker_id": "w", "capacity": 0}, "capacity"),
        ({"worker_id": "w", "lease_seconds": 1.5}, "lease_seconds"),
        ({"worker_id": "w", "graphs": [{}]}, "graphs.0.graph_id"),
        ({"worker_id": "w", "graphs": [{"graph_id": "g", "definition": []}]}, "graphs.0.definition"),
    ],
)
async def test_a_bad_registration_registers_nobody(api: Api, body: object, field: str) -> None:
    before = api.rows("select count(*) from duragraph.workers")
    assert await api.refused("POST", "/workers", body) == ("invalid_field", field)
    assert api.rows("select count(*) from duragraph.workers") == before


async def test_numbers_that_nobody_can_read_are_refused_everywhere(api: Api) -> None:
    worker = await api.worker()
    thread = await api.thread()
    beat = f"/workers/{worker.worker_id}/heartbeat"
    for body in ({"held": [2**63]}, {"held": [-1]}, {"total_runs": 10**30}, {"failed_runs": 10**30}):
        assert await api.refused("POST", beat, body) in (
            ("invalid_field", "held.0"),
            ("invalid_field", "total_runs"),
            ("invalid_field", "failed_runs"),
        )
    for number in (b"1e400", b"NaN", b"9" * 400):
        body = b'{"metadata": {"n": %b}}' % number
        path = f"/threads/{thread}/history"
        assert await api.refused("POST", path, content=body) == ("invalid_value", None)


async def test_a_name_longer_than_an_index_takes_is_refused(api: Api) -> None:
    worker = await api.worker()
    thread = await api.thread()
    await api.run(thread)
    work = await worker.claim()
    name = "".join(str(uuid4()) for _ in range(300))
    await work.step({"n": 1}, end={"status": "success"})
    assert await api.refused("POST", f"/threads/{thread}/state", {"values": {name: 1}}) == ("invalid_value", None)


async def test_null_in_a_config_is_as_if_it_were_not_there(api: Api) -> None:
    worker = await api.worker()
    thread = await api.thread()
    config = {"configurable": None, "metadata": None, "tags": None, "recursion_limit": None}
    made = {"graph_id": api.graph_id, "config": config}
    assistant = (await api.call("POST", "/assistants", made))["assistant_id"]
    for asked in (api.graph_id, assistant):
        for context in ({}, {"context": {"a": 1}}):
            run = await api.run(thread, assistant_id=asked, config=config, **context)
            work = await worker.claim()
            given = work.claim["kwargs"]["config"]["configurable"]
            assert given.pop("langgraph_request_id")
            assert given == context.get("context", {})
            assert (await api.call("GET", f"/threads/{thread}/runs/{run['run_id']}"))["kwargs"]["config"]["metadata"]
            await work.step({"seen": 1}, end={"status": "success"})
    await api.call("PATCH", f"/threads/{thread}/state", {"metadata": {"m": 1}}, 204)
    assert (await api.call("GET", f"/threads/{thread}"))["config"]["metadata"]["m"] == 1


async def test_an_error_never_shows_the_database(api: Api, place: str) -> None:
    response = await api.http.post(place, content=f'{{"assistant_id": "{api.graph_id}", "checkpoint": 5}}')
    assert response.status_code == 422
    assert not any(word in response.text.lower() for word in ("select", "duragraph.", "postgres", "traceback"))
