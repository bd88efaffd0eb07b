"""why_not_running() has a true sentence for every case."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.sql.scene import Scene


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    return scene


def why(scene: Scene, run_id: str) -> str:
    sentence: str = scene.bare("why_not_running", run_id)
    assert sentence.endswith(".")
    return sentence


def at(scene: Scene) -> str:
    return scene.now.strftime("%Y-%m-%dT%H:%M")


def test_an_unknown_run(scene: Scene) -> None:
    run = str(uuid4())
    assert why(scene, run) == f"There is no run {run}: the id is wrong, or the run was deleted."


def test_an_ended_run(scene: Scene) -> None:
    key = scene.worker()
    run = scene.run(None)
    scene.commit(scene.claim(key)[0], end={"status": "success"})
    assert why(scene, run).startswith(f"It has ended: success at {at(scene)}")
    run = scene.run(None)
    scene.commit(scene.claim(key)[0], end={"status": "error", "error": {"error": "ValueError", "message": "kaboom"}})
    assert "ValueError: kaboom" in why(scene, run)
    run = scene.run(None)
    scene.bare("cancel_run", run, "not needed")
    assert why(scene, run).startswith("It has ended: interrupted at ")
    assert "not needed" in why(scene, run)


def test_a_running_run(scene: Scene) -> None:
    key = scene.worker(lease_seconds=20)
    run = scene.run(None)
    scene.claim(key)
    assert why(scene, run).startswith("It is running: worker worker-1 has had it since ")
    assert why(scene, run).endswith("attempt 1 of 3.")
    scene.wait(60)
    assert "The worker is silent since" in why(scene, run)


def test_a_run_its_worker_has_not_begun(scene: Scene) -> None:
    key = scene.worker(protocol=1)
    run = scene.run(None)
    scene.claim(key)
    assert why(scene, run).endswith("the worker has not reported the start yet.")


def test_a_run_without_a_worker(scene: Scene) -> None:
    scene.worker()
    run = scene.run(None)
    scene.wait(300)
    assert why(scene, run).startswith(
        "It is ready: no live worker serves graph counter; the last was worker-1, silent since "
    )
    scene.worker()
    scene.call("drain_worker", "worker-1")
    assert why(scene, run) == "It is ready: every live worker of graph counter is draining (1); start another."
    scene.call("deregister_worker", "worker-1")
    assert why(scene, run) == "It is ready: no worker serves graph counter; start one."


def test_a_run_whose_workers_are_full(scene: Scene) -> None:
    key = scene.worker(capacity=2)
    for _ in range(2):
        scene.run(None)
    scene.claim(key, 2)
    run = scene.run(None)
    assert why(scene, run).startswith("It is ready: every worker of graph counter is full (2 of 2 runs); ")


def test_a_run_that_is_about_to_start(scene: Scene) -> None:
    scene.worker()
    scene.run(None)
    urgent = scene.run(None, priority=5)
    run = scene.run(None)
    rest = "live workers with room: 1 of 1, which take runs in this order."
    assert why(scene, run) == f"It is ready: 2 runs of graph counter are before it; {rest}"
    assert why(scene, urgent) == f"It is ready: it is the next of graph counter; {rest}"


def test_a_run_behind_another_of_its_thread(scene: Scene) -> None:
    key, thread = scene.worker(), scene.thread()
    first, second, third = (scene.run(thread) for _ in range(3))
    scene.claim(key)
    assert why(scene, second).startswith(f"It waits behind run {first} in its thread (number 1 in line): ")
    assert why(scene, third).startswith(f"It waits behind run {first} in its thread (number 2 in line): ")
    assert "That run: It is running: worker worker-1" in why(scene, third)


def test_a_delayed_run(scene: Scene) -> None:
    scene.worker()
    for run in (scene.run(None, after_seconds=60), scene.run(scene.thread(), after_seconds=60)):
        assert why(scene, run).startswith("It is delayed until ")
        assert why(scene, run).endswith("as its creator asked.")
    scene.wait(61)
    assert why(scene, run).endswith("that time has come, and the next claim or heartbeat of a worker starts it.")


def test_a_run_that_backs_off(scene: Scene) -> None:
    key = scene.worker()
    for thread in (None, scene.thread()):
        run = scene.run(thread)
        [claim] = scene.claim(key)
        scene.commit(
            claim, end={"status": "retry", "retry_after": 30, "error": {"error": "E", "message": "no network"}}
        )
        assert why(scene, run).startswith("It backs off until ")
        assert "after attempt 1 of 3" in why(scene, run)
        assert "no network" in why(scene, run)


def test_a_run_that_is_lost(scene: Scene) -> None:
    scene.worker()
    run = scene.run(None)
    scene.connection.execute("delete from duragraph.ready")
    assert why(scene, run).startswith("It is pending but in no queue, which should never be; ")
