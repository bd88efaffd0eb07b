"""Threads over HTTP: statuses, shapes, headers."""

from __future__ import annotations

from uuid import uuid4

import pytest

from duragraph.answers import Thread, ThreadList, ThreadsPruned, ThreadStorage
from tests.api.acting import MISSING, Acting


def test_a_threads_life(acting: Acting) -> None:
    made = acting.post("/threads", {"metadata": {"k": 1}, "ttl": {"ttl": 60}})
    assert acting.shape(Thread, made).status == "idle"
    path = f"/threads/{made['thread_id']}"
    assert acting.get(path) == made
    assert acting.shape(Thread, acting.get(path, params={"include": "ttl"})).ttl is not None
    changed = acting.call("PATCH", path, {"metadata": {"more": 2}}).json()
    assert changed["metadata"] == {"k": 1, "more": 2}
    assert changed["updated_at"] > made["updated_at"]
    acting.call("PATCH", path, {"metadata": {}}, 204, headers={"Prefer": "return=minimal"})
    acting.call("DELETE", path, status=204)
    assert acting.refused("GET", path, status=404) == ("thread_not_found", "thread_id")
    assert acting.refused("DELETE", path, status=404) == ("thread_not_found", "thread_id")


def test_no_body_is_an_empty_one(acting: Acting) -> None:
    acting.shape(Thread, acting.post("/threads"))
    acting.shape(Thread, acting.post("/threads", content=b"{}", headers={"content-type": "text/plain"}))


def test_own_ids(acting: Acting) -> None:
    wanted = {"thread_id": str(uuid4()), "metadata": {"n": 1}}
    made = acting.post("/threads", wanted)
    assert acting.refused("POST", "/threads", wanted, 409) == ("thread_exists", "thread_id")
    assert acting.post("/threads", {**wanted, "metadata": {"n": 2}, "if_exists": "do_nothing"}) == made


def test_search_pages_with_headers(acting: Acting) -> None:
    tag = uuid4().hex
    made = [acting.thread(metadata={"tag": tag, "n": n}) for n in range(3)]
    search = {"metadata": {"tag": tag}, "limit": 2, "sort_by": "created_at", "sort_order": "asc"}
    response = acting.call("POST", "/threads/search", search)
    assert [str(one.thread_id) for one in acting.shapes(Thread, response.json())] == made[:2]
    assert (response.headers["x-pagination-total"], response.headers["x-pagination-next"]) == ("3", "2")
    response = acting.call("POST", "/threads/search", {**search, "offset": 2})
    assert [one["thread_id"] for one in response.json()] == made[2:]
    assert "x-pagination-next" not in response.headers
    exposed = response.headers["access-control-expose-headers"]
    assert "x-pagination-total" in exposed
    assert acting.post("/threads/count", {"metadata": {"tag": tag}}) == 3
    picked = acting.post("/threads/search", {"ids": made[:1], "select": ["thread_id"], "extract": {"n": "metadata.n"}})
    assert picked == [{"thread_id": made[0], "extracted": {"n": 0}}]
    listed = acting.shape(ThreadList, acting.get("/threads", params={"limit": 1}))
    assert (len(listed.threads), listed.total >= 3) == (1, True)


def test_values_and_questions_of_a_run(acting: Acting) -> None:
    thread = acting.thread()
    acting.stopped_at(thread, "ask", asks={"question": "sure?"})
    shown = acting.get(f"/threads/{thread}")
    assert acting.shape(Thread, shown).status == "interrupted"
    assert shown["values"] == {"count": 1, "log": ["prepare"]}
    [[asked]] = shown["interrupts"].values()
    assert asked["value"] == {"question": "sure?"}
    copy = acting.post(f"/threads/{thread}/copy")
    assert (acting.shape(Thread, copy).values, copy["interrupts"]) == (shown["values"], shown["interrupts"])


def test_deleting_a_thread_ends_its_run(acting: Acting) -> None:
    worker_id, thread = acting.worker(), acting.thread()
    acting.run(thread)
    claim = acting.claim(worker_id)
    acting.call("DELETE", f"/threads/{thread}", status=204)
    answer = acting.post(f"/workers/{worker_id}/claim", {"max_runs": 0, "wait_seconds": 5, "held": [claim["token"]]})
    assert answer["lost"] == [claim["token"]]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("GET", "", None), ("PATCH", "", {"metadata": {}}), ("DELETE", "", None), ("POST", "/copy", None)],
)
def test_unknown_threads(acting: Acting, method: str, path: str, body: object) -> None:
    assert acting.refused(method, f"/threads/{MISSING}{path}", body, 404) == ("thread_not_found", "thread_id")
    assert acting.refused(method, f"/threads/nobody{path}", body) == ("invalid_uuid", "thread_id")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/threads", {"thread_id": "x"}, "thread_id"),
        ("/threads", {"metadata": [1]}, "metadata"),
        ("/threads", {"metadata": {"a\0b": 1}}, "metadata.<key>"),
        ("/threads", {"ttl": 5}, "ttl"),
        ("/threads", {"ttl": {"ttl": -1}}, "ttl.ttl"),
        ("/threads", {"ttl": {"ttl": 1, "strategy": "burn"}}, "ttl.strategy"),
        ("/threads", {"supersteps": [{"updates": 1}]}, "supersteps.0.updates"),
        ("/threads/search", {"status": "asleep"}, "status"),
        ("/threads/search", {"ids": ["x"]}, "ids.0"),
        ("/threads/search", {"values": 1}, "values"),
        ("/threads/search", {"sort_by": "metadata"}, "sort_by"),
        ("/threads/search", {"extract": {"a": "secrets.b"}}, "extract"),
        ("/threads/search", {"extract": {str(n): "values.a" for n in range(11)}}, "extract"),
        ("/threads/count", {"metadata": 1}, "metadata"),
    ],
)
def test_bad_bodies_name_the_field(acting: Acting, path: str, body: object, field: str) -> None:
    assert acting.refused("POST", path, body)[1] == field


@pytest.mark.parametrize("raw", [b"{nope", b'{"a": ', b"\xff\xfe", b'"text"', b"[1", b'{"metadata": {"a": "\\ud800"}}'])
def test_broken_json(acting: Acting, raw: bytes) -> None:
    acting.call("POST", "/threads", status=422, content=raw)


def test_deep_json(acting: Acting) -> None:
    raw = b'{"metadata": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    acting.call("POST", "/threads", status=422, content=raw)


def test_extract_paths_are_refused_with_nothing_found_too(acting: Acting) -> None:
    asked = {"metadata": {"tag": MISSING}, "extract": {"a": "secrets.b"}}
    assert acting.refused("POST", "/threads/search", asked)[1] == "extract"


def test_pruning(acting: Acting) -> None:
    gone, kept = acting.thread(), acting.thread()
    head = acting.stopped_at(kept, "increment", asks="sure?")
    asked = {"thread_ids": [gone, MISSING]}
    assert acting.shape(ThreadsPruned, acting.post("/threads/prune", asked)).pruned_count == 1
    acting.get(f"/threads/{gone}", status=404)
    asked = {"thread_ids": [kept], "strategy": "keep_latest"}
    assert acting.post("/threads/prune", asked) == {"pruned_count": 1}
    state = acting.get(f"/threads/{kept}/state")
    assert (state["checkpoint_id"], state["interrupts"][0]["value"]) == (head["checkpoint_id"], "sure?")
    for wrong in ({}, {"thread_ids": ["x"]}, {"thread_ids": [kept], "strategy": "forget"}):
        acting.refused("POST", "/threads/prune", wrong)


def test_the_storage_of_a_thread(acting: Acting) -> None:
    thread = acting.thread()
    path = f"/threads/{thread}/storage"
    assert acting.shape(ThreadStorage, acting.get(path)).total_bytes == 0
    acting.stopped_at(thread, "increment")
    assert acting.shape(ThreadStorage, acting.get(path)).channel_values.by_channel["log"].versions == 1
    assert acting.refused("GET", f"/threads/{MISSING}/storage", status=404)[0] == "thread_not_found"
    assert acting.refused("GET", "/threads/x/storage")[0] == "invalid_uuid"


def test_the_metadata_of_a_state_is_merged(acting: Acting) -> None:
    thread = acting.thread(metadata={"a": 1})
    for metadata in ({"b": 2}, {"c": 3}):
        acting.call("PATCH", f"/threads/{thread}/state", {"metadata": metadata}, status=204)
    seen = acting.get(f"/threads/{thread}")
    assert seen["metadata"] == {"a": 1, "b": 2, "c": 3}
    assert seen["config"]["metadata"] == {"b": 2, "c": 3}
    assert acting.refused("PATCH", f"/threads/{thread}/state", {"metadata": 1})[1] == "metadata"
    acting.refused("PATCH", f"/threads/{MISSING}/state", {}, status=404)


def test_the_runs_of_a_thread_that_is_not_there(acting: Acting) -> None:
    assert acting.refused("GET", f"/threads/{MISSING}/runs", status=404)[0] == "thread_not_found"


def test_only_fields_of_a_run_can_be_selected(acting: Acting) -> None:
    thread = acting.thread()
    acting.worker()
    acting.run(thread)
    runs = f"/threads/{thread}/runs"
    assert set(acting.get(runs, params={"select": ["run_id", "status"]})[0]) == {"run_id", "status"}
    assert acting.refused("GET", runs, params={"select": "nope"})[1] == "select"


def test_a_strict_resume_is_refused_when_nothing_waits(acting: Acting) -> None:
    thread = acting.thread()
    acting.worker()
    runs = f"/threads/{thread}/runs"
    asked = {"assistant_id": acting.graph_id, "command": {"resume": 1}, "strict_resume": True}
    for path in (runs, f"{runs}/wait", f"{runs}/stream"):
        assert acting.refused("POST", path, asked, status=409) == ("nothing_to_resume", "command.resume")
    assert acting.get(runs) == []
