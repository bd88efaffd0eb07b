"""A change of state that a worker makes is queued as a run, and shows nowhere as one."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.sql.acts import status
from tests.sql.scene import Scene

STEPS = [{"updates": [{"values": {"target": 2}, "as_node": "prepare"}]}]


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    return scene


@pytest.fixture
def thread(scene: Scene) -> str:
    scene.worker()
    return scene.thread(graph_id="counter")


@pytest.fixture
def update(scene: Scene, thread: str) -> str:
    """A change that waits for a worker."""
    return str(scene.call("begin_update", thread, STEPS))


def test_it_is_none_of_the_runs(scene: Scene, thread: str, update: str) -> None:
    assert scene.call("list_runs", thread, {}) == []
    assert scene.call("list_runs", None, {}) == []
    assert scene.refused("get_run", update) == ("DG404", "run_not_found")
    assert scene.refused("get_run", update, thread) == ("DG404", "run_not_found")
    assert scene.refused("delete_run", thread, update) == ("DG404", "run_not_found")


def test_it_is_no_task(scene: Scene, update: str) -> None:
    assert scene.refused("find_task", update) == ("DG404", "task_not_found")


@pytest.mark.parametrize("which", ["pending", "all"])
def test_whoever_cancels_all_runs_leaves_it(scene: Scene, update: str, which: str) -> None:
    other = scene.run(None)
    gone = scene.call("cancel_runs", {"status": which})["runs"]
    assert [run["run_id"] for run in gone] == [other]
    assert status(scene, update) == "pending"
    assert scene.refused("cancel_runs", {"status": which}) == ("DG404", "run_not_found")


def test_whoever_cancels_what_runs_leaves_it(scene: Scene, update: str) -> None:
    scene.claim(scene.worker())
    assert scene.refused("cancel_runs", {"status": "running"}) == ("DG404", "run_not_found")
    assert status(scene, update) == "running"


def test_it_ends_with_its_thread(scene: Scene, thread: str, update: str) -> None:
    [gone] = scene.call("delete_thread", thread)["runs"]
    assert gone["run_id"] == update


def test_an_operator_sees_what_it_is(scene: Scene, thread: str, update: str) -> None:
    scene.run(thread)
    overview = scene.rows("select run_id::text, kind from duragraph.run_overview order by run_id")
    assert [row["kind"] for row in overview] == ["update", "run"]
    line = scene.rows("select run_id::text, kind from duragraph.thread_line order by place")
    assert [row["kind"] for row in line] == ["update", "run"]
    assert overview[0]["run_id"] == line[0]["run_id"] == update
