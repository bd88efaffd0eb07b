"""Webhooks in the database: an end is owed in the transaction that makes it, and delivered at least once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from tests.sql.acts import create, everything, finish, silence, weaken
from tests.sql.scene import Scene
from tests.waiting import wait_for

WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
URL = "https://hooks.example/done"


@pytest.fixture
def scene(db: psycopg.Connection[Any]) -> Scene:
    scene = Scene(db)
    scene.worker()
    return scene


def owed(scene: Scene) -> list[dict[str, Any]]:
    return scene.rows("select * from duragraph.webhook_deliveries order by delivery_id")


def claim(scene: Scene, limit: int = 20, seconds: float = 30) -> list[dict[str, Any]]:
    return scene.rows("select * from duragraph.claim_webhooks(%s, %s)", limit, seconds)


def settle(scene: Scene, taken: dict[str, Any], error: str | None = None, final: bool = False) -> float | None:
    left: float | None = scene.value(
        "select duragraph.settle_webhook(%s, %s::smallint, %s, %s)",
        taken["delivery_id"],
        taken["attempt"],
        error,
        final,
    )
    return left


def row(scene: Scene) -> dict[str, Any]:
    [found] = scene.rows("select * from duragraph.webhook_log")
    return found


def delivery(scene: Scene) -> str:
    """A run with a webhook that has just ended; its delivery."""
    create(scene, {"webhook": URL})
    finish(scene, scene.claim(scene.worker())[0])
    return str(owed(scene)[0]["delivery_id"])


# owed with the end


@pytest.mark.parametrize("status", ["success", "error", "timeout", "interrupted"])
@pytest.mark.parametrize("threaded", [True, False])
def test_every_end_by_a_worker_is_owed(scene: Scene, status: str, threaded: bool) -> None:
    thread = scene.thread() if threaded else None
    [run] = create(scene, {"thread_id": thread, "webhook": URL, "metadata": {"m": 1}})
    [taken] = scene.claim(scene.worker())
    assert owed(scene) == []
    finish(scene, taken, status, error={"error": "ValueError", "message": "kaboom"} if status == "error" else None)
    [made] = owed(scene)
    body = made["body"]
    assert (made["url"], made["status"], made["attempt"]) == (URL, "pending", 0)
    assert (body["run_id"], body["status"], body["metadata"]["m"]) == (run, status, 1)
    assert body["kwargs"]["webhook"] == URL
    assert body["run_started_at"] <= body["run_ended_at"]
    assert body["values"] is None
    if status == "error":
        assert body["error"] == {"error": "ValueError", "message": "kaboom"}
    assert scene.value("select count(*) from duragraph.webhooks") == 0


def test_the_values_are_those_the_run_ended_with(scene: Scene) -> None:
    thread, key = scene.thread(), scene.worker()
    create(scene, {"thread_id": thread, "webhook": URL})
    [taken] = scene.claim(key)
    scene.superstep(taken, None, 0, {"count": {"set": 1}}, end={"status": "success"})
    [made] = owed(scene)
    assert made["body"]["values"] == {"count": 1}
    scene.counted(thread, key)
    [again] = owed(scene)
    assert again["body"]["values"] == {"count": 1}, "the thread went on, the announcement did not"


def test_an_end_by_a_request_is_owed_wherever_the_run_is(scene: Scene) -> None:
    thread, key = scene.thread(), scene.worker()
    running, queued, delayed = create(
        scene,
        {"thread_id": thread, "webhook": URL},
        {"thread_id": thread, "webhook": URL},
        {"thread_id": thread, "webhook": URL, "after_seconds": 60},
    )
    scene.claim(key)
    [alone] = create(scene, {"webhook": URL})
    scene.call("cancel_runs", {"run_ids": [running, queued, delayed, alone]})
    assert {made["body"]["run_id"] for made in owed(scene)} == {running, queued, delayed, alone}
    assert {made["body"]["status"] for made in owed(scene)} == {"interrupted"}


def test_a_rolled_back_run_is_announced_as_that_although_it_is_gone(scene: Scene) -> None:
    thread, key = scene.thread(), scene.worker()
    running, queued = create(scene, *({"thread_id": thread, "webhook": URL} for _ in range(2)))
    scene.claim(key)
    [alone] = create(scene, {"webhook": URL})
    scene.call("cancel_runs", {"run_ids": [running, queued, alone], "action": "rollback"})
    assert scene.value("select count(*) from duragraph.runs") == 0
    assert {made["body"]["run_id"]: made["body"]["status"] for made in owed(scene)} == dict.fromkeys(
        (running, queued, alone), "rollback"
    )


def test_a_superseded_run_is_announced(scene: Scene) -> None:
    thread = scene.thread()
    [first] = create(scene, {"thread_id": thread, "webhook": URL})
    create(scene, {"thread_id": thread, "multitask_strategy": "interrupt"})
    assert [(made["body"]["run_id"], made["body"]["status"]) for made in owed(scene)] == [(first, "interrupted")]


def test_a_deleted_run_and_the_runs_of_a_deleted_thread_are_announced(scene: Scene) -> None:
    thread = scene.thread()
    first, second = create(scene, *({"thread_id": thread, "webhook": URL} for _ in range(2)))
    scene.call("delete_run", thread, first)
    scene.call("delete_thread", thread)
    assert {made["body"]["run_id"] for made in owed(scene)} == {first, second}


def test_an_end_by_the_sweep_and_one_by_psql_are_owed(scene: Scene) -> None:
    [swept] = create(scene, {"webhook": URL, "max_attempts": 1})
    scene.claim(scene.worker())
    silence(scene)
    run = scene.bare("submit_run", "counter", {"n": 1}, None, {"webhook": URL})
    scene.bare("cancel_run", run)
    assert [(made["body"]["run_id"], made["body"]["status"]) for made in owed(scene)] == [
        (swept, "error"),
        (str(run), "interrupted"),
    ]
    assert owed(scene)[0]["body"]["error"]["error"] == "AttemptsExhausted"


def test_a_run_that_is_tried_again_is_not_announced_until_it_ends(scene: Scene) -> None:
    [run] = create(scene, {"webhook": URL})
    [taken] = scene.claim(scene.worker())
    finish(scene, taken, "release")
    assert owed(scene) == []
    [taken] = scene.claim(scene.worker())
    finish(scene, taken, "error", error={"error": "E", "message": "m"})
    scene.bare("retry_run", run)
    finish(scene, scene.claim(scene.worker())[0])
    assert [made["body"]["status"] for made in owed(scene)] == ["error", "success"]


def test_runs_of_one_batch_are_owed_each_with_its_own(scene: Scene) -> None:
    runs = create(scene, *({"webhook": f"{URL}/{n}"} for n in range(3)), {})
    claims = scene.claim(scene.worker(), 4)
    ends = [{"run_id": c["run_id"], "token": c["token"], "end": {"status": "success"}} for c in claims]
    assert scene.bare("complete_runs", ends)["refused"] == []
    assert {made["url"]: made["body"]["run_id"] for made in owed(scene)} == {
        f"{URL}/{n}": run for n, run in enumerate(runs[:3])
    }


def test_a_lost_lease_owes_nothing(scene: Scene) -> None:
    create(scene, {"webhook": URL})
    [taken] = scene.claim(scene.worker())
    silence(scene)
    assert not finish(scene, taken)
    assert owed(scene) == []


def test_an_end_that_is_rolled_back_owes_nothing(scene: Scene) -> None:
    create(scene, {"webhook": URL})
    [taken] = scene.claim(scene.worker())
    with scene.connection.transaction(force_rollback=True):
        finish(scene, taken)
        assert len(owed(scene)) == 1
    assert owed(scene) == []


def test_a_run_without_a_webhook_leaves_no_trace(scene: Scene) -> None:
    create(scene, {"input": {"text": 'they said ,"webhook":"x"'}}, {"input": {"webhook": "x"}}, {"webhook": None})
    for taken in scene.claim(scene.worker(), 3):
        finish(scene, taken)
    assert everything(scene)["runs"] == 3
    assert scene.value("select count(*) from duragraph.webhooks") == 0
    assert owed(scene) == []


def test_a_key_spelt_with_escapes_is_a_webhook_all_the_same(scene: Scene) -> None:
    scene.value(
        "select duragraph.create_runs(1, %s)",
        '[{"thread_id": null, "body": {"assistant_id": "counter", "\\u0077ebhook": "' + URL + '"}}]',
    )
    finish(scene, scene.claim(scene.worker())[0])
    assert len(owed(scene)) == 1


# delivered at least once


def test_a_delivery_is_taken_by_one_and_done_when_settled(scene: Scene) -> None:
    made = delivery(scene)
    [taken] = claim(scene)
    assert (str(taken["delivery_id"]), taken["attempt"], taken["url"]) == (made, 1, URL)
    assert '"webhook_sent_at"' in taken["body"]
    assert claim(scene) == []
    assert settle(scene, taken) is None
    assert (row(scene)["status"], row(scene)["last_error"]) == ("delivered", None)
    scene.wait(24 * 3600)
    assert claim(scene) == []


def test_attempts_are_bounded_and_wait_longer_each_time(scene: Scene) -> None:
    delivery(scene)
    waits: list[float] = []
    while row(scene)["status"] == "pending":
        [taken] = claim(scene)
        wait = settle(scene, taken, f"HTTP 500 at {taken['attempt']}")
        if wait is not None:
            waits.append(wait)
            assert claim(scene) == []
            scene.wait(wait)
    assert len(waits) == 7
    assert all(later > 1.5 * earlier for earlier, later in pairwise(waits))
    assert 3 * 3600 < sum(waits) < 5 * 3600
    assert (row(scene)["status"], row(scene)["attempt"], row(scene)["last_error"]) == ("failed", 8, "HTTP 500 at 8")


def test_what_may_never_be_called_fails_at_once(scene: Scene) -> None:
    delivery(scene)
    assert settle(scene, claim(scene)[0], "hooks.example is at 10.0.0.1, a private address", final=True) is None
    assert (row(scene)["status"], row(scene)["attempt"]) == ("failed", 1)


def test_a_process_that_dies_loses_its_delivery_to_another_and_spends_attempts(scene: Scene) -> None:
    made = delivery(scene)
    for attempt in range(1, 9):
        [taken] = claim(scene)
        assert (str(taken["delivery_id"]), taken["attempt"]) == (made, attempt)
        scene.wait(31)
    assert claim(scene) == []
    assert (row(scene)["status"], row(scene)["last_error"]) == ("failed", "the process that had it died")


def test_a_late_answer_of_a_lost_attempt_changes_nothing(scene: Scene) -> None:
    delivery(scene)
    [late] = claim(scene)
    scene.wait(31)
    [taken] = claim(scene)
    assert settle(scene, late, "too late", final=True) is None
    assert row(scene)["status"] == "pending"
    settle(scene, taken)
    assert row(scene)["status"] == "delivered"


def test_without_the_attempt_in_the_condition_a_late_answer_would_count(scene: Scene) -> None:
    weaken(scene.connection, "settle_webhook", "and d.attempt = p_attempt")
    delivery(scene)
    [late] = claim(scene)
    scene.wait(31)
    claim(scene)
    settle(scene, late, "too late", final=True)
    assert row(scene)["status"] == "failed"


def test_an_operator_sends_again_under_the_same_id(scene: Scene) -> None:
    made = delivery(scene)
    [taken] = claim(scene)
    assert "for the first time" in scene.bare("resend_webhook", made)
    settle(scene, taken, "no", final=True)
    assert "is sent again" in scene.bare("resend_webhook", made)
    [taken] = claim(scene)
    assert (str(taken["delivery_id"]), taken["attempt"]) == (made, 1)
    settle(scene, taken)
    assert "is sent again" in scene.bare("resend_webhook", made)
    assert "There is no delivery" in scene.bare("resend_webhook", "00000000-0000-4000-8000-000000000000")


def test_settled_deliveries_are_forgotten_in_time_and_pending_ones_never(scene: Scene) -> None:
    delivery(scene)
    settle(scene, claim(scene)[0])
    delivery(scene)
    [failed] = claim(scene)
    settle(scene, failed, "no", final=True)
    create(scene, {"webhook": URL})
    finish(scene, scene.claim(scene.worker())[0])
    scene.wait(8 * 86400)
    assert scene.bare("sweep_webhooks") == 1
    assert sorted(made["status"] for made in owed(scene)) == ["failed", "pending"]
    scene.wait(30 * 86400)
    assert scene.bare("sweep_webhooks") == 1
    assert [made["status"] for made in owed(scene)] == ["pending"]


# races


def taken_by_two(two: tuple[psycopg.Connection[Any], psycopg.Connection[Any]], guard: str | None = None) -> list[int]:
    """How many each of two processes took of one delivery, the first not having committed yet."""
    one, other = map(Scene, two)
    one.worker()
    delivery(one)
    if guard:
        weaken(one.connection, "claim_webhooks", guard)
    with ThreadPoolExecutor(1) as pool:
        with one.connection.transaction():
            first = len(claim(one))
            late = pool.submit(claim, other)
            waiting = (
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            )
            wait_for(lambda: late.done() or one.value(waiting), what="the second to be done, or to wait")
        return [first, len(late.result(timeout=10))]


def test_two_processes_take_a_delivery_once(two: tuple[psycopg.Connection[Any], psycopg.Connection[Any]]) -> None:
    assert taken_by_two(two) == [1, 0]


def test_without_the_row_lock_both_would_take_it(two: tuple[psycopg.Connection[Any], psycopg.Connection[Any]]) -> None:
    assert taken_by_two(two, "for update skip locked") == [1, 1]


def test_the_end_wakes_whoever_listens(two: tuple[psycopg.Connection[Any], psycopg.Connection[Any]]) -> None:
    listener, other = two
    listener.execute("listen duragraph_webhooks")
    scene = Scene(other)
    scene.worker()
    create(scene, {})
    finish(scene, scene.claim(scene.worker())[0])
    delivery(scene)
    assert [notice.channel for notice in listener.notifies(timeout=0.2)] == ["duragraph_webhooks"]
