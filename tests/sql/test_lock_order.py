"""Two who change the same things wait for one another, and never both: each pair, with the second stopped half-way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.sql.acts import status
from tests.sql.invariants import violations
from tests.sql.scene import Scene
from tests.waiting import wait_for

Two = tuple[psycopg.Connection[Any], psycopg.Connection[Any]]
WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"


class Pair:
    """Two callers, and a third party that holds a row until both have come to stand."""

    def __init__(self, dsn: str, two: Two) -> None:
        self.dsn = dsn
        self.one, self.other = Scene(two[0]), Scene(two[1])
        for connection in two:
            connection.execute("set deadlock_timeout = '50ms'")
            connection.execute("set statement_timeout = '20s'")
        self.pool = ThreadPoolExecutor(2)

    def meet(self, query: str, parameter: str, first: Callable[[], object], second: Callable[[], object]) -> list[Any]:
        """The first comes to the row that is held, the second goes as far as it can; what each gave or raised."""
        with psycopg.connect(self.dsn) as third, psycopg.connect(self.dsn, autocommit=True) as watcher:
            third.execute(query, (parameter,))  # type: ignore[arg-type]  # tests write their own SQL
            calls: list[Future[Any]] = []
            for call in (first, second):
                calls.append(self.pool.submit(call))

                def stand() -> bool:
                    undone = sum(not one.done() for one in calls)
                    found = watcher.execute(WAITING).fetchone()
                    return undone == 0 or (found is not None and found[0] >= undone)

                wait_for(stand, what="the callers to end or to wait")
            third.rollback()
        return [call.exception(timeout=20) or call.result() for call in calls]


@pytest.fixture
def pair(fresh_db: str, two: Two) -> Iterator[Pair]:
    pair = Pair(fresh_db, two)
    yield pair
    pair.pool.shutdown()


def failed(pair: Pair, thread: str) -> str:
    """A run of the thread that can be retried, or deleted."""
    key = pair.one.worker()
    claim, _ = pair.one.counted(thread, key, end=None)
    pair.one.commit(claim, end={"status": "error", "error": {"error": "E", "message": "m"}})
    return str(claim["run_id"])


def unbroken(answers: list[Any]) -> list[str]:
    """The SQLSTATEs of what was raised; never that of a deadlock."""
    codes = [str(one.sqlstate) for one in answers if isinstance(one, psycopg.Error)]
    others = [one for one in answers if isinstance(one, Exception) and not isinstance(one, psycopg.Error)]
    assert others == []
    assert "40P01" not in codes
    return codes


THREAD = "select from duragraph.threads where thread_id = %s for update"
STEPS = "select from duragraph.steps where thread_id = %s for update"
RUN = "select from duragraph.runs where run_id = %s for update"
SLOT = """
insert into duragraph.slots (shard, tenant_id, thread_id)
select shard, tenant_id, thread_id from duragraph.threads where thread_id = %s
"""


def test_pruning_and_a_retry(pair: Pair) -> None:
    thread = pair.one.thread()
    first, run = failed(pair, thread), failed(pair, thread)
    # The pruning holds the thread's slot and comes to its first run.
    prune = {"thread_ids": [thread], "strategy": "keep_latest"}
    answers = pair.meet(
        RUN, first, lambda: pair.other.call("prune_threads", prune), lambda: pair.one.bare("retry_run", run)
    )
    assert unbroken(answers) == []
    assert status(pair.one, run) == "pending"
    assert violations(pair.one.connection) == []


def test_a_deletion_and_a_retry(pair: Pair) -> None:
    thread = pair.one.thread()
    run = failed(pair, thread)
    answers = pair.meet(
        STEPS, thread, lambda: pair.other.call("delete_thread", thread), lambda: pair.one.bare("retry_run", run)
    )
    assert unbroken(answers) == []
    assert answers[1] == f"There is no run {run}."
    assert pair.one.value("select count(*) from duragraph.slots") == 0


def test_the_deletions_of_a_thread_and_of_its_run(pair: Pair) -> None:
    thread = pair.one.thread()
    run = failed(pair, thread)
    answers = pair.meet(
        THREAD,
        thread,
        lambda: pair.one.call("delete_run", thread, run),
        lambda: pair.other.call("delete_thread", thread),
    )
    assert unbroken(answers) == []
    assert pair.one.value("select count(*) from duragraph.runs") == 0
    assert pair.one.value("select count(*) from duragraph.threads") == 0


def test_crons_that_fire_and_the_pruning_of_a_thread(pair: Pair) -> None:
    pair.one.worker()
    lower, upper = in_order(pair)
    at = pair.one.now.isoformat()
    fire = [
        {"tenant_id": 1, "cron_id": cron(pair, thread)["cron_id"], "tick": at, "next_run_date": None}
        for thread in (lower, upper)
    ]
    # The firing holds both crons and comes to the first slot; the pruning is at the other thread.
    answers = pair.meet(
        SLOT,
        lower,
        lambda: pair.one.bare("fire_crons", fire),
        lambda: pair.other.call("prune_threads", {"thread_ids": [upper]}),
    )
    assert unbroken(answers) == []
    assert [set(one) for one in answers[0]] == [{"cron_id", "run_id"}] * 2
    assert answers[1] == {"pruned_count": 0}
    assert violations(pair.one.connection) == []


def test_a_cron_that_is_made_while_its_assistant_and_thread_go(pair: Pair) -> None:
    pair.one.worker()
    assistant = pair.one.call("create_assistant", {"graph_id": "counter"})["assistant_id"]
    lower, upper = in_order(pair, metadata={"assistant_id": assistant})
    # The deletion has the first thread and comes to the other.
    answers = pair.meet(
        THREAD,
        upper,
        lambda: pair.other.call("delete_assistant", assistant, True),
        lambda: cron(pair, lower, assistant),
    )
    assert unbroken(answers) == ["DG404"]
    assert pair.one.value("select count(*) from duragraph.crons") == 0
    assert pair.one.value("select count(*) from duragraph.threads") == 0


def test_delayed_runs_of_which_one_is_started_and_all_are_cancelled(pair: Pair) -> None:
    pair.one.worker()
    thread = pair.one.thread()
    first, run = (pair.one.run(thread, after_seconds=600) for _ in range(2))
    # The cancelling holds the slot and comes to the first place behind it.
    answers = pair.meet(
        "select from duragraph.scheduled where run_id = %s for update",
        first,
        lambda: pair.other.call("cancel_runs", {"thread_id": thread}),
        lambda: pair.one.bare("requeue_run", run),
    )
    assert unbroken(answers) == []
    assert status(pair.one, run) == "interrupted"
    assert violations(pair.one.connection) == []


def test_a_thread_that_is_cancelled_while_its_runs_come_due(pair: Pair) -> None:
    # given two threads with runs whose time has come; the first of the second thread backed off
    key = pair.one.worker()
    lower, upper = in_order(pair)
    pair.one.run(upper)
    [claim] = pair.one.claim(key)
    pair.one.commit(claim, end={"status": "retry", "retry_after": 60})
    delayed = [pair.one.run(thread, after_seconds=60) for thread in (lower, upper)]
    pair.one.connection.execute("update duragraph.scheduled set due_at = now() - interval '1 second'")
    # The promotion comes to the first slot; the cancelling holds the other.
    answers = pair.meet(
        "select from duragraph.slots where thread_id = %s for update",
        lower,
        lambda: pair.one.bare("promote_due"),
        lambda: pair.other.call("cancel_runs", {"thread_id": upper}),
    )
    assert unbroken(answers) == []
    assert [status(pair.one, run) for run in (claim["run_id"], *delayed)] == ["interrupted", "pending", "interrupted"]
    assert violations(pair.one.connection) == []


def in_order(pair: Pair, **request: object) -> list[str]:
    """Two new threads, in the order in which their slots are taken."""
    made = [pair.one.thread(**request) for _ in range(2)]
    return sorted(made, key=lambda thread: (pair.one.bare("shard_of", thread), thread))


def cron(pair: Pair, thread: str, assistant: str = "counter") -> dict[str, Any]:
    timing = {"schedule": "* * * * *", "next_run_date": pair.one.now.isoformat()}
    body = {"assistant_id": assistant, "schedule": "* * * * *"}
    made: dict[str, Any] = pair.one.call("create_cron", thread, body, timing)
    return made
