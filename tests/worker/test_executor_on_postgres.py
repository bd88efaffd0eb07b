"""The same graphs with the same results when their writes go through the SQL functions, crashes included."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from duragraph_worker.errors import LeaseLost
from duragraph_worker.executor import Executor, join_writes
from duragraph_worker.testing import Crash, play, without_ids
from tests.worker import toy_graphs as toys
from tests.worker.scenarios import SCENARIOS
from tests.worker.test_toy_graphs import CALLS, HI

EVERY = [(graph, calls) for graph, calls in [*CALLS, *SCENARIOS.values()]]

_ID = re.compile(r"(run-)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b")


class SqlJournal:
    """Sends each write as one call of commit_steps, and dies after write number `crash_at` of the scenario."""

    def __init__(self, stage: Stage, claim: Mapping[str, Any]) -> None:
        self.stage = stage
        self.claim = claim
        self.number = 0
        self.dead = False
        self.held: list[Any] = []

    async def commit(self, write: Mapping[str, Any]) -> None:
        if self.dead:
            raise Crash
        self.number += 1
        self.stage.writes += 1
        write, self.held = join_writes([*self.held, write]), []
        sent = {"run_id": self.claim["run_id"], "token": self.claim["token"], "write_no": self.number, **write}
        answer = self.stage.call("commit_steps", [sent])
        if answer["refused"]:
            raise LeaseLost(str(answer))
        if self.stage.writes == self.stage.crash_at:
            self.dead = True
            raise Crash

    async def store(self, ops: list[Any]) -> Any:
        return self.stage.call("run_store_batch", self.claim["run_id"], self.claim["token"], ops)

    async def write(self, write: Mapping[str, Any], *, flush: bool = False) -> None:
        if self.stage.joined:
            self.held.append(write)
        else:
            await self.commit(write)


@dataclass
class Stage:
    """One thread on which runs are played through the database."""

    db: psycopg.Connection[Any]
    graph: Any
    crash_at: int | None = None
    joined: bool = False
    """Whether what may wait goes out with the next commit, as a worker does it."""
    writes: int = 0
    thread_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    worker_key: int = 0

    def call(self, function: str, *arguments: Any) -> Any:
        marks = ", ".join("%s" for _ in arguments)
        values = [json.dumps(a) if isinstance(a, list | dict) else a for a in arguments]
        row = self.db.execute(f"select duragraph.{function}({marks})", values).fetchone()
        assert row is not None
        return row[0]

    def register(self) -> None:
        topology = self.graph.topology()
        graph = {"graph_id": topology.graph_id, "definition": topology.definition(), "schemas": topology.schemas()}
        self.worker_key = self.call("register_worker", 1, {"worker_id": "w", "graphs": [graph]})["worker_key"]

    @property
    def assistant(self) -> str:
        return str(self.graph.topology().graph_id)

    async def execute(self, claim: Any) -> None:
        await Executor(self.graph, claim, SqlJournal(self, claim)).run()

    async def play(self, calls: Sequence[Mapping[str, Any]]) -> None:
        self.register()
        for call in calls:
            await self.run(call)

    async def run(self, call: Mapping[str, Any]) -> str:
        body = {"assistant_id": self.assistant, "if_not_exists": "create", **call}
        if "resume" in body:
            body["command"] = {"resume": body.pop("resume")}
        run_id: str = self.call("create_runs", 1, [{"thread_id": self.thread_id, "body": body}])[0]["run_id"]
        await self.attempts()
        return run_id

    async def attempts(self) -> None:
        """Play what waits; where the worker dies of it, once more by the next."""
        for _ in range(3):
            claims = self.call("claim_runs", self.worker_key, 10)["runs"]
            if not claims:
                break  # it died after its last write
            try:
                await self.execute(claims[0])
            except Crash:
                self.db.execute("update duragraph.worker_heartbeats set expires_at = now() - interval '1 hour'")
                self.db.execute("update duragraph.leases set expires_at = now() - interval '1 hour'")
                self.call("release_expired_leases", 100)
                self.db.execute("update duragraph.worker_heartbeats set expires_at = now() + interval '1 hour'")

    def events(self, run_id: str) -> list[tuple[str, Any]]:
        """The frames of a run, as its subscribers get them."""
        row = self.db.execute(
            "select frames from duragraph.read_events(%s)", [json.dumps([{"run_id": run_id, "after": 0}])]
        ).fetchone()
        assert row is not None
        frames = [frame.split("\x1f") for frame in row[0].split("\x1e")]
        return [(name, json.loads(data)) for _, name, data in frames if name != "metadata"]

    def output(self) -> Any:
        last = self.db.execute(
            "select run_id from duragraph.runs order by created_at desc, run_id desc limit 1"
        ).fetchone()
        assert last is not None
        answer = self.call("run_output", 1, last[0])
        assert answer["done"], answer
        return answer

    def steps(self) -> int:
        row = self.db.execute("select count(*) from duragraph.steps where thread_id = %s", [self.thread_id]).fetchone()
        assert row is not None
        return int(row[0])


def plain(output: Mapping[str, Any]) -> Any:
    """An output without ids and without what names the run."""
    return without_ids({k: v for k, v in output.items() if k not in ("seen", "__interrupt__")})


@pytest.mark.parametrize("joined", [False, True], ids=["one by one", "joined"])
@pytest.mark.parametrize(("graph", "calls"), EVERY, ids=lambda v: v.__name__ if isinstance(v, type) else "")
async def test_a_graph_ends_as_it_does_locally(graph: Any, calls: Any, joined: bool, db: psycopg.Connection[Any]):
    local = await play(graph(), calls)
    stage = Stage(db, graph(), joined=joined)
    await stage.play(calls)
    answer = stage.output()
    assert answer["status"] == "success"
    assert plain(answer["output"]) == plain(local.output)
    assert stage.steps() == len(local.ledger)


@pytest.mark.parametrize(("graph", "calls"), EVERY, ids=lambda v: v.__name__ if isinstance(v, type) else "")
async def test_a_crash_after_any_write_leaves_the_same_state_and_the_same_ledger(
    graph: Any, calls: Any, db: psycopg.Connection[Any]
):
    local = await play(graph(), calls)
    for crash_at in range(1, 1000):
        with db.transaction(force_rollback=True):
            stage = Stage(db, graph(), crash_at)
            await stage.play(calls)
            assert plain(stage.output()["output"]) == plain(local.output), f"crash after write {crash_at}"
            assert stage.steps() == len(local.ledger), f"crash after write {crash_at}"
            if stage.writes < crash_at:
                break


@pytest.mark.parametrize("joined", [False, True], ids=["one by one", "joined"])
@pytest.mark.parametrize(
    ("graph", "call"),
    [
        (toys.Counter, {"input": {"target": 1}, "stream_mode": ["values", "updates"]}),
        (toys.Tokens, {"input": HI, "stream_mode": ["values", "custom", "messages"]}),
        (toys.Interrupting, {"input": {"request": "x"}, "stream_mode": ["values", "updates"]}),
        (toys.Nested, {"input": {}, "stream_mode": ["values", "updates"], "stream_subgraphs": True}),
        (toys.Failing, {"input": {}, "stream_mode": ["values", "tasks"]}),
        (toys.Slow, {"input": {"steps": 2, "sleep": 0}, "stream_mode": ["values"], "durability": "exit"}),
    ],
    ids=lambda v: v.__name__ if isinstance(v, type) else "",
)
async def test_a_stream_is_the_same_as_locally(graph: Any, call: Any, joined: bool, db: psycopg.Connection[Any]):
    stage = Stage(db, graph(), joined=joined)
    stage.register()
    run_id = await stage.run(call)
    options = {**call, "subgraphs": call.get("stream_subgraphs", False)}
    options.pop("stream_subgraphs", None)
    local = [(event.type, event.data) async for event in graph().stream(**options)]
    assert [same_everywhere(e) for e in stage.events(run_id)] == [same_everywhere(e) for e in local]


def same_everywhere(event: tuple[str, Any]) -> Any:
    """A frame without ids, and without the metadata that names the run."""
    name, data = event
    if name == "messages/metadata":
        return name
    text = _ID.sub("id", json.dumps([name.split(":")[0], data], sort_keys=True))
    found = json.loads(text)
    if name == "tasks":
        found[1].pop("metadata", None)
    return found


async def test_a_stateless_run_keeps_its_output_and_what_it_asked(db: psycopg.Connection[Any]):
    stage = Stage(db, toys.Interrupting())
    stage.thread_id = None  # type: ignore[assignment]  # that is what makes it stateless
    stage.register()
    await stage.run({"input": {"request": "x"}})
    answer = stage.output()
    assert answer["status"] == "success"
    assert answer["output"]["status"] == "waiting"
    assert answer["output"]["__interrupt__"][0]["value"] == {"question": "approve x?", "number": 1}


async def test_an_answer_after_an_update_is_taken_crashes_included(db: psycopg.Connection[Any]):
    for crash_at in (None, *range(2, 6)):
        with db.transaction(force_rollback=True):
            stage = Stage(db, toys.Interrupting(), crash_at)
            stage.register()
            await stage.run({"input": {"request": "x"}})
            stage.call("put_state", 1, stage.thread_id, {"values": {"request": "z"}})
            await stage.run({"resume": "yes"})
            output = stage.output()["output"]
            assert (output["request"], output["answers"], output["status"]) == ("z", ["yes"], "done")


async def test_a_fork_runs_again_what_was_finished_there(db: psycopg.Connection[Any]):
    stage = Stage(db, toys.Interrupting())
    stage.register()
    await stage.run({"input": {"request": "x"}})
    point = stage.call("get_state", 1, stage.thread_id)["checkpoint_id"]
    await stage.run({"resume": "a"})
    await stage.run({"input": None, "checkpoint_id": point})
    assert stage.output()["output"]["__interrupt__"][0]["value"] == {"question": "approve x?", "number": 1}
    await stage.run({"resume": "b"})
    assert stage.output()["output"]["answers"] == ["b"]
    sources = {state["metadata"]["source"] for state in stage.call("get_history", 1, stage.thread_id, {"limit": 20})}
    assert sources == {"input", "loop", "fork"}


async def test_a_node_sees_the_ids_and_the_metadata_of_its_run(db: psycopg.Connection[Any]):
    stage = Stage(db, toys.Contextual())
    stage.register()
    run_id = await stage.run({"input": {"text": "t"}, "metadata": {"purpose": "test"}})
    seen = stage.output()["output"]["seen"]
    assert seen["metadata"]["purpose"] == "test"
    for place in (seen["configurable"], seen["metadata"]):
        assert (place["run_id"], place["thread_id"], place["graph_id"]) == (run_id, stage.thread_id, "context")
        assert uuid.UUID(place["assistant_id"])
