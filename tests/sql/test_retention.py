"""Old events go by the week, old stateless runs one by one; threads stay."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.sql.acts import append, events, everything, finish, status
from tests.sql.scene import Scene

WEEK = 7 * 86400
PARTITIONS = "select relname from pg_class where relname ~ '^events_[0-9]' and relkind = 'r' order by 1"


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    return scene


def partitions(scene: Scene) -> list[str]:
    return [row["relname"] for row in scene.rows(PARTITIONS)]


def ended(scene: Scene, thread: str | None = None, **body: object) -> str:
    """A run with an event that has ended."""
    key = scene.worker()
    scene.run(thread, **body)
    [claim] = scene.claim(key)
    append(scene, claim, 1, "custom")
    finish(scene, claim)
    run: str = claim["run_id"]
    return run


def where(scene: Scene, run: str) -> str:
    found: str = scene.value("select tableoid::regclass::text from duragraph.events where run_id = %s", run)
    return found.removeprefix("duragraph.")


def test_there_is_a_partition_for_this_week_and_those_ahead(scene: Scene) -> None:
    made = scene.bare("maintain_partitions")
    names = partitions(scene)
    assert made == len(names)
    assert len(names) in (5, 6)
    assert names[0] == scene.now.strftime("events_%Gw%V")
    assert scene.bare("maintain_partitions") == 0
    scene.wait(WEEK)
    assert scene.bare("maintain_partitions") == 1
    comment = scene.value(f"select obj_description('duragraph.{names[0]}'::regclass)")
    assert comment.startswith("Events of runs created in the week from ")


def test_events_lie_in_the_week_of_their_run(scene: Scene) -> None:
    scene.bare("maintain_partitions")
    run = ended(scene)
    assert where(scene, run) == scene.now.strftime("events_%Gw%V")
    assert events(scene, run) == [(1, "custom", {"n": 0, "of": 1})]


def test_events_that_came_before_their_partition_move_into_it(scene: Scene) -> None:
    run = ended(scene)
    assert where(scene, run) == "events_default"
    before = events(scene, run)
    assert scene.bare("maintain_partitions") > 0
    assert where(scene, run) == scene.now.strftime("events_%Gw%V")
    assert events(scene, run) == before


def test_a_partition_is_as_the_table_itself(scene: Scene) -> None:
    scene.bare("maintain_partitions")
    name = partitions(scene)[0]
    with pytest.raises(psycopg.errors.CheckViolation), scene.connection.transaction():
        scene.connection.execute(
            "insert into duragraph.events (shard, run_id, seq, tenant_id, event) "
            "values (0, duragraph.make_id(0::smallint), 0, 1, 'x')"
        )
    indexes = scene.value(
        "select count(*) from pg_index where indrelid = %s::regclass and indisprimary", f"duragraph.{name}"
    )
    assert indexes == 1


def test_old_events_go_and_young_ones_stay(scene: Scene) -> None:
    scene.bare("maintain_partitions")
    thread = scene.thread()
    run = ended(scene, thread)
    scene.wait(20 * 86400)
    assert scene.bare("sweep_retention", timedelta(days=30)) == 0
    assert len(events(scene, run)) == 1
    scene.wait(20 * 86400)
    assert scene.bare("sweep_retention", timedelta(days=30)) == 1
    assert events(scene, run) == []
    assert (status(scene, run), scene.call("get_thread", thread)["status"]) == ("success", "idle")


def test_old_stateless_runs_go_with_all_they_left(scene: Scene) -> None:
    key = scene.worker()
    ended(scene)
    scene.run(None)
    [claim] = scene.claim(key)
    scene.superstep(claim, None, -1, {"log": {"append": [1]}}, end={"status": "success", "output": {}})
    waiting = scene.run(None)
    scene.wait(31 * 86400)
    swept = [scene.bare("sweep_retention", timedelta(days=30), limit) for limit in (1, 5, 5)]
    assert swept == [1, 1, 0]
    assert status(scene, waiting) == "pending"
    left = {name: n for name, n in everything(scene).items() if n}
    assert left == {"ready": 1, "runs": 1}


def test_keys_are_remembered_for_a_day(scene: Scene) -> None:
    scene.worker()
    request = [{"idempotency_key": "k", "body": {"assistant_id": "counter"}}]
    [first] = scene.call("create_runs", request)
    scene.connection.execute("update duragraph.idempotency_keys set created_at = duragraph.current_time()")
    scene.wait(23 * 3600)
    scene.bare("sweep_retention")
    assert scene.call("create_runs", request)[0]["run_id"] == first["run_id"]
    scene.wait(2 * 3600)
    scene.bare("sweep_retention")
    assert scene.call("create_runs", request)[0]["run_id"] != first["run_id"]
