"""Readers see the events of many runs after their cursors, and whether more will come."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.sql.acts import append, events, finish
from tests.sql.scene import Scene


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    return scene


def claimed(scene: Scene, thread: str | None = None) -> dict[str, Any]:
    key = scene.worker()
    scene.run(thread)
    [claim] = scene.claim(key)
    return claim


def read(scene: Scene, *cursors: dict[str, Any]) -> dict[str, dict[str, Any]]:
    rows = scene.rows("select * from duragraph.read_events(%s)", json.dumps(cursors))
    return {str(row.pop("run_id")): row for row in rows}


def test_a_cursor_gives_what_comes_after_it(scene: Scene) -> None:
    claim = claimed(scene)
    assert append(scene, claim, 1, *"abcde")
    run = claim["run_id"]
    assert [name for _, name, _ in events(scene, run)] == list("abcde")
    assert [(seq, name) for seq, name, _ in events(scene, run, after=3)] == [(4, "d"), (5, "e")]
    assert [seq for seq, _, _ in events(scene, run, after=1, limit=2)] == [2, 3]
    assert (events(scene, run, after=5), events(scene, run, after=99)) == ([], [])


def test_reading_again_gives_the_same_bytes(scene: Scene) -> None:
    claim = claimed(scene)
    odd = '{ "b":1,\r\n "a": [1.0, 2e1],  "a": "\\u00e9 \\n" }'
    ids = f'"run_id": "{claim["run_id"]}", "token": {claim["token"]}, "write_no": 1'
    write = f'[{{{ids}, "events": [{{"event": "custom", "data": {odd}}}]}}]'
    assert scene.bare("append_events", write)["refused"] == []
    first = read(scene, {"run_id": claim["run_id"], "after": 0})
    assert first[claim["run_id"]]["frames"] == "1\x1fcustom\x1f" + odd.replace("\r\n", "  ")
    assert finish(scene, claim)
    assert (
        read(scene, {"run_id": claim["run_id"], "after": 0})[claim["run_id"]]["frames"]
        == first[claim["run_id"]]["frames"]
    )


def test_many_runs_in_one_call(scene: Scene) -> None:
    claims = [claimed(scene) for _ in range(4)]
    for n, claim in enumerate(claims):
        append(scene, claim, 1, *["custom"] * n)
    found = read(scene, *({"run_id": c["run_id"], "after": 1} for c in claims), {"run_id": str(uuid4()), "after": 0})
    assert [found[c["run_id"]]["last_seq"] for c in claims] == [0, 1, 2, 3]
    assert [(found[c["run_id"]]["frames"] or "").count("custom") for c in claims] == [0, 0, 1, 2]
    assert len(found) == 4


def test_the_status_says_whether_more_will_come(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    run = scene.run(thread)
    seen = []

    def look() -> None:
        row = read(scene, {"run_id": run, "after": 0})[run]
        seen.append((row["status"], row["last_seq"]))

    look()
    [claim] = scene.claim(key)
    append(scene, claim, 1, "custom")
    look()
    finish(scene, claim, "retry", retry_after=0)
    look()
    [claim] = scene.claim(key)
    look()
    append(scene, claim, 1, "custom")
    finish(scene, claim)
    look()
    assert seen == [("pending", 0), ("running", 1), ("pending", 1), ("running", 2), ("success", 3)]


def test_a_values_frame_shows_the_state_of_its_checkpoint(scene: Scene) -> None:
    claim = claimed(scene, scene.thread())
    first = scene.superstep(claim, None, -1, {"log": {"set": ["a"]}}, "x")
    second = scene.superstep(claim, first, 0, {"log": {"append": ["b"]}}, "y")
    interrupt = {"__interrupt__": [{"value": "sure?", "id": "i"}]}
    scene.commit(
        claim,
        events=[
            {"event": "values", "checkpoint_id": second},
            {"event": "values", "checkpoint_id": first, "data": {}},
            {"event": "values|sub:1", "checkpoint_id": first, "data": interrupt},
        ],
    )
    shown = [data for _, _, data in events(scene, claim["run_id"])]
    assert shown == [{"log": ["a", "b"]}, {"log": ["a"]}, {"log": ["a"], **interrupt}]


def test_the_channels_of_the_engine_are_not_shown(scene: Scene) -> None:
    thread = scene.thread()
    claim = claimed(scene, thread)
    head = scene.superstep(claim, None, -1, {"seen": {"set": 1}, "__start__": {"set": 2}}, "x")
    scene.commit(claim, events=[{"event": "values", "checkpoint_id": head}], end={"status": "success"})
    assert events(scene, claim["run_id"]) == [(1, "values", {"seen": 1})]
    assert scene.call("get_thread", thread)["values"] == {"seen": 1}


def test_a_deleted_run_is_no_longer_read(scene: Scene) -> None:
    claim = claimed(scene)
    append(scene, claim, 1, "custom")
    scene.call("delete_run", None, claim["run_id"])
    assert read(scene, {"run_id": claim["run_id"], "after": 0}) == {}
