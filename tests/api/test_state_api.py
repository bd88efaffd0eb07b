"""State over HTTP: statuses, shapes, every form of a checkpoint."""

from __future__ import annotations

from typing import Any

import pytest

from duragraph.answers import StateUpdated, ThreadState
from tests.api.acting import MISSING, Acting


def test_a_new_thread(acting: Acting) -> None:
    thread = acting.thread()
    state = acting.get(f"/threads/{thread}/state")
    acting.shape(ThreadState, state)
    assert (state["values"], state["next"], state["tasks"], state["checkpoint"]) == ({}, [], [], None)
    assert acting.post(f"/threads/{thread}/history", {}) == acting.get(f"/threads/{thread}/history") == []


@pytest.fixture
def stopped(acting: Acting) -> tuple[str, dict[str, Any]]:
    """A thread that a run left with `finish` next, and its checkpoint."""
    thread = acting.thread()
    return thread, acting.stopped_at(thread, "finish")


def test_the_state_of_a_run(acting: Acting, stopped: tuple[str, dict[str, Any]]) -> None:
    thread, checkpoint = stopped
    base = f"/threads/{thread}"
    state = acting.get(f"{base}/state")
    acting.shape(ThreadState, state)
    assert (state["values"], state["next"]) == ({"count": 1, "log": ["prepare"]}, ["finish"])
    assert state["checkpoint"]["checkpoint_id"] == checkpoint["checkpoint_id"]
    assert acting.get(f"{base}/state/{checkpoint['checkpoint_id']}", params={"subgraphs": "true"}) == state
    for point in (state["checkpoint"], {"configurable": state["checkpoint"]}):
        assert acting.post(f"{base}/state/checkpoint", {"checkpoint": point}) == state
    assert acting.get(f"{base}/state/{MISSING}")["values"] == {}
    assert acting.get(f"{base}/state", params={"checkpoint_ns": "child:1"})["values"] == {}


def test_parts_of_a_state(acting: Acting, stopped: tuple[str, dict[str, Any]]) -> None:
    thread, checkpoint = stopped
    base, wanted = f"/threads/{thread}", {"values": {"count": 1}, "next": ["finish"]}
    repeated = {"select": ["values.count", "next"]}
    for path in ("state", f"state/{checkpoint['checkpoint_id']}"):
        assert acting.get(f"{base}/{path}", params=repeated) == wanted
        assert acting.get(f"{base}/{path}", params={"select": "values.count,next"}) == wanted
    point = {"checkpoint": {"checkpoint_id": checkpoint["checkpoint_id"]}, **repeated}
    assert acting.post(f"{base}/state/checkpoint", point) == wanted
    assert acting.post(f"{base}/history", repeated) == acting.get(f"{base}/history", params=repeated) == [wanted]
    assert acting.refused("GET", f"{base}/state", params={"select": "all"}) == ("unknown_field", "select")


def test_an_update_and_a_fork(acting: Acting, stopped: tuple[str, dict[str, Any]]) -> None:
    thread, checkpoint = stopped
    base = f"/threads/{thread}"
    given = acting.post(f"{base}/state", {"values": {"count": 2, "log": ["by hand"]}})
    acting.shape(StateUpdated, given)
    state = acting.get(f"{base}/state")
    assert state["values"] == {"count": 3, "log": ["prepare", "by hand"]}
    assert state["checkpoint"] == given["checkpoint"] == given["configurable"]
    forks = (
        {"checkpoint": {"checkpoint_id": checkpoint["checkpoint_id"]}},
        {"checkpoint_id": checkpoint["checkpoint_id"]},
    )
    for fork in forks:
        acting.post(f"{base}/state", {"values": {"count": 5}, **fork})
        assert acting.get(f"{base}/state")["values"] == {"count": 6, "log": ["prepare"]}
    acting.post(f"{base}/state", {"values": None, "as_node": "__end__"})
    assert acting.get(base)["status"] == "idle"
    states = acting.shapes(ThreadState, acting.post(f"{base}/history", {"limit": 50}))
    assert len(states) == 5


def test_history_pages(acting: Acting, stopped: tuple[str, dict[str, Any]]) -> None:
    thread, checkpoint = stopped
    base = f"/threads/{thread}"
    for n in range(3):
        acting.post(f"{base}/state", {"values": {"count": n}})
    states = acting.post(f"{base}/history", {"limit": 10})
    assert len(states) == 4
    assert acting.post(f"{base}/history", {}) == acting.get(f"{base}/history") == states[:1]
    assert acting.get(f"{base}/history", params={"limit": 2}) == states[:2]
    mark = states[1]["checkpoint"]
    for before in (mark, mark["checkpoint_id"], {"configurable": mark}):
        assert acting.post(f"{base}/history", {"limit": 10, "before": before}) == states[2:]
    assert acting.get(f"{base}/history", params={"limit": 10, "before": mark["checkpoint_id"]}) == states[2:]
    found = acting.post(f"{base}/history", {"limit": 10, "metadata": {"source": "loop"}})
    assert [one["checkpoint_id"] for one in found] == [checkpoint["checkpoint_id"]]


def test_a_busy_thread_cannot_be_changed(acting: Acting) -> None:
    acting.worker()
    thread = acting.thread()
    acting.run(thread)
    assert acting.refused("POST", f"/threads/{thread}/state", {"values": {"count": 1}}, 409)[0] == "thread_busy"
    acting.call("DELETE", f"/threads/{thread}", status=204)


def test_what_an_update_may_not_be(acting: Acting, stopped: tuple[str, dict[str, Any]]) -> None:
    path = f"/threads/{stopped[0]}/state"
    assert acting.refused("POST", path, {"values": {}, "as_node": "nowhere"}, 400) == ("unknown_node", "as_node")
    assert acting.refused("POST", path, {"values": {"count": "x"}}) == ("invalid_type", "values.count")
    assert acting.refused("POST", path, {"values": {}, "checkpoint_id": MISSING}, 404)[0] == "checkpoint_not_found"
    fresh = acting.thread()
    assert acting.refused("POST", f"/threads/{fresh}/state", {"values": {}}, 400)[0] == "thread_without_graph"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/state", None),
        ("GET", f"/state/{MISSING}", None),
        ("POST", "/state/checkpoint", {"checkpoint": {}}),
        ("POST", "/state", {"values": {}}),
        ("GET", "/history", None),
        ("POST", "/history", {}),
    ],
)
def test_unknown_threads(acting: Acting, method: str, path: str, body: object) -> None:
    assert acting.refused(method, f"/threads/{MISSING}{path}", body, 404) == ("thread_not_found", "thread_id")
    assert acting.refused(method, f"/threads/nobody{path}", body) == ("invalid_uuid", "thread_id")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/state", {"values": 1}),
        ("/state", {"values": {}, "as_node": 1}),
        ("/state", {"values": {}, "checkpoint_id": "x"}),
        ("/state", {"values": {}, "checkpoint": "x"}),
        ("/state/checkpoint", {}),
        ("/state/checkpoint", {"checkpoint": {"checkpoint_id": "x"}}),
        ("/state/checkpoint", {"checkpoint": {}, "subgraphs": "perhaps"}),
        ("/history", {"limit": 0}),
        ("/history", {"limit": "many"}),
        ("/history", {"before": "yesterday"}),
        ("/history", {"before": {"configurable": 1}}),
        ("/history", {"metadata": []}),
    ],
)
def test_bad_bodies(acting: Acting, path: str, body: object) -> None:
    thread = acting.thread()
    code, field = acting.refused("POST", f"/threads/{thread}{path}", body)
    assert code in ("invalid_field", "invalid_checkpoint")
    assert field


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/history", {"limit": "0"}),
        ("/history", {"limit": "x"}),
        ("/history", {"before": "x"}),
        ("/history", {"before": "\0"}),
        ("/state", {"subgraphs": "perhaps"}),
        ("/state", {"checkpoint_ns": "\0"}),
        ("/state/not-a-uuid", {}),
    ],
)
def test_bad_queries(acting: Acting, path: str, params: dict[str, str]) -> None:
    thread = acting.thread()
    acting.call("GET", f"/threads/{thread}{path}", status=422, params=params)
