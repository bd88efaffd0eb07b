"""Events of a run are 1..n, whoever writes them, and only its worker does."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.sql.acts import append, events, everything, finish
from tests.sql.invariants import violations
from tests.sql.scene import Scene


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.wait(0)
    return scene


def claimed(scene: Scene, **body: object) -> dict[str, Any]:
    key = scene.worker()
    scene.run(None, **body)
    [claim] = scene.claim(key)
    return claim


def write(claim: dict[str, Any], write_no: int, *names: str) -> dict[str, Any]:
    return {
        "run_id": claim["run_id"],
        "token": claim["token"],
        "write_no": write_no,
        "events": [{"event": name, "data": {"w": write_no}} for name in names],
    }


def test_events_are_numbered_without_gaps_over_writes_and_attempts(scene: Scene) -> None:
    claim = claimed(scene)
    assert append(scene, claim, 1, "custom", "messages")
    assert append(scene, claim, 2)
    assert append(scene, claim, 7, "custom")
    assert finish(scene, claim, "retry", retry_after=0)
    [claim] = scene.claim(scene.worker())
    assert append(scene, claim, 1, "custom")
    logged = events(scene, claim["run_id"])
    assert [(seq, name) for seq, name, _ in logged] == [
        (1, "custom"),
        (2, "messages"),
        (3, "custom"),
        (4, "metadata"),
        (5, "custom"),
    ]
    assert violations(scene.connection) == []


def test_a_repeated_write_changes_nothing_and_is_done(scene: Scene) -> None:
    claim = claimed(scene)
    assert append(scene, claim, 1, "custom")
    before = events(scene, claim["run_id"])
    assert append(scene, claim, 1, "custom", "custom")
    assert scene.bare("append_events", [write(claim, 1, "custom"), write(claim, 1, "custom")])["refused"] == []
    assert events(scene, claim["run_id"]) == before


@pytest.mark.parametrize("ended", ["success", "retry", "release", "error"])
def test_a_token_that_was_given_back_writes_nothing(scene: Scene, ended: str) -> None:
    claim = claimed(scene)
    assert append(scene, claim, 1, "custom")
    assert finish(scene, claim, ended, error={"error": "E", "message": "m"})
    before = everything(scene)
    answer = scene.bare("append_events", [write(claim, 2, "custom")])
    assert answer == {"refused": [{"n": 0, "reason": "lease_lost"}], "ready": False}
    assert everything(scene) == before


def test_a_wrong_token_or_run_is_refused(scene: Scene) -> None:
    claim = claimed(scene)
    before = everything(scene)
    for wrong in ({"token": claim["token"] + 1}, {"token": None}, {"run_id": str(uuid4())}, {"write_no": None}):
        answer = scene.bare("append_events", [{**write(claim, 1, "custom"), **wrong}])
        assert answer["refused"] == [{"n": 0, "reason": "lease_lost"}], wrong
    assert everything(scene) == before


def test_the_late_one_of_two_attempts_is_refused_even_in_one_batch(scene: Scene) -> None:
    old = claimed(scene)
    assert finish(scene, old, "release")
    [new] = scene.claim(scene.worker())
    for batch in ([write(old, 1, "late"), write(new, 1, "good")], [write(new, 2, "good"), write(old, 2, "late")]):
        answer = scene.bare("append_events", batch)
        assert answer["refused"] == [
            {"n": batch.index(next(w for w in batch if w["token"] == old["token"])), "reason": "lease_lost"}
        ]
    assert [name for _, name, _ in events(scene, new["run_id"])] == ["good", "good"]


def test_two_writes_of_a_run_never_share_a_batch(scene: Scene) -> None:
    claim = claimed(scene)
    with pytest.raises(psycopg.Error) as caught, scene.connection.transaction():
        scene.bare("append_events", [write(claim, 1, "a"), write(claim, 2, "b")])
    assert caught.value.sqlstate == "DG409"
    assert json.loads(caught.value.diag.message_detail or "")["code"] == "write_order"
    assert events(scene, claim["run_id"]) == []
    for one in (write(claim, 1, "a"), write(claim, 2, "b")):
        assert scene.bare("append_events", [one])["refused"] == []
    assert [name for _, name, _ in events(scene, claim["run_id"])] == ["a", "b"]


def test_a_batch_carries_the_writes_of_many_runs(scene: Scene) -> None:
    claims = [claimed(scene) for _ in range(5)]
    assert finish(scene, claims[2])
    batch = [write(claim, 1, *["custom"] * n) for n, claim in enumerate(claims)]
    assert scene.bare("append_events", batch)["refused"] == [{"n": 2, "reason": "lease_lost"}]
    assert [len(events(scene, claim["run_id"])) for claim in claims] == [0, 1, 0, 3, 4]
    assert violations(scene.connection) == []


def test_writing_keeps_the_lease_alive(scene: Scene) -> None:
    key = scene.worker(lease_seconds=5)
    scene.run(None)
    [claim] = scene.claim(key)
    scene.wait(4)
    assert append(scene, claim, 1, "custom")
    scene.wait(4)
    assert scene.bare("release_expired_leases") == []
    scene.wait(30)
    assert [taken["run_id"] for taken in scene.bare("release_expired_leases")] == [claim["run_id"]]


def test_a_name_that_would_break_the_stream_is_refused(scene: Scene) -> None:
    claim = claimed(scene)
    for name in ("two\nlines", "", "id: 7\r", "x" * 301, "\x1f"):
        with pytest.raises(psycopg.errors.CheckViolation), scene.connection.transaction():
            append(scene, claim, 1, name)
    assert append(scene, claim, 1, "messages/partial|outer:inner")
    assert [seq for seq, _, _ in events(scene, claim["run_id"])] == [1]
