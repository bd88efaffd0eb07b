"""Every race that was thought of, with two real connections; and that each guard against them is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import uuid4

import psycopg
import pytest

from tests.sql.acts import (
    append,
    create,
    events,
    everything,
    finish,
    line,
    places,
    silence,
    status,
    thread_status,
    weaken,
)
from tests.sql.invariants import violations
from tests.sql.scene import COUNTER, Scene, step
from tests.waiting import wait_for

T = TypeVar("T")
U = TypeVar("U")

WAITING = """
select count(*) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
  and wait_event_type = 'Lock'
"""


class Race:
    """Two callers and somebody who watches them."""

    def __init__(self, dsn: str, one: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> None:
        self.dsn = dsn
        self.one, self.other = Scene(one), Scene(other)
        for connection in (one, other):
            connection.execute("set deadlock_timeout = '50ms'")
        self.key = self.one.worker()
        self.pool = ThreadPoolExecutor(2)
        self.watcher = psycopg.connect(dsn, autocommit=True)

    def close(self) -> None:
        self.watcher.close()
        self.pool.shutdown()

    def settled(self, *calls: Future[Any]) -> bool:
        """Wait until each call is done or stands at a lock; whether all are done."""

        def probe() -> bool:
            undone = sum(not call.done() for call in calls)
            waiting = self.watcher.execute(WAITING).fetchone()
            return undone == 0 or (waiting is not None and waiting[0] >= undone)

        wait_for(probe, what="the calls to end or to wait for a lock")
        return all(call.done() for call in calls)

    def overlap(self, first: Callable[[], T], second: Callable[[], U], *, keep: bool = True) -> tuple[T, U, bool]:
        """The first call holds its transaction open (and rolls it back unless `keep`) while the second is made.

        What both gave, and whether the second had to wait. What the second raised is raised here.
        """
        with self.one.connection.transaction(force_rollback=not keep):
            gave = first()
            late = self.pool.submit(second)
            waited = not self.settled(late)
        return gave, late.result(timeout=10), waited

    @contextmanager
    def held(self, query: str, *parameters: object) -> Iterator[None]:
        """Rows locked by a third party for as long as the block."""
        with psycopg.connect(self.dsn) as third:
            third.execute(query, parameters)  # type: ignore[arg-type]  # tests write their own SQL
            yield

    def sound(self) -> None:
        assert violations(self.watcher) == []


@pytest.fixture
def race(fresh_db: str, two: tuple[psycopg.Connection[Any], psycopg.Connection[Any]]) -> Iterator[Race]:
    race = Race(fresh_db, *two)
    yield race
    race.close()


def refusal(call: Callable[[], object]) -> str | None:
    """The SQLSTATE with which a call is refused."""
    try:
        call()
    except psycopg.Error as error:
        return error.sqlstate
    return None


# Claims


def test_two_claims_never_give_the_same_run_and_do_not_wait_for_each_other(race: Race) -> None:
    runs = create(race.one, *({} for _ in range(20)))
    ours, theirs, waited = race.overlap(lambda: race.one.claim(race.key, 8), lambda: race.other.claim(race.key, 20))
    assert not waited
    assert sorted(c["run_id"] for c in ours + theirs) == sorted(runs)
    assert len({c["token"] for c in ours + theirs}) == 20
    race.sound()


def test_a_claim_that_is_rolled_back_gives_its_runs_to_another(race: Race) -> None:
    run = race.one.run(None)
    _, theirs, _ = race.overlap(lambda: race.one.claim(race.key), lambda: race.other.claim(race.key), keep=False)
    assert theirs == []
    assert [c["run_id"] for c in race.other.claim(race.key)] == [run]


def test_a_run_whose_creator_commits_late_is_found_while_the_queue_never_empties(race: Race) -> None:
    with race.one.connection.transaction():
        late = race.one.run(None)
        race.other.run(None)
        given = race.other.bare("claim_runs", race.key, 1, {})
    seen: list[str] = []
    for _ in range(6):
        race.other.run(None)
        race.other.run(None)
        race.other.wait(3)
        given = race.other.bare("claim_runs", race.key, 1, given["marks"])
        seen += [claim["run_id"] for claim in given["runs"]]
    assert late in seen


# Creation


def test_two_creations_on_a_free_thread_make_one_active_run(race: Race) -> None:
    thread = race.one.thread()
    first, second, waited = race.overlap(lambda: race.one.run(thread), lambda: race.other.run(thread))
    assert waited
    assert line(race.one, thread) == (first, [second], [])
    race.sound()


def test_a_creation_that_is_rolled_back_leaves_the_thread_to_the_other(race: Race) -> None:
    thread = race.one.thread()
    _, second, _ = race.overlap(lambda: race.one.run(thread), lambda: race.other.run(thread), keep=False)
    assert line(race.one, thread) == (second, [], [])
    race.sound()


@pytest.mark.parametrize("first_waits", [False, True])
def test_of_two_creations_that_reject_one_wins(race: Race, first_waits: bool) -> None:
    thread = race.one.thread()
    body = {"multitask_strategy": "reject"}
    delay = {"after_seconds": 60} if first_waits else {}
    first, refused, waited = race.overlap(
        lambda: race.one.run(thread, **body, **delay), lambda: refusal(lambda: race.other.run(thread, **body))
    )
    assert (waited, refused) == (True, "DG409")
    assert status(race.one, first) == "pending"
    assert race.one.value("select count(*) from duragraph.runs") == 1
    race.sound()


def threads_in_lock_order(race: Race) -> tuple[str, str]:
    for _ in range(2):
        race.one.thread()
    first, second = race.one.rows("select thread_id::text from duragraph.threads order by shard, thread_id")
    return first["thread_id"], second["thread_id"]


def test_two_batches_on_the_same_threads_do_not_lock_each_other_out(race: Race) -> None:
    first, second = threads_in_lock_order(race)
    there, back = [{"thread_id": first}, {"thread_id": second}], [{"thread_id": second}, {"thread_id": first}]
    create(race.one, *there)
    with race.held("select * from duragraph.slots where thread_id = %s for update", first):
        one = race.pool.submit(create, race.one, *there)
        race.settled(one)
        other = race.pool.submit(create, race.other, *back)
        race.settled(one, other)
    assert (len(one.result(timeout=10)), len(other.result(timeout=10))) == (2, 2)
    race.sound()


def test_two_batches_with_keys_do_not_lock_each_other_out(race: Race) -> None:
    first, second = threads_in_lock_order(race)

    def keyed(scene: Scene, *threads: str) -> list[str]:
        body = {"assistant_id": "counter"}
        requests = [{"thread_id": thread, "idempotency_key": str(uuid4()), "body": body} for thread in threads]
        return [run["thread_id"] for run in scene.call("create_runs", requests)]

    create(race.one, {"thread_id": first}, {"thread_id": second})
    with race.held("select * from duragraph.slots where thread_id = %s for update", first):
        one = race.pool.submit(keyed, race.one, first, second)
        race.settled(one)
        other = race.pool.submit(keyed, race.other, second, first)
        race.settled(one, other)
    assert one.result(timeout=10) == [first, second]
    assert other.result(timeout=10) == [second, first]
    race.sound()


def test_the_same_key_twice_at_once_makes_one_run(race: Race) -> None:
    request = [{"idempotency_key": "k", "body": {"assistant_id": "counter"}}]
    ours, theirs, waited = race.overlap(
        lambda: race.one.call("create_runs", request), lambda: race.other.call("create_runs", request)
    )
    assert waited
    assert ours == theirs
    assert race.one.value("select count(*) from duragraph.runs") == 1
    race.sound()


def test_the_key_of_a_creation_that_is_rolled_back_is_free(race: Race) -> None:
    request = [{"idempotency_key": "k", "body": {"assistant_id": "counter"}}]
    ours, theirs, _ = race.overlap(
        lambda: race.one.call("create_runs", request), lambda: race.other.call("create_runs", request), keep=False
    )
    assert ours[0]["run_id"] != theirs[0]["run_id"]
    assert race.one.call("create_runs", request)[0]["run_id"] == theirs[0]["run_id"]


# Double texting


def test_a_run_that_interrupts_meets_the_one_that_comes_at_the_same_time(race: Race) -> None:
    thread = race.one.thread()
    first, second, waited = race.overlap(
        lambda: race.one.run(thread), lambda: race.other.run(thread, multitask_strategy="interrupt")
    )
    assert waited
    assert status(race.one, first) == "interrupted"
    assert line(race.one, thread) == (second, [], [])
    race.sound()


def test_a_run_behind_one_that_interrupts_waits_its_turn(race: Race) -> None:
    thread = race.one.thread()
    for strategy in ("interrupt", "rollback"):
        first, second, _ = race.overlap(
            lambda s=strategy: race.one.run(thread, multitask_strategy=s), lambda: race.other.run(thread)
        )
        assert line(race.one, thread) == (first, [second], [])
    race.sound()


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
def test_of_two_that_interrupt_each_other_the_later_stays(race: Race, strategy: str) -> None:
    thread = race.one.thread()
    race.one.run(thread)
    race.one.claim(race.key)
    first, second, waited = race.overlap(
        lambda: race.one.run(thread, multitask_strategy=strategy),
        lambda: race.other.run(thread, multitask_strategy=strategy),
    )
    assert waited
    assert (status(race.one, first) == "pending", line(race.one, thread)) == (False, (second, [], []))
    race.sound()


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
def test_a_run_that_ends_and_one_that_interrupts_it(race: Race, strategy: str) -> None:
    for ends_first in (True, False):
        thread = race.one.thread()
        race.one.run(thread)
        [claim] = race.one.claim(race.key)
        if ends_first:
            took, new, _ = race.overlap(
                lambda c=claim: finish(race.one, c), lambda t=thread: race.other.run(t, multitask_strategy=strategy)
            )
        else:
            new, took, _ = race.overlap(
                lambda t=thread: race.one.run(t, multitask_strategy=strategy), lambda c=claim: finish(race.other, c)
            )
        assert took is ends_first
        assert line(race.one, thread) == (new, [], [])
        race.sound()
        assert finish(race.one, race.one.claim(race.key)[0])


def test_a_claim_and_a_run_that_interrupts(race: Race) -> None:
    thread = race.one.thread()
    old = race.one.run(thread)
    [claim], new, waited = race.overlap(
        lambda: race.one.claim(race.key), lambda: race.other.run(thread, multitask_strategy="interrupt")
    )
    assert (waited, status(race.one, old)) == (True, "interrupted")
    assert not finish(race.one, claim)
    assert line(race.one, thread) == (new, [], [])
    race.sound()


# Ends and the next in line (P1: nobody is stranded)


def test_a_run_that_ends_takes_along_the_one_that_is_just_joining_the_line(race: Race) -> None:
    thread = race.one.thread()
    race.one.run(thread)
    [claim] = race.one.claim(race.key)
    joined, took, waited = race.overlap(lambda: race.one.run(thread), lambda: finish(race.other, claim))
    assert (waited, took) == (True, True)
    assert line(race.one, thread) == (joined, [], [])
    race.sound()
    assert [c["run_id"] for c in race.one.claim(race.key)] == [joined]


def test_a_run_that_comes_while_the_last_one_ends_starts(race: Race) -> None:
    thread = race.one.thread()
    race.one.run(thread)
    [claim] = race.one.claim(race.key)
    took, new, waited = race.overlap(lambda: finish(race.one, claim), lambda: race.other.run(thread))
    assert (waited, took) == (True, True)
    assert line(race.one, thread) == (new, [], [])
    race.sound()
    assert [c["run_id"] for c in race.one.claim(race.key)] == [new]


@pytest.mark.parametrize("comes_first", [True, False])
def test_a_delayed_run_that_comes_while_the_last_one_ends_keeps_its_time(race: Race, comes_first: bool) -> None:
    thread = race.one.thread()
    race.one.run(thread)
    [claim] = race.one.claim(race.key)
    if comes_first:
        late, _, _ = race.overlap(lambda: race.one.run(thread, after_seconds=60), lambda: finish(race.other, claim))
    else:
        _, late, _ = race.overlap(lambda: finish(race.one, claim), lambda: race.other.run(thread, after_seconds=60))
    assert line(race.one, thread) == (None, [], [late])
    race.sound()
    race.one.wait(120)
    assert [c["run_id"] for c in race.one.claim(race.key)] == [late]


def test_a_creation_for_another_graph_and_an_end_do_not_lock_each_other_out(race: Race) -> None:
    race.one.worker("w2", {"graph_id": "other"})
    thread = race.one.thread()
    race.one.run(thread)
    [claim] = race.one.claim(race.key)
    with race.held("select * from duragraph.threads for update"):
        ending = race.pool.submit(finish, race.one, claim)
        race.settled(ending)
        creating = race.pool.submit(race.other.run, thread, "other")
        race.settled(ending, creating)
    assert ending.result(timeout=10) is True
    new = creating.result(timeout=10)
    assert line(race.one, thread) == (new, [], [])
    race.sound()


def test_the_same_end_twice_at_once_is_one_end(race: Race) -> None:
    thread = race.one.thread()
    race.one.run(thread)
    following = race.one.run(thread)
    [claim] = race.one.claim(race.key)
    ours, theirs, waited = race.overlap(lambda: finish(race.one, claim), lambda: finish(race.other, claim, "error"))
    assert (ours, theirs, waited) == (True, True, True)
    assert status(race.one, claim["run_id"]) == "success"
    assert line(race.one, thread) == (following, [], [])
    race.sound()


# The fence (P4)


def test_a_write_that_is_sent_twice_at_once_is_written_once(race: Race) -> None:
    run = race.one.run(None)
    [claim] = race.one.claim(race.key)
    sent = lambda scene: append(scene, claim, 1, "custom", "custom")  # noqa: E731  # the same call for both
    ours, theirs, waited = race.overlap(lambda: sent(race.one), lambda: sent(race.other))
    assert (ours, theirs, waited) == (True, True, True)
    assert [seq for seq, _, _ in events(race.one, run)] == [1, 2]
    race.sound()


def test_a_step_that_is_sent_twice_at_once_is_committed_once(race: Race) -> None:
    race.one.run(race.one.thread())
    [claim] = race.one.claim(race.key)
    head = race.one.superstep(claim, None, -1, {"count": {"set": 1}}, "pay")
    write = {
        "run_id": claim["run_id"],
        "token": claim["token"],
        "write_no": 2,
        "events": [{"event": "updates", "data": {}}],
        "steps": [step(head, "pay", {"paid": True})],
    }
    ours, theirs, waited = race.overlap(
        lambda: race.one.bare("commit_steps", [write]), lambda: race.other.bare("commit_steps", [write])
    )
    assert waited
    assert ours["refused"] == theirs["refused"] == []
    assert len(events(race.one, claim["run_id"])) == 1
    race.sound()


def late_write(race: Race, write: Callable[[Scene, dict[str, Any]], bool]) -> None:
    """A worker falls silent, another has its run: what the first still sends changes nothing."""
    run = race.one.run(race.one.thread())
    [old] = race.one.claim(race.key)
    head = race.one.superstep(old, None, -1, {"count": {"set": 1}}, "node")
    silence(race.other)
    [new] = race.other.claim(race.other.worker("successor"))
    assert (new["run_id"], new["attempt"]) == (run, 2)
    before = everything(race.one), race.one.rows("select * from duragraph.leases")
    assert not write(race.one, {**old, "head": head})
    assert (everything(race.one), race.one.rows("select * from duragraph.leases")) == before
    assert append(race.other, new, 1, "custom")
    assert finish(race.other, new)
    assert not write(race.one, {**old, "head": head})
    assert status(race.one, run) == "success"
    race.sound()


def commits(scene: Scene, claim: dict[str, Any], **more: object) -> bool:
    write = {
        "run_id": claim["run_id"],
        "token": claim["token"],
        "write_no": 99,
        "events": [{"event": "late", "data": 1}],
        "steps": [step(claim["head"], "node", {"late": True})],
        **more,
    }
    return scene.bare("commit_steps", [write])["refused"] == []


def test_a_superseded_attempt_cannot_append(race: Race) -> None:
    late_write(race, lambda scene, claim: append(scene, claim, 99, "late"))


def test_a_superseded_attempt_cannot_commit_a_step(race: Race) -> None:
    late_write(race, commits)


def test_a_superseded_attempt_cannot_commit_an_end(race: Race) -> None:
    late_write(race, lambda scene, claim: commits(scene, claim, end={"status": "error"}))


def test_a_superseded_attempt_cannot_end_the_run(race: Race) -> None:
    late_write(race, finish)


def test_a_write_that_meets_the_sweep_of_its_lease_is_refused(race: Race) -> None:
    run = race.one.run(None)
    [claim] = race.one.claim(race.key)
    taken, took, waited = race.overlap(lambda: silence(race.one), lambda: append(race.other, claim, 1, "late"))
    assert ([t["run_id"] for t in taken], waited, took) == ([run], True, False)
    assert events(race.one, run) == []
    race.sound()


def test_a_sweep_that_meets_a_write_leaves_the_run_where_it_is(race: Race) -> None:
    run = race.one.run(None)
    [claim] = race.one.claim(race.key)
    race.other.wait(29)
    race.one.wait(28)
    race.other.wait(5)
    took, taken, waited = race.overlap(
        lambda: append(race.one, claim, 1, "custom"), lambda: race.other.bare("release_expired_leases")
    )
    assert (took, taken, waited) == (True, [], False)
    assert race.other.bare("release_expired_leases") == []
    assert status(race.one, run) == "running"


@pytest.mark.parametrize("beats_first", [True, False])
def test_a_beat_that_takes_back_a_lost_claim_and_the_end_of_that_run(race: Race, beats_first: bool) -> None:
    run = race.one.run(race.one.thread())
    [claim] = race.one.claim(race.key)
    race.one.wait(11)
    race.other.wait(11)
    beat = [{"worker_key": race.key, "held": []}]
    if beats_first:
        _, took, _ = race.overlap(lambda: race.one.bare("heartbeat", beat), lambda: finish(race.other, claim))
    else:
        took, _, waited = race.overlap(lambda: finish(race.one, claim), lambda: race.other.bare("heartbeat", beat))
        assert not waited
    assert took is not beats_first
    assert status(race.one, run) == ("pending" if beats_first else "success")
    race.sound()


@pytest.mark.parametrize("leaves_first", [True, False])
def test_a_worker_that_leaves_and_the_end_of_its_run(race: Race, leaves_first: bool) -> None:
    run = race.one.run(race.one.thread())
    [claim] = race.one.claim(race.key)
    if leaves_first:
        _, took, _ = race.overlap(
            lambda: race.one.call("deregister_worker", "worker-1"), lambda: finish(race.other, claim)
        )
    else:
        took, _, _ = race.overlap(
            lambda: finish(race.one, claim), lambda: race.other.call("deregister_worker", "worker-1")
        )
    assert (took, status(race.one, run)) == (not leaves_first, "pending" if leaves_first else "success")
    race.sound()


# Sweeps


def test_two_sweeps_take_each_lease_once(race: Race) -> None:
    for name in ("a", "b"):
        key = race.one.worker(name)
        create(race.one, *({"thread_id": race.one.thread()} for _ in range(3)))
        race.one.claim(key, 3)
    race.one.wait(3600)
    race.other.wait(3600)
    ours, theirs, waited = race.overlap(
        lambda: race.one.bare("release_expired_leases", 4), lambda: race.other.bare("release_expired_leases", 4)
    )
    assert (len(ours), len(theirs), waited) == (4, 2, False)
    assert len({taken["run_id"] for taken in ours + theirs}) == 6
    race.sound()


def test_two_promotions_move_each_run_once(race: Race) -> None:
    thread = race.one.thread()
    create(
        race.one,
        *({"thread_id": thread, "after_seconds": 5} for _ in range(3)),
        *({"after_seconds": 5} for _ in range(3)),
    )
    race.one.wait(60)
    race.other.wait(60)
    ours, theirs, _ = race.overlap(lambda: race.one.bare("promote_due"), lambda: race.other.bare("promote_due"))
    assert (ours, theirs) == (6, 0)
    assert everything(race.one)["scheduled"] == 0
    race.sound()


@pytest.mark.parametrize("on_thread", [True, False])
@pytest.mark.parametrize("promotes_first", [True, False])
@pytest.mark.parametrize("backs_off", [True, False])
def test_a_run_that_is_cancelled_when_its_time_comes(
    race: Race, on_thread: bool, promotes_first: bool, backs_off: bool
) -> None:
    thread = race.one.thread() if on_thread else None
    run = race.one.run(thread, after_seconds=None if backs_off else 5)
    following = race.one.run(thread) if thread else None
    if backs_off:
        [claim] = race.one.claim(race.key)
        assert finish(race.one, claim, "retry", retry_after=5)
    race.one.wait(60)
    race.other.wait(60)
    cancelling = {"run_ids": [run]}
    if promotes_first:
        race.overlap(lambda: race.one.bare("promote_due"), lambda: race.other.call("cancel_runs", cancelling))
    else:
        race.overlap(lambda: race.one.call("cancel_runs", cancelling), lambda: race.other.bare("promote_due"))
    assert (status(race.one, run), places(race.one, run)) == ("interrupted", [])
    assert thread is None or line(race.one, thread) == (following, [], [])
    race.sound()


def test_a_promotion_and_a_batch_on_the_same_threads_do_not_lock_each_other_out(race: Race) -> None:
    first, second = threads_in_lock_order(race)
    race.one.run(second, after_seconds=4)
    race.one.run(first, after_seconds=5)
    race.other.wait(60)
    with race.held("select * from duragraph.slots where thread_id = %s for update", first):
        creating = race.pool.submit(create, race.one, {"thread_id": first}, {"thread_id": second})
        race.settled(creating)
        promoting = race.pool.submit(race.other.bare, "promote_due")
        race.settled(creating, promoting)
    assert (len(creating.result(timeout=10)), promoting.result(timeout=10)) == (2, 2)
    race.sound()


# Cancelling (P7)


@pytest.mark.parametrize("on_thread", [True, False])
def test_a_run_that_is_cancelled_while_it_is_claimed_is_cancelled(race: Race, on_thread: bool) -> None:
    run = race.one.run(race.one.thread() if on_thread else None)
    [claim], cancelled, waited = race.overlap(
        lambda: race.one.claim(race.key), lambda: race.other.call("cancel_runs", {"run_ids": [run]})
    )
    assert waited
    assert [c["token"] for c in cancelled["runs"]] == [claim["token"]]
    assert status(race.one, run) == "interrupted"
    assert not append(race.one, claim, 1, "late")
    race.sound()


@pytest.mark.parametrize("on_thread", [True, False])
def test_a_run_that_is_being_cancelled_is_not_claimed(race: Race, on_thread: bool) -> None:
    run = race.one.run(race.one.thread() if on_thread else None)
    _, claims, waited = race.overlap(
        lambda: race.one.call("cancel_runs", {"run_ids": [run]}), lambda: race.other.claim(race.key)
    )
    assert (claims, waited, status(race.one, run)) == ([], False, "interrupted")
    assert race.one.claim(race.key) == []
    race.sound()


@pytest.mark.parametrize("on_thread", [True, False])
def test_a_run_that_ends_while_it_is_cancelled_ends_once(race: Race, on_thread: bool) -> None:
    for ends_first in (True, False):
        thread = race.one.thread() if on_thread else None
        run = race.one.run(thread)
        [claim] = race.one.claim(race.key)
        following = race.one.run(thread) if thread else None
        cancelling = {"run_ids": [run]}
        if ends_first:
            took, refused, _ = race.overlap(
                lambda c=claim: finish(race.one, c),
                lambda r=cancelling: refusal(lambda: race.other.call("cancel_runs", r)),
            )
            assert (took, refused, status(race.one, run)) == (True, "DG404", "success")
        else:
            _, took, waited = race.overlap(
                lambda r=cancelling: race.one.call("cancel_runs", r), lambda c=claim: finish(race.other, c)
            )
            assert (took, waited, status(race.one, run)) == (False, True, "interrupted")
        assert thread is None or line(race.one, thread) == (following, [], [])
        race.sound()
        if thread:
            assert finish(race.one, race.one.claim(race.key)[0])


@pytest.mark.parametrize("back", ["retry", "release"])
@pytest.mark.parametrize("on_thread", [True, False])
def test_a_run_that_is_cancelled_on_its_way_back_to_the_queue_stays_cancelled(
    race: Race, on_thread: bool, back: str
) -> None:
    run = race.one.run(race.one.thread() if on_thread else None)
    [claim] = race.one.claim(race.key)
    took, _, waited = race.overlap(
        lambda: finish(race.one, claim, back), lambda: race.other.call("cancel_runs", {"run_ids": [run]})
    )
    assert (took, waited, status(race.one, run)) == (True, True, "interrupted")
    race.one.wait(3600)
    assert race.one.claim(race.key) == []
    race.sound()


def test_a_run_that_is_cancelled_while_it_moves_up_is_cancelled(race: Race) -> None:
    thread = race.one.thread()
    race.one.run(thread)
    [claim] = race.one.claim(race.key)
    second, third = race.one.run(thread), race.one.run(thread)
    _, cancelled, waited = race.overlap(
        lambda: finish(race.one, claim), lambda: race.other.call("cancel_runs", {"run_ids": [second]})
    )
    assert (waited, [c["run_id"] for c in cancelled["runs"]]) == (True, [second])
    assert line(race.one, thread) == (third, [], [])
    race.sound()


def test_cancelling_all_and_a_batch_of_steps_do_not_lock_each_other_out(race: Race) -> None:
    create(race.one, {}, {})
    claims = race.one.claim(race.key, 2)
    order = "select run_id::text from duragraph.leases order by shard, run_id"
    first, second = (row["run_id"] for row in race.one.rows(order))
    batch = [
        {"run_id": c["run_id"], "token": c["token"], "write_no": 1, "events": [{"event": "custom"}]}
        for c in sorted(claims, key=lambda c: c["run_id"] == first)
    ]
    assert [w["run_id"] for w in batch] == [second, first]
    for function in ("append_events", "commit_steps"):
        with race.held("select * from duragraph.leases where run_id = %s for update", first):
            cancelling = race.pool.submit(race.one.call, "cancel_runs", {"run_ids": [first, second]})
            race.settled(cancelling)
            writing = race.pool.submit(race.other.bare, function, batch)
            race.settled(cancelling, writing)
        assert len(cancelling.result(timeout=10)["runs"]) == 2
        assert len(writing.result(timeout=10)["refused"]) == 2
        for run in (first, second):
            race.one.bare("retry_run", run)
        claims = race.one.claim(race.key, 2)
        batch = [
            {"run_id": c["run_id"], "token": c["token"], "write_no": 1, "events": [{"event": "custom"}]}
            for c in sorted(claims, key=lambda c: c["run_id"] == first)
        ]
    race.sound()


# Operators


def test_a_retry_and_a_new_run_share_the_thread(race: Race) -> None:
    thread = race.one.thread()
    old = race.one.run(thread)
    race.one.bare("cancel_run", old)
    _, new, waited = race.overlap(lambda: race.one.bare("retry_run", old), lambda: race.other.run(thread))
    assert waited
    assert line(race.one, thread) == (old, [new], [])
    race.sound()


def test_a_retry_that_comes_behind_a_new_run_is_put_off(race: Race) -> None:
    thread = race.one.thread()
    old = race.one.run(thread)
    race.one.bare("cancel_run", old)
    new, said, waited = race.overlap(lambda: race.one.run(thread), lambda: race.other.bare("retry_run", old))
    assert waited
    assert said.startswith(f"Thread {thread} is busy")
    assert (line(race.one, thread), status(race.one, old)) == ((new, [], []), "interrupted")
    race.sound()


def test_two_retries_start_the_run_once(race: Race) -> None:
    for thread in (race.one.thread(), None):
        run = race.one.run(thread)
        race.one.bare("cancel_run", run)
        race.overlap(lambda r=run: race.one.bare("retry_run", r), lambda r=run: race.other.bare("retry_run", r))
        assert places(race.one, run) == ["ready"]
    race.sound()


@pytest.mark.parametrize("on_thread", [True, False])
@pytest.mark.parametrize("retries_first", [True, False])
def test_a_run_that_is_retried_and_deleted_is_gone(race: Race, retries_first: bool, on_thread: bool) -> None:
    thread = race.one.thread() if on_thread else None
    run = race.one.run(thread)
    race.one.bare("cancel_run", run)
    if retries_first:
        race.overlap(lambda: race.one.bare("retry_run", run), lambda: race.other.call("delete_run", thread, run))
    else:
        _, said, _ = race.overlap(
            lambda: race.one.call("delete_run", thread, run), lambda: race.other.bare("retry_run", run)
        )
        assert said == f"There is no run {run}."
    race.sound()
    assert (status(race.one, run), places(race.one, run)) == (None, [])
    assert thread is None or thread_status(race.one, thread) == "idle"


@pytest.mark.parametrize("ends_first", [True, False])
def test_a_run_that_ends_while_it_is_deleted_is_gone(race: Race, ends_first: bool) -> None:
    thread = race.one.thread()
    run = race.one.run(thread)
    [claim] = race.one.claim(race.key)
    following = race.one.run(thread)
    if ends_first:
        race.overlap(lambda: finish(race.one, claim), lambda: race.other.call("delete_run", thread, run))
    else:
        _, took, _ = race.overlap(lambda: race.one.call("delete_run", thread, run), lambda: finish(race.other, claim))
        assert took is False
    assert (status(race.one, run), line(race.one, thread)) == (None, (following, [], []))
    race.sound()


def test_a_run_is_taken_from_its_worker_or_ends_but_not_both(race: Race) -> None:
    run = race.one.run(race.one.thread())
    [claim] = race.one.claim(race.key)
    _, took, waited = race.overlap(lambda: race.one.bare("requeue_run", run), lambda: finish(race.other, claim))
    assert (took, waited, places(race.one, run)) == (False, True, ["ready"])
    [claim] = race.one.claim(race.key)
    took, said, _ = race.overlap(lambda: finish(race.one, claim), lambda: race.other.bare("requeue_run", run))
    assert (took, status(race.one, run)) == (True, "success")
    assert said.startswith("It has ended: success")
    race.sound()


# Workers


def test_a_worker_that_registers_twice_at_once_is_one_worker(race: Race) -> None:
    new = {"graph_id": "new"}
    ours, theirs, waited = race.overlap(
        lambda: race.one.worker("w", COUNTER, new), lambda: race.other.worker("w", new, COUNTER)
    )
    assert waited
    assert ours == theirs
    assert race.one.value("select count(*) from duragraph.graphs where graph_id = 'new'") == 1
    assert race.one.value("select count(*) from duragraph.assistants where graph_id = 'new'") == 1


def test_two_workers_that_bring_the_same_new_graphs_at_once(race: Race) -> None:
    graphs = [{"graph_id": name} for name in "abc"]
    ours, theirs, _ = race.overlap(
        lambda: race.one.worker("w1", *graphs), lambda: race.other.worker("w2", *reversed(graphs))
    )
    assert ours != theirs
    run = race.one.run(None, "b")
    assert [c["run_id"] for c in race.other.claim(theirs)] == [run]
    assert race.one.value("select count(*) from duragraph.graphs where graph_id in ('a', 'b', 'c')") == 3


# Each guard is needed: without it, a test above fails.

TWINS: list[tuple[Callable[..., None], dict[str, Any], str, str, str]] = [
    (
        test_two_claims_never_give_the_same_run_and_do_not_wait_for_each_other,
        {},
        "lease_runs",
        "for update skip locked",
        "",
    ),
    (
        test_a_run_whose_creator_commits_late_is_found_while_the_queue_never_empties,
        {},
        "lease_runs",
        "if coalesce((p_marks ->> '0')",
        "if false and coalesce((p_marks ->> '0')",
    ),
    (
        test_two_creations_on_a_free_thread_make_one_active_run,
        {},
        "enter_threads",
        "coalesce(s.active_run_id, excluded.active_run_id)",
        "excluded.active_run_id",
    ),
    (
        test_of_two_creations_that_reject_one_wins,
        {"first_waits": False},
        "enter_threads",
        "u.strategy = 'reject' and",
        "false and",
    ),
    (
        test_two_batches_on_the_same_threads_do_not_lock_each_other_out,
        {},
        "enter_threads",
        "order by u.shard, u.thread_id),",
        "order by min(u.ord)),",
    ),
    (
        test_two_batches_with_keys_do_not_lock_each_other_out,
        {},
        "create_keyed_runs",
        "order by duragraph.shard_of(r.thread_id), r.thread_id, r.n",
        "order by r.n",
    ),
    (
        test_the_same_key_twice_at_once_makes_one_run,
        {},
        "runs_of_keys",
        "pg_advisory_xact_lock(hashtextextended(k.key, p_tenant))",
        "1",
    ),
    (
        test_a_run_that_interrupts_meets_the_one_that_comes_at_the_same_time,
        {},
        "end_thread_runs",
        "if p_runs is null then",
        "if false then",
    ),
    (
        test_a_run_that_ends_takes_along_the_one_that_is_just_joining_the_line,
        {},
        "promote_threads",
        "for update of s",
        "",
    ),
    (
        test_a_creation_for_another_graph_and_an_end_do_not_lock_each_other_out,
        {},
        "end_runs",
        "v_ready := duragraph.promote_threads(p_ends);",
        "update duragraph.threads t set updated_at = v_now from unnest(p_ends) e where t.thread_id = e.thread_id;"
        " v_ready := duragraph.promote_threads(p_ends);",
    ),
    (test_a_write_that_is_sent_twice_at_once_is_written_once, {}, "append_events", "and l.last_write < w.write_no", ""),
    (test_a_step_that_is_sent_twice_at_once_is_committed_once, {}, "commit_steps", "and l.last_write < w.write_no", ""),
    (test_a_superseded_attempt_cannot_append, {}, "append_events", "and l.token = w.token", ""),
    (test_a_superseded_attempt_cannot_commit_a_step, {}, "commit_steps", "and l.token = w.token", ""),
    (test_a_superseded_attempt_cannot_commit_an_end, {}, "commit_steps", "and l.token = w.token", ""),
    (test_a_superseded_attempt_cannot_end_the_run, {}, "complete_runs", "and l.token = w.token", ""),
    (test_two_sweeps_take_each_lease_once, {}, "release_expired_leases", "for update skip locked", ""),
    (
        test_a_promotion_and_a_batch_on_the_same_threads_do_not_lock_each_other_out,
        {},
        "promote_due",
        "order by d.shard, d.tenant_id, d.thread_id, d.due_at, d.ord",
        "order by d.due_at, d.ord",
    ),
    (test_two_promotions_move_each_run_once, {}, "promote_due", "continue when not found;", ""),
    (
        test_a_run_that_is_cancelled_while_it_is_claimed_is_cancelled,
        {"on_thread": True},
        "end_thread_runs",
        "1 .. 10",
        "1 .. 1",
    ),
    (
        test_a_run_that_is_cancelled_while_it_is_claimed_is_cancelled,
        {"on_thread": False},
        "end_stateless_run",
        "1 .. 10",
        "1 .. 1",
    ),
    (
        test_cancelling_all_and_a_batch_of_steps_do_not_lock_each_other_out,
        {},
        "append_events",
        "order by 1, x.run_id",
        "",
    ),
    (
        test_cancelling_all_and_a_batch_of_steps_do_not_lock_each_other_out,
        {},
        "commit_steps",
        "order by 1, x.run_id",
        "",
    ),
    (
        test_a_run_that_is_retried_and_deleted_is_gone,
        {"retries_first": True, "on_thread": True},
        "delete_run",
        "'pending' for update",
        "'pending'",
    ),
    (test_two_retries_start_the_run_once, {}, "retry_run", "r.run_id = p_run for update", "r.run_id = p_run"),
]


@pytest.mark.parametrize(
    ("subject", "arguments", "function", "guard", "instead"),
    TWINS,
    ids=[f"{t[2]}-{t[0].__name__[5:60]}" for t in TWINS],
)
def test_without_its_guard_the_test_fails(
    race: Race, subject: Callable[..., None], arguments: dict[str, Any], function: str, guard: str, instead: str
) -> None:
    weaken(race.one.connection, function, guard, instead)
    with pytest.raises((AssertionError, psycopg.Error)):
        subject(race, **arguments)
