"""Workers come, beat, fall silent and leave; their runs go on elsewhere."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid5

import psycopg
import pytest

from tests.sql.acts import append, events, everything, finish, line, places, status
from tests.sql.invariants import violations
from tests.sql.scene import COUNTER, Scene


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    return scene


def beat(scene: Scene, key: int, **more: object) -> dict[str, Any]:
    [answer] = scene.bare("heartbeat", [{"worker_key": key, **more}])
    found: dict[str, Any] = answer
    return found


def taken_back(scene: Scene) -> list[str]:
    return [taken["run_id"] for taken in scene.bare("release_expired_leases")]


def test_registering_makes_the_graphs_and_their_assistants(scene: Scene) -> None:
    answer = scene.call(
        "register_worker", {"worker_id": "w", "lease_seconds": 20, "graphs": [COUNTER, {"graph_id": "b"}]}
    )
    assert (answer["worker_id"], answer["lease_seconds"], answer["graph_ids"]) == ("w", 20, ["b", "counter"])
    for graph in ("counter", "b"):
        fixed = uuid5(UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8"), graph)
        shown = scene.call("get_assistant", str(fixed))
        assert (shown["graph_id"], shown["name"], shown["metadata"]) == (graph, graph, {"created_by": "system"})


def test_registering_again_is_the_same_worker_with_its_new_ways(scene: Scene) -> None:
    key = scene.worker("w", COUNTER, capacity=3)
    run = scene.run(None)
    [claim] = scene.claim(key)
    again = scene.worker("w", {"graph_id": "other"}, capacity=7, build_id="b2")
    [row] = scene.rows("select * from duragraph.workers")
    assert (again, row["capacity"], row["build_id"], len(row["graph_keys"])) == (key, 7, "b2", 1)
    assert (status(scene, run), append(scene, claim, 1, "custom")) == ("running", True)


def test_a_new_definition_of_a_graph_replaces_the_old(scene: Scene) -> None:
    scene.worker("w", {"graph_id": "g", "definition": {"nodes": [{"id": "a"}]}})
    run = scene.run(None, "g")
    scene.worker("w", {"graph_id": "g", "definition": {"nodes": [{"id": "b"}]}})
    [row] = scene.rows("select definition from duragraph.graphs")
    assert row["definition"] == {"nodes": [{"id": "b"}]}
    assert [c["run_id"] for c in scene.claim(scene.worker("w", {"graph_id": "g"}))] == [run]


def test_a_worker_needs_a_name(scene: Scene) -> None:
    for request in ({}, {"worker_id": ""}, {"worker_id": None}):
        assert scene.refused("register_worker", request) == ("DG422", "invalid_worker")


def test_the_runs_of_a_silent_worker_go_to_another(scene: Scene) -> None:
    key, thread = scene.worker("a", lease_seconds=30), scene.thread()
    run = scene.run(thread)
    [claim] = scene.claim(key)
    head = scene.superstep(claim, None, -1, {"count": {"set": 1}}, "node", events=[{"event": "custom"}])
    scene.wait(29)
    assert taken_back(scene) == []
    scene.wait(32)
    assert scene.bare("release_expired_leases") == [{"run_id": run, "worker_key": key, "outcome": "requeued"}]
    assert scene.bare("release_expired_leases") == []
    [again] = scene.claim(scene.worker("b"))
    assert (again["run_id"], again["attempt"], again["resumed"]) == (run, 2, True)
    assert again["checkpoint"]["checkpoint_id"] == head
    assert [name for _, name, _ in events(scene, run)] == ["custom", "metadata"]
    before = everything(scene)
    assert not append(scene, claim, 9, "late")
    assert not finish(scene, claim)
    assert everything(scene) == before
    assert violations(scene.connection) == []


def test_a_beat_keeps_all_runs_of_a_worker(scene: Scene) -> None:
    key = scene.worker("a", lease_seconds=30)
    runs = [scene.run(None) for _ in range(3)]
    tokens = [claim["token"] for claim in scene.claim(key, 9)]
    for _ in range(5):
        scene.wait(25)
        answer = beat(scene, key, held=tokens, active_runs=3, details={"load": 0.5})
        assert answer == {"worker_key": key, "known": True, "status": "active", "lost": []}
    assert [status(scene, run) for run in runs] == ["running"] * 3
    [row] = scene.rows("select active_runs, details from duragraph.worker_heartbeats")
    assert row == {"active_runs": 3, "details": {"load": 0.5}}


def test_a_worker_that_only_beats_late_finds_its_runs_lost(scene: Scene) -> None:
    key = scene.worker("a", lease_seconds=30)
    scene.run(None)
    [claim] = scene.claim(key)
    scene.wait(60)
    beat(scene, scene.worker("b"))
    answer = beat(scene, key, held=[claim["token"]])
    assert answer["lost"] == [claim["token"]]


def test_any_beat_takes_back_the_runs_of_the_silent(scene: Scene) -> None:
    key = scene.worker("a", lease_seconds=30)
    run = scene.run(None)
    scene.claim(key)
    scene.wait(60)
    beat(scene, scene.worker("b"))
    assert places(scene, run) == ["ready"]


def test_a_run_whose_claim_was_lost_on_the_way_is_given_again(scene: Scene) -> None:
    key = scene.worker()
    runs = [scene.run(None) for _ in range(2)]
    first, second = scene.claim(key, 2)
    scene.wait(9)
    assert beat(scene, key, held=[first["token"]])["lost"] == []
    assert [status(scene, run) for run in runs] == ["running", "running"]
    scene.wait(2)
    assert beat(scene, key, held=[first["token"]])["lost"] == []
    assert places(scene, second["run_id"]) == ["ready"]
    assert status(scene, first["run_id"]) == "running"
    assert not finish(scene, second)
    scene.wait(60)
    beat(scene, key)  # a worker that does not say what it holds loses nothing
    assert status(scene, first["run_id"]) == "running"
    assert violations(scene.connection) == []


def test_a_stranger_is_told_that_it_is_unknown(scene: Scene) -> None:
    key = scene.worker()
    answers = scene.bare("heartbeat", [{"worker_key": 99999999, "held": [5]}, {"worker_key": key}])
    assert [(a["known"], a["status"], a["lost"]) for a in answers] == [(False, None, [5]), (True, "active", [])]
    assert scene.bare("heartbeat", []) == []


def test_no_more_are_taken_back_at_once_than_asked(scene: Scene) -> None:
    keys = [scene.worker(name, lease_seconds=30) for name in ("a", "b")]
    for key in keys:
        for _ in range(3):
            scene.run(None)
        scene.claim(key, 3)
    scene.wait(60)
    assert [len(scene.bare("release_expired_leases", limit)) for limit in (4, 4, 4)] == [4, 2, 0]
    assert violations(scene.connection) == []


def test_a_draining_worker_finishes_what_it_has(scene: Scene) -> None:
    key = scene.worker()
    scene.run(None)
    [claim] = scene.claim(key)
    assert scene.call("drain_worker", "worker-1") == {"worker_id": "worker-1", "status": "draining", "active_runs": 1}
    assert beat(scene, key, held=[claim["token"]])["status"] == "draining"
    assert finish(scene, claim)
    assert scene.refused("drain_worker", "nobody") == ("DG404", "worker_not_found")


def test_a_worker_that_leaves_hands_its_runs_back_at_once(scene: Scene) -> None:
    key, thread = scene.worker("a"), scene.thread()
    run, following = scene.run(thread, max_attempts=1), scene.run(thread)
    [claim] = scene.claim(key)
    assert scene.call("deregister_worker", "a") == {"worker_id": "a", "deregistered": True, "handed_back": 1}
    assert line(scene, thread) == (run, [following], [])
    assert not append(scene, claim, 1, "late")
    [again] = scene.claim(scene.worker("b"))
    assert (again["run_id"], again["attempt"]) == (run, 1)
    assert scene.call("deregister_worker", "nobody") == {"worker_id": "nobody", "deregistered": False}
    assert violations(scene.connection) == []


def test_workers_of_two_tenants_may_share_a_name(scene: Scene) -> None:
    other = Scene(scene.connection, tenant=2)
    ours, theirs = scene.worker("w"), other.worker("w")
    assert ours != theirs
    other.run(None)
    [claim] = other.claim(theirs)
    scene.call("deregister_worker", "w")
    assert append(other, claim, 1, "custom")
