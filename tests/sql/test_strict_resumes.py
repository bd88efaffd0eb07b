"""A strict resume is refused when nothing waits for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.sql.scene import Scene, question

RESUME = {"assistant_id": "counter", "command": {"resume": "yes"}, "strict_resume": True}
NOTHING = ("DG409", "nothing_to_resume")


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    return Scene(db)


def asked(scene: Scene, thread: str, key: int) -> dict[str, Any]:
    """A question that the thread waits with."""
    scene.run(thread)
    [claim] = scene.claim(key)
    head = (claim["checkpoint"] or {}).get("checkpoint_id")
    at = scene.superstep(claim, head, 0, {"count": {"set": 1}}, "increment")
    one = question(at, "increment", "sure?")
    scene.commit(claim, interrupts=[one])
    scene.commit(claim, end={"status": "success"})
    return one


def request(thread: str, **more: object) -> list[dict[str, Any]]:
    return [{"thread_id": thread, "body": {**RESUME, **more}}]


def test_it_is_refused_on_a_thread_that_asks_nothing(scene: Scene) -> None:
    thread = scene.thread()
    scene.counted(thread, scene.worker())
    assert scene.refused("create_runs", request(thread)) == NOTHING
    assert len(scene.call("list_runs", thread, {})) == 1
    assert scene.call("get_thread", thread)["status"] == "idle"


def test_without_strict_it_is_a_run(scene: Scene) -> None:
    thread = scene.thread()
    scene.counted(thread, scene.worker())
    assert scene.call("create_runs", request(thread, strict_resume=False))


def test_it_answers_an_open_question_once(scene: Scene) -> None:
    thread = scene.thread()
    asked(scene, thread, scene.worker())
    assert scene.call("create_runs", request(thread))
    # The first one is on its way to answer it.
    assert scene.refused("create_runs", request(thread)) == NOTHING


def test_an_answer_by_id_has_to_name_an_open_question(scene: Scene) -> None:
    thread = scene.thread()
    one = asked(scene, thread, scene.worker())
    other = {"resume": {"0" * 32: "yes"}}
    assert scene.refused("create_runs", request(thread, command=other)) == NOTHING
    assert scene.call("create_runs", request(thread, command={"resume": {one["interrupt_id"]: "yes"}}))


def test_an_answer_may_be_an_object(scene: Scene) -> None:
    thread = scene.thread()
    asked(scene, thread, scene.worker())
    assert scene.call("create_runs", request(thread, command={"resume": {"approved": True}}))


def test_a_run_with_input_is_not_concerned(scene: Scene) -> None:
    scene.worker()
    body = {"assistant_id": "counter", "input": {}, "strict_resume": True}
    assert scene.call("create_runs", [{"thread_id": scene.thread(), "body": body}])


def test_of_two_at_once_one_is_taken(two: tuple[psycopg.Connection[Any], psycopg.Connection[Any]]) -> None:
    # given a question, and two answers that come at the same time
    one, other = Scene(two[0]), Scene(two[1])
    thread = one.thread()
    asked(one, thread, one.worker())
    with ThreadPoolExecutor(1) as pool:
        with two[0].transaction():
            assert one.call("create_runs", request(thread))
            late = pool.submit(other.refused, "create_runs", request(thread))
        # then the one behind is refused
        assert late.result(20) == NOTHING
    assert len(one.call("list_runs", thread, {})) == 2
