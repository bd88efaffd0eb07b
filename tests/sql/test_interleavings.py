"""Random schedules of clients, workers and operators: what must be true is true after each step, and every run ends.

Each schedule comes from its seed, which a failure names. DURAGRAPH_SEEDS asks for more of them, DURAGRAPH_FIRST_SEED
begins elsewhere: `DURAGRAPH_SEEDS=20000 pytest tests/sql/test_interleavings.py`, or one alone with
`DURAGRAPH_FIRST_SEED=123 DURAGRAPH_SEEDS=1 pytest -n 0 tests/sql/test_interleavings.py`.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from random import Random
from threading import Lock
from typing import Any

import psycopg
import pytest

from tests.sql.acts import events, thread_status, weaken
from tests.sql.invariants import violations
from tests.sql.scene import COUNTER, Scene, step
from tests.waiting import wait_for

SEEDS = int(os.environ.get("DURAGRAPH_SEEDS", "240"))
FIRST = int(os.environ.get("DURAGRAPH_FIRST_SEED", "0"))
ROUND = 12

TABLES = (
    *("threads", "runs", "idempotency_keys", "ready", "slots", "waiting", "scheduled", "worker_heartbeats", "workers"),
    *("leases", "events", "checkpoints", "channel_values", "steps", "interrupts"),
)
WAITING = """
select count(*) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
  and wait_event_type = 'Lock'
"""
ENDED = ("success", "error", "timeout", "interrupted")

Effect = Callable[[], None]


def nothing() -> None:
    """The effect of a call that was refused."""


class World:
    """Two threads, two workers, and what all callers were told so far."""

    def __init__(self, seed: int, watcher: psycopg.Connection[Any], *connections: psycopg.Connection[Any]) -> None:
        self.random = Random(seed)
        for name in TABLES:
            connections[0].execute(f"delete from duragraph.{name}")
        self.scenes = [Scene(connection) for connection in connections]
        self.watcher = watcher
        self.lock = Lock()
        self.clock(0)
        first = self.scenes[0]
        self.threads = [first.thread() for _ in range(2)]
        self.workers = [first.worker(name, COUNTER, lease_seconds=30) for name in ("w1", "w2")]
        self.claims: dict[int, list[dict[str, Any]]] = {key: [] for key in self.workers}
        self.heads: dict[int, str | None] = {}
        self.numbers: dict[int, int] = defaultdict(int)
        self.runs: dict[str, str] = {}  # each run that somebody was told of, as last seen
        self.logs: dict[str, list[str]] = defaultdict(list)  # names of the events whose write was acknowledged
        self.busy: set[int] = set()  # tokens in use in this step: a worker sends one write of a run at a time
        self.sent: dict[int, tuple[str, dict[str, Any]]] = {}  # the last write that was acknowledged, by token
        self.latest: dict[str, int] = {}  # the last token that was given out, by run
        self.over: set[int] = set()  # tokens under which an end was acknowledged
        self.retried: set[str] = set()
        self.crowded = False
        self.erasing = False  # a call of this step may have erased runs
        self.acts: list[Callable[[Scene], Effect]] = [
            *[self.create] * 5,
            *[self.claim] * 5,
            *[self.write] * 6,
            *[self.end] * 4,
            *[self.resend] * 2,
            *[self.cancel] * 2,
            self.beat,
            self.beat,
            self.sweep,
            self.promote,
            self.retry,
            self.requeue,
            self.delete,
            self.leave,
        ]

    def clock(self, seconds: float) -> None:
        for scene in self.scenes:
            scene.wait(seconds)

    # What clients, workers and operators do. Each gives what becomes true when it is committed.

    def create(self, scene: Scene) -> Effect:
        requests = []
        for _ in range(self.random.choice([1, 1, 2, 3])):
            thread = self.random.choice([*self.threads, None])
            body = {
                "assistant_id": "counter",
                "multitask_strategy": self.random.choice(["enqueue"] * 5 + ["reject", "interrupt", "rollback"]),
                "after_seconds": self.random.choice([None] * 4 + [1, 20]),
                "max_attempts": self.random.choice([1, 2, 3]),
                "priority": self.random.choice([0, 0, 0, 5]),
            }
            key = self.random.choice([None] * 4 + ["k1", "k2"])
            requests.append({"thread_id": thread, "idempotency_key": key, "body": body})
        self.erasing |= any(r["body"]["multitask_strategy"] == "rollback" for r in requests)
        made = scene.call("create_runs", requests)

        def effect() -> None:
            for run in made:
                self.runs.setdefault(run["run_id"], "pending")

        return effect

    def claim(self, scene: Scene) -> Effect:
        key = self.random.choice(self.workers)
        claims = scene.claim(key, self.random.choice([1, 1, 2, 5]))

        def effect() -> None:
            self.claims[key] += claims
            for claim in claims:
                self.heads[claim["token"]] = (claim["checkpoint"] or {}).get("checkpoint_id")

        return effect if self.random.random() < 0.9 else nothing  # the answer may get lost

    def write(self, scene: Scene) -> Effect:
        """One run's events, sometimes with a step, sometimes with an end; sometimes from a worker long superseded."""
        if not (claim := self.some_claim()):
            return nothing
        token, run = claim["token"], claim["run_id"]
        names = [f"e{self.random.randrange(1000)}" for _ in range(self.random.randrange(3))]
        write: dict[str, Any] = {"run_id": run, "token": token, "write_no": self.numbers[token] + 1}
        write["events"] = [{"event": name, "data": {}} for name in names]
        head = self.heads[token]
        function = "append_events"
        if self.random.random() < 0.6:
            function = "commit_steps"
            parent, head = head, str(scene.bare("make_id"))
            changed = {self.random.choice(["log", "other"]): {"append": [run]}, "count": {"set": token}}
            write["checkpoint_id"] = head
            write["checkpoints"] = [
                {
                    "checkpoint_id": head,
                    "parent_checkpoint_id": parent,
                    "step": 1,
                    "source": "loop",
                    "channels": changed,
                }
            ]
            if parent:
                write["steps"] = [step(parent, f"n{token}-{write['write_no']}", {"by": token})]
            if self.random.random() < 0.3:
                write["end"] = self.some_end()
        twice = self.random.random() < 0.2
        refused = scene.bare(function, [write, write] if twice else [write])["refused"]
        if refused:
            return nothing

        def effect() -> None:
            # Once its end was acknowledged, another end is taken for a repeat; anything else must have been refused.
            assert token not in self.over or "end" in write
            if token not in self.over:
                self.acknowledged(claim)
                self.numbers[token] += 1
                self.heads[token] = head
                self.logs[run] += names
                self.sent[token] = function, write
            if "end" in write:
                self.over.add(token)

        return effect

    def end(self, scene: Scene) -> Effect:
        if not (claim := self.some_claim()):
            return nothing
        write = {"run_id": claim["run_id"], "token": claim["token"], "end": self.some_end()}
        refused = scene.bare("complete_runs", [write])["refused"]

        def effect() -> None:
            if claim["token"] not in self.over:
                self.acknowledged(claim)
            self.over.add(claim["token"])

        return nothing if refused else effect

    def acknowledged(self, claim: dict[str, Any]) -> None:
        """Only the attempt that has the run writes, and none does when it has ended."""
        run = claim["run_id"]
        assert claim["token"] >= self.latest.get(run, 0), f"a superseded attempt wrote to run {run}"
        # In a crowd it may have been retried just now.
        assert self.crowded or self.runs.get(run, "pending") == "pending", (
            f"somebody wrote to run {run}, which was {self.runs[run]}"
        )

    def resend(self, scene: Scene) -> Effect:
        """The answer to a write was lost: it is sent again, and changes nothing."""
        if claim := self.some_claim():
            function, write = self.sent.get(claim["token"], ("append_events", {}))
            if write:
                scene.bare(function, [write])
        return nothing

    def beat(self, scene: Scene) -> Effect:
        key = self.random.choice(self.workers)
        held = [claim["token"] for claim in self.claims[key] if self.random.random() < 0.9]
        [answer] = scene.bare("heartbeat", [{"worker_key": key, "held": self.random.choice([held, None])}])

        def effect() -> None:
            # A worker that hears of it stops, most of the time.
            if self.random.random() < 0.7:
                self.claims[key] = [claim for claim in self.claims[key] if claim["token"] not in answer["lost"]]

        return effect

    def sweep(self, scene: Scene) -> Effect:
        scene.bare("release_expired_leases")
        return nothing

    def promote(self, scene: Scene) -> Effect:
        scene.bare("promote_due")
        return nothing

    def cancel(self, scene: Scene) -> Effect:
        action = self.random.choice(["interrupt", "interrupt", "rollback"])
        self.erasing |= action == "rollback"
        if self.random.random() < 0.3:
            scene.call("cancel_runs", {"thread_id": self.random.choice(self.threads), "action": action})
        elif self.runs:
            chosen = self.random.choices(list(self.runs), k=self.random.choice([1, 1, 2, 3]))
            scene.call("cancel_runs", {"run_ids": chosen, "action": action})
        return nothing

    def retry(self, scene: Scene) -> Effect:
        ended = [run for run, status in dict(self.runs).items() if status in ENDED]
        if not ended:
            return nothing
        run = self.random.choice(ended)
        said = scene.bare("retry_run", run)
        return lambda: self.retried.add(run) if "is queued again" in said else None

    def requeue(self, scene: Scene) -> Effect:
        if self.runs:
            scene.bare("requeue_run", self.random.choice(list(self.runs)))
        return nothing

    def delete(self, scene: Scene) -> Effect:
        if self.runs:
            self.erasing = True
            scene.call("delete_run", None, self.random.choice(list(self.runs)))
        return nothing

    def leave(self, scene: Scene) -> Effect:
        name = self.random.choice(["w1", "w2"])
        scene.call(self.random.choice(["deregister_worker", "drain_worker"]), name)
        if self.random.random() < 0.9:
            scene.worker(name, COUNTER, lease_seconds=30)
        return nothing

    def some_claim(self) -> dict[str, Any] | None:
        claims = [claim for held in list(self.claims.values()) for claim in held]
        claims = [claim for claim in claims if claim["token"] not in self.busy]
        if not claims:
            return None
        # Mostly a recent one: old ones are mostly superseded.
        claim = self.random.choice(claims[-4:] if self.random.random() < 0.7 else claims)
        self.busy.add(claim["token"])
        return claim

    def some_end(self) -> dict[str, Any]:
        status = self.random.choice(["success"] * 4 + ["error", "timeout", "interrupted", "retry", "retry", "release"])
        return {"status": status, "retry_after": self.random.choice([0, 5]), "error": {"error": "E", "message": "m"}}

    # Steps

    def act(self, scene: Scene) -> tuple[str, Effect]:
        """Do something; its name and its effect. A refusal with a reason is no effect, anything else is a failure."""
        with self.lock:
            act = self.random.choice(self.acts)
        try:
            with scene.connection.transaction():
                return act.__name__, act(scene)
        except psycopg.Error as error:
            # DG409, DG404, ...; a checkpoint that was rolled back or deleted meanwhile is no ground to stand on.
            if not (error.sqlstate or "").startswith("DG") and not isinstance(error, psycopg.errors.NotNullViolation):
                raise
            return f"{act.__name__} (refused)", nothing

    def alone(self, _: ThreadPoolExecutor) -> str:
        """One caller after another."""
        name, effect = self.act(self.random.choice(self.scenes))
        effect()
        return name

    def overlapping(self, pool: ThreadPoolExecutor) -> str:
        """One caller holds its transaction open while another comes; it may roll back."""
        one, other = self.scenes
        rolled_back = self.random.random() < 0.3
        with one.connection.transaction(force_rollback=rolled_back):
            name, effect = self.act(one)
            second = pool.submit(self.act, other)

            def settled() -> bool:
                waiting = self.watcher.execute(WAITING).fetchone()
                return second.done() or (waiting is not None and waiting[0] > 0)

            wait_for(settled, what="the second caller to end or to wait for a lock")
        then, afterwards = second.result(timeout=10)
        if not rolled_back:
            effect()
        afterwards()
        return f"{name}{' (rolled back)' if rolled_back else ''} x {then}"

    def crowd(self, pool: ThreadPoolExecutor) -> str:
        """All callers at once, each on its own, as fast as they can."""

        def caller(scene: Scene) -> list[str]:
            done = []
            for _ in range(8):
                try:
                    name, effect = self.act(scene)
                except psycopg.errors.DeadlockDetected:
                    # As the control plane does, once. It chooses anew here: the act is drawn, not remembered.
                    name, effect = self.act(scene)
                with self.lock:
                    effect()
                done.append(name)
            return done

        self.crowded = True
        return "; ".join(", ".join(done) for done in pool.map(caller, self.scenes))

    # What must be true

    def check(self) -> None:
        assert violations(self.watcher) == []
        rows = self.watcher.execute("select run_id::text, status from duragraph.runs").fetchall()
        now = dict(rows)
        for run, before in list(self.runs.items()):
            after = now.get(run)
            if after is None:
                assert self.erasing, f"run {run} is gone, and nobody erased it"
                del self.runs[run]
            elif before in ENDED and after != before:
                assert run in self.retried, f"run {run} was {before} and is {after}, and nobody retried it"
        # A keyed or rolled back creation may have made runs that nobody was told of: from now on they are known.
        self.runs = dict(rows)
        self.latest |= dict(self.watcher.execute("select run_id::text, token from duragraph.leases").fetchall())
        self.retried.clear()
        self.busy.clear()
        self.erasing = False

    def drain(self) -> None:
        """Time goes on, and workers finish what there is: every run ends."""
        scene = self.scenes[0]
        for _ in range(40):
            self.clock(60)
            scene.bare("release_expired_leases")
            key = scene.worker("w1", COUNTER, lease_seconds=30)
            claims = scene.claim(key, 100)
            ends = [{"run_id": c["run_id"], "token": c["token"], "end": {"status": "success"}} for c in claims]
            assert scene.bare("complete_runs", ends)["refused"] == []
            if not scene.value("select count(*) from duragraph.runs where status = 'pending'"):
                break
        self.erasing = False
        self.retried = set()
        self.check()
        assert set(self.runs.values()) <= set(ENDED)
        for name in ("ready", "slots", "waiting", "scheduled", "leases"):
            assert scene.value(f"select count(*) from duragraph.{name}") == 0, name
        assert {thread_status(scene, thread) for thread in self.threads} <= {"idle", "error", "interrupted"}
        for run in self.runs:
            logged = [name for _, name, _ in events(scene, run) if name not in ("metadata", "error")]
            assert logged == self.logs.get(run, []), f"the log of run {run} is not what was acknowledged"


def rounds(seeds: int) -> list[range]:
    return [range(first, min(first + ROUND, FIRST + seeds)) for first in range(FIRST, FIRST + seeds, ROUND)]


def explore(seeds: range, dsn: str, callers: int, step: Callable[[World, ThreadPoolExecutor], str], steps: int) -> None:
    with ExitStack() as stack:
        watcher, *connections = [stack.enter_context(psycopg.connect(dsn, autocommit=True)) for _ in range(callers + 1)]
        pool = stack.enter_context(ThreadPoolExecutor(callers))
        for seed in seeds:
            done: list[str] = []
            try:
                world = World(seed, watcher, *connections)
                for _ in range(steps):
                    done.append(step(world, pool))
                    world.check()
                    if world.random.random() < 0.25:
                        world.clock(world.random.choice([1, 11, 40]))
                world.drain()
            except BaseException as problem:
                problem.add_note(f"seed {seed}, step {len(done)}: {' | '.join(done)}")
                raise


def name(seeds: range) -> str:
    return f"{seeds.start}-{seeds.stop - 1}"


@pytest.mark.parametrize("seeds", rounds(SEEDS), ids=name)
def test_one_caller_after_another(seeds: range, fresh_db: str) -> None:
    explore(seeds, fresh_db, 2, World.alone, steps=30)


@pytest.mark.parametrize("seeds", rounds(-(-SEEDS * 2 // 5)), ids=name)
def test_one_caller_while_another_has_not_committed(seeds: range, fresh_db: str) -> None:
    explore(seeds, fresh_db, 2, World.overlapping, steps=30)


@pytest.mark.parametrize("seeds", rounds(-(-SEEDS // 10)), ids=name)
def test_all_callers_at_once(seeds: range, fresh_db: str) -> None:
    """Not from its seed alone: the processor's timing has a say too."""
    explore(seeds, fresh_db, 4, World.crowd, steps=6)


# Without one of these the schedules must go wrong, and be found out.
TWINS = [
    ("enter_threads", "filter (where s.active_run_id is not null)", "", World.alone, 72),
    ("append_events", "and l.token = w.token", "", World.alone, 116),
    ("complete_runs", "and l.token = w.token", "", World.alone, 93),
    ("append_events", "and l.last_write < w.write_no", "", World.alone, 12),
    ("promote_threads", "and s.delayed > 0", "", World.alone, 0),
    ("promote_threads", "for update of s", "", World.overlapping, 297),
]


@pytest.mark.parametrize(
    ("function", "guard", "instead", "step", "first"), TWINS, ids=[f"{t[0]} without {t[1]}" for t in TWINS]
)
def test_a_broken_engine_is_found_out(
    function: str,
    guard: str,
    instead: str,
    step: Callable[[World, ThreadPoolExecutor], str],
    first: int,
    fresh_db: str,
) -> None:
    """`first`: a seed that finds it, so that the search is short; others do too."""
    with psycopg.connect(fresh_db, autocommit=True) as connection:
        weaken(connection, function, guard, instead)
    with pytest.raises((AssertionError, psycopg.Error)):
        explore(range(first, first + 300), fresh_db, 2, step, steps=30)
