"""LangGraph's own tests of checkpointers, run on ours: through the fence of a lease, and back from the database."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate

from duragraph_worker.errors import DuraGraphError, LeaseLost
from duragraph_worker.hosting.graphs import LangGraphGraph
from duragraph_worker.hosting.running import HostedRun
from tests.conformance.graphs import toy_graphs as toys
from tests.worker.test_hosting import Hosting, SavingJournal

CAPABILITIES = ("put", "put_writes", "get_tuple", "list", "delete_thread")


class OnLeases(BaseCheckpointSaver[int]):
    """Our saver for any thread: each has a run of its own, claimed, through whose lease all goes.

    `forgetful`: what the run itself saved is forgotten at once, so that all is read back from the database.
    """

    def __init__(self, db: psycopg.Connection[Any], *, forgetful: bool) -> None:
        super().__init__()
        self._db = db
        self._forgetful = forgetful
        self._runs: dict[str, HostedRun] = {}

    async def run(self, thread_id: str) -> HostedRun:
        if thread_id not in self._runs:
            stage = Hosting(self._db, LangGraphGraph("g", toys.echo), thread_id=thread_id)
            stage.register()
            body = {"assistant_id": "g", "if_not_exists": "create", "input": {}}
            stage.call("create_runs", 1, [{"thread_id": thread_id, "body": body}])
            (claim,) = stage.call("claim_runs", stage.worker_key, 10)["runs"]
            self._runs[thread_id] = HostedRun(toys.echo, claim, SavingJournal(stage, claim))
        run = self._runs[thread_id]
        if self._forgetful:
            run.starts_empty = False
            run._saver._latest.clear()
        return run

    async def aget_tuple(self, config: Any) -> CheckpointTuple | None:
        return await (await self._at(config))._saver.aget_tuple(config)

    async def alist(self, config: Any, **options: Any) -> AsyncIterator[CheckpointTuple]:
        async for one in (await self._at(config))._saver.alist(config, **options):
            yield one

    async def aput(self, config: Any, *rest: Any) -> Any:
        run = await self._at(config)
        stored = await run._saver.aput(config, *rest)
        run.outbox.finish()
        await run.outbox.flushed()
        return stored

    async def aput_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        await (await self._at(config))._saver.aput_writes(config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        self._runs.pop(thread_id, None)
        if self._db.execute("select 1 from duragraph.threads where thread_id = %s", [thread_id]).fetchone():
            self._db.execute("select duragraph.delete_thread(1, %s)", [thread_id])

    async def _at(self, config: Any) -> HostedRun:
        return await self.run(config["configurable"]["thread_id"])


@pytest.mark.parametrize("forgetful", [False, True], ids=["as the run knows it", "read back"])
async def test_the_saver_passes_langgraphs_own_tests(forgetful: bool, db: psycopg.Connection[Any]):
    @checkpointer_test(name="duragraph")
    async def saver() -> AsyncIterator[BaseCheckpointSaver[int]]:
        yield OnLeases(db, forgetful=forgetful)

    report = await validate(saver)
    failed = {name: result.failures for name, result in report.results.items() if result.failures}
    assert failed == {}
    assert all(report.results[name].passed and report.results[name].tests_passed for name in CAPABILITIES)


async def test_a_run_that_was_given_away_can_neither_save_nor_read(db: psycopg.Connection[Any]):
    run = await OnLeases(db, forgetful=True).run(str(uuid.uuid4()))
    run_id = run.claim["run_id"]
    db.execute("update duragraph.leases set token = nextval('duragraph.lease_token') where run_id = %s", [run_id])
    config: Any = {"configurable": {"thread_id": run.thread_id, "checkpoint_ns": ""}}
    await run._saver.aput(config, empty_checkpoint(), {"source": "input", "step": -1, "parents": {}}, {})
    run.outbox.finish()
    with pytest.raises(LeaseLost):
        await run.outbox.flushed()
    with pytest.raises(psycopg.Error, match="is lost"), db.transaction():
        await run.read_checkpoints([{}])
    assert db.execute("select count(*) from duragraph.checkpoints").fetchone() == (0,)


async def test_a_sync_call_from_the_event_loop_is_refused_instead_of_hanging(db: psycopg.Connection[Any]):
    run = await OnLeases(db, forgetful=False).run(str(uuid.uuid4()))
    config: Any = {"configurable": {"thread_id": run.thread_id, "checkpoint_ns": ""}}
    with pytest.raises(DuraGraphError, match="await its async one"):
        run._saver.get_tuple(config)
    assert await asyncio.to_thread(run._saver.get_tuple, config) is None


@pytest.mark.parametrize("saved", ["text", 5, None, {"a": 1}, []])
async def test_what_was_saved_in_any_shape_can_be_read_back(saved: Any, db: psycopg.Connection[Any]):
    run = await OnLeases(db, forgetful=True).run(str(uuid.uuid4()))
    claim = run.claim

    def checkpoint(n: int, parent: str | None, channels: Any) -> Any:
        made = {"checkpoint_id": str(uuid.UUID(int=n)), "parent_checkpoint_id": parent, "step": n, "source": "loop"}
        return made | {"channels": channels, "saved": {}}

    first = checkpoint(1, None, {"log": {"set": [1], "saved": saved}})
    second = checkpoint(2, first["checkpoint_id"], {"log": {"append": [2], "saved": saved}})
    write = {"run_id": claim["run_id"], "token": claim["token"], "write_no": 1, "checkpoints": [first, second]}
    db.execute("select duragraph.commit_steps(%s)", [json.dumps([write])])
    ((newest,),) = await run.read_checkpoints([{}])
    assert set(newest["channels"]) == {"log"}
