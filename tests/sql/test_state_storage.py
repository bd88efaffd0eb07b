"""State is stored once: what did not change is shared, lists that grow store what was added, forks share their past."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import psycopg
import pytest

from tests.sql.invariants import violations
from tests.sql.scene import Scene

HISTORY = {"limit": 1000}


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    scene.worker()
    return scene


def turn(scene: Scene, thread: str, **channels: Any) -> tuple[str, str]:
    """One run that commits one checkpoint with these changes: (run, checkpoint)."""
    body = {"checkpoint_id": channels.pop("at")} if "at" in channels else {}
    run = scene.run(thread, **body)
    [claim] = scene.claim(scene.worker())
    start = claim["checkpoint"] or {"checkpoint_id": None, "step": -1}
    made = scene.superstep(claim, start["checkpoint_id"], start["step"] + 1, channels, end={"status": "success"})
    return run, made


def values(scene: Scene, thread: str) -> Any:
    return scene.call("get_thread", thread)["values"]


def at(scene: Scene, thread: str, checkpoint: str) -> Any:
    return scene.value(
        "select duragraph.checkpoint_values(duragraph.shard_of(%s), 1, %s, '', %s)", thread, thread, checkpoint
    )


def stored(scene: Scene, thread: str) -> int:
    """Bytes of content."""
    size: int = scene.value(
        "select coalesce(sum(length(value::text)), 0) from duragraph.channel_values where thread_id = %s", thread
    )
    return size


def test_a_list_that_grows_stores_only_what_was_added(scene: Scene) -> None:
    thread = scene.thread()
    message = {"type": "human", "content": "x" * 100}
    sizes = []
    for _ in range(60):
        turn(scene, thread, messages={"append": [message]}, count={"set": 1})
        sizes.append(stored(scene, thread))
    assert values(scene, thread) == {"messages": [message] * 60, "count": 1}
    grown = [after - before for before, after in pairwise(sizes)]
    assert set(grown) == {grown[0]}, "each turn costs the same, however long the list is"
    assert grown[0] < 200
    rows: int = scene.value("select count(*) from duragraph.channel_values where channel = 'messages'")
    assert rows == 60


def test_what_does_not_change_is_shared(scene: Scene) -> None:
    thread = scene.thread()
    turn(scene, thread, document={"set": "d" * 100_000}, count={"set": 0})
    before = stored(scene, thread)
    for n in range(20):
        turn(scene, thread, count={"set": n})
    assert stored(scene, thread) - before < 100
    assert values(scene, thread) == {"document": "d" * 100_000, "count": 19}


def test_every_checkpoint_shows_its_own_state(scene: Scene) -> None:
    thread = scene.thread()
    made = [turn(scene, thread, log={"append": [n, {"deep": [n]}]})[1] for n in range(4)]
    for n, checkpoint in enumerate(made):
        expected: list[Any] = []
        for k in range(n + 1):
            expected += [k, {"deep": [k]}]
        assert at(scene, thread, checkpoint) == {"log": expected}


def test_a_fork_shares_the_past_and_not_the_future(scene: Scene) -> None:
    thread = scene.thread()
    _, first = turn(scene, thread, log={"append": ["a"]}, kept={"set": 1})
    _, main = turn(scene, thread, log={"append": ["b"]})
    before = stored(scene, thread)
    _, fork = turn(scene, thread, log={"append": ["c"]}, at=first)
    assert stored(scene, thread) - before == len('["c"]')
    assert at(scene, thread, main) == {"log": ["a", "b"], "kept": 1}
    assert at(scene, thread, fork) == {"log": ["a", "c"], "kept": 1} == values(scene, thread)
    turn(scene, thread, log={"append": ["d"]}, kept={"set": 2})
    assert values(scene, thread) == {"log": ["a", "c", "d"], "kept": 2}
    assert at(scene, thread, main) == {"log": ["a", "b"], "kept": 1}
    parents = {
        s["checkpoint"]["checkpoint_id"]: s["parent_checkpoint"] for s in scene.call("get_history", thread, HISTORY)
    }
    assert parents[fork]["checkpoint_id"] == parents[main]["checkpoint_id"] == first


def test_a_list_may_be_set_anew_and_grow_from_there(scene: Scene) -> None:
    thread = scene.thread()
    for change in ({"append": [1]}, {"append": [2, 3]}, {"set": ["new"]}, {"append": []}, {"append": ["er"]}):
        turn(scene, thread, log=change)
    assert values(scene, thread) == {"log": ["new", "er"]}


@pytest.mark.parametrize("base", [[], [[]], [""], [{}], [None], ["a,b", '"]', "\\"]])
def test_lists_are_put_together_whatever_is_in_them(scene: Scene, base: list[Any]) -> None:
    thread = scene.thread()
    for added in (base, [], base, [[1, [2]]], base):
        turn(scene, thread, log={"append": added})
    assert values(scene, thread) == {"log": [*base, *base, [1, [2]], *base]}


@pytest.mark.parametrize("base", ["text", 7, {"a": 1}, True, None])
def test_adding_to_what_is_no_list_leaves_the_state_readable(scene: Scene, base: Any) -> None:
    thread = scene.thread()
    turn(scene, thread, odd={"set": base})
    turn(scene, thread, odd={"append": [1]})
    assert values(scene, thread) == {"odd": [base, 1]}


def test_numbers_and_texts_come_back_as_they_were_written(scene: Scene) -> None:
    thread = scene.thread()
    written = {
        "n": 1.10,
        "big": 12345678901234567890,
        "e": 1e300,
        "text": 'é "quoted" \\ \n\t 🎉',
        "null": None,
        "": "empty name",
    }
    turn(scene, thread, **{"odd": {"set": written}, 'na"me': {"set": 1}})
    assert values(scene, thread) == {"odd": written, 'na"me': 1}


def test_deleting_a_run_keeps_what_later_runs_stand_on(scene: Scene) -> None:
    thread = scene.thread()
    turns = [turn(scene, thread, log={"append": [n]}, **{f"only_{n}": {"set": n}}) for n in range(4)]
    whole = values(scene, thread)
    scene.call("delete_run", thread, turns[1][0])
    assert values(scene, thread) == whole
    scene.call("delete_run", thread, turns[0][0])
    assert values(scene, thread) == whole
    assert violations(scene.connection) == []
    left = scene.call("get_history", thread, HISTORY)
    assert [s["checkpoint"]["checkpoint_id"] for s in left] == [turns[3][1], turns[2][1]]
    assert left[0]["parent_checkpoint"]["checkpoint_id"] == turns[2][1]
    assert left[1]["parent_checkpoint"] is None
    # The way back still leads somewhere.
    scene.call("delete_run", thread, turns[3][0])
    assert values(scene, thread) == {"log": [0, 1, 2], "only_0": 0, "only_1": 1, "only_2": 2}
    scene.call("delete_run", thread, turns[2][0])
    assert values(scene, thread) in ({}, None)
    assert scene.value("select count(*) from duragraph.channel_values") == 0


def test_a_thread_steps_back_over_a_run_that_was_deleted_before(scene: Scene) -> None:
    thread = scene.thread()
    turns = [turn(scene, thread, log={"append": [n]}) for n in range(3)]
    scene.call("delete_run", thread, turns[1][0])
    scene.call("delete_run", thread, turns[2][0])
    assert values(scene, thread) == {"log": [0]}
    assert violations(scene.connection) == []
    turn(scene, thread, log={"append": ["new"]})
    assert values(scene, thread) == {"log": [0, "new"]}


def test_deleting_a_fork_leaves_the_main_line(scene: Scene) -> None:
    thread = scene.thread()
    _, first = turn(scene, thread, log={"append": ["a"]})
    main_run, main = turn(scene, thread, log={"append": ["b"]})
    fork_run, _ = turn(scene, thread, log={"append": ["c"]}, at=first)
    scene.call("delete_run", thread, fork_run)
    assert values(scene, thread) == {"log": ["a"]}
    assert at(scene, thread, main) == {"log": ["a", "b"]}
    scene.call("delete_run", thread, main_run)
    assert values(scene, thread) == {"log": ["a"]}
    assert violations(scene.connection) == []
