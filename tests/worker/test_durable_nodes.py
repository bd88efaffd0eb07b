"""What a node can count on: journaled steps, its context, being stopped, failing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from duragraph_worker import (
    END,
    Context,
    Graph,
    MessagesState,
    SyncContext,
    edge,
    entrypoint,
    get_context,
    llm_node,
    node,
    tool,
)
from duragraph_worker.errors import LeaseLost
from duragraph_worker.executor import Executor, join_writes
from duragraph_worker.local import LocalJournal
from duragraph_worker.testing import ScriptedProvider, play, tool_calls
from tests.worker.scenarios import (
    Trail,
    done,
    step,
)


@pytest.fixture(autouse=True)
def _nothing_done_yet():
    done.clear()


class Holding(LocalJournal):
    """Stores what may wait only with the next commit, as late as a journal may."""

    held: list[Any]
    stored: list[str]

    async def write(self, write, *, flush=False):
        self.held.append(write)

    async def commit(self, write):
        write, self.held = join_writes([*self.held, write]), []
        await super().commit(write)
        self.stored += [s["key"] or s["name"] for s in write.get("steps", ())]


def holding(graph: Any, input: Any) -> tuple[Executor, Holding]:
    run = graph.local.prepare(input, thread_id="t")
    claim = run.claim(graph.topology().graph_id)
    journal = Holding(run)
    journal.held, journal.stored = [], []
    return Executor(graph, claim, journal), journal


async def test_what_a_journaled_step_did_is_stored_before_the_node_goes_on():
    @Graph(id="g")
    class Steps:
        @entrypoint
        @node
        async def work(self, state, ctx: Context):
            await ctx.step("first", lambda: 1)
            assert journal.stored == ["first:1"]

        @node
        def plain(self, state, ctx: SyncContext):
            assert journal.stored == ["first:1", "work"]
            ctx.step("second", lambda: 2)
            assert journal.stored == ["first:1", "work", "second:1"]

        work >> plain

    executor, journal = holding(Steps(), {})
    assert (await executor.run()).error is None


async def test_a_models_wish_for_tools_is_stored_before_the_tools_run():
    @tool
    def act() -> str:
        """Acts."""
        assert journal.stored == ["llm:1"]
        return "done"

    def answer(request: Any) -> Any:
        return "ok" if request.messages[-1]["role"] == "tool" else tool_calls(("act", {}))

    @Graph(id="g", state=MessagesState)
    class Acting:
        @llm_node(provider=ScriptedProvider(answer), tools=[act])
        def think(self, state): ...

    executor, journal = holding(Acting(), {"messages": "go"})
    outcome = await executor.run()
    assert [m["content"] for m in outcome.values["messages"]] == ["go", "", "done", "ok"]


async def test_a_finished_sibling_is_recorded_while_the_others_still_run():
    seen: list[Any] = []
    recorded = asyncio.Event()

    class Watching(LocalJournal):
        async def commit(self, write):
            await super().commit(write)
            seen.extend(s["name"] for s in write.get("steps", ()))
            if "fast" in seen:
                recorded.set()

    @Graph(id="g", state=Trail)
    class Uneven:
        a = entrypoint(step("a"))
        fast = step("fast")

        @node
        async def slow(self, state):
            await asyncio.wait_for(recorded.wait(), 5)
            return {"trail": ["slow"]}

        a >> [fast, slow]

    graph = Uneven()
    run = graph.local.prepare({}, thread_id="t")
    outcome = await Executor(graph, run.claim("g"), Watching(run)).run()
    assert outcome.status == "success"
    assert seen == ["a", "fast", "slow"]


async def test_a_failing_sibling_stops_the_others_and_a_later_run_goes_on_from_there():
    fail = True
    cancelled = asyncio.Event()

    @Graph(id="g", state=Trail)
    class Half:
        a = entrypoint(step("a"))
        good = step("good")

        @node
        async def bad(self, state):
            await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            if fail:
                raise RuntimeError("broke")
            return {"trail": ["bad"]}

        @node
        async def slow(self, state):
            try:
                await asyncio.sleep(30 if fail else 0)
            except asyncio.CancelledError:
                cancelled.set()
                raise
            return {"trail": ["slow"]}

        a >> [good, bad, slow]

    graph = Half()
    first = await graph.arun({}, thread_id="t")
    assert first.error == {"error": "RuntimeError", "message": "broke"}
    assert first.next == ("good", "bad", "slow")
    assert cancelled.is_set()
    fail = False
    second = await graph.arun(thread_id="t")
    assert second.output["trail"] == ["a", "good", "bad", "slow"]
    assert second.nodes_executed == ("slow", "bad") or second.nodes_executed == ("bad", "slow")
    assert done["good"] == 1


async def test_a_lost_lease_stops_the_run_and_its_nodes():
    cancelled = asyncio.Event()

    @Graph(id="g", state=Trail)
    class Slow:
        a = entrypoint(step("a"))

        @node
        async def quick(self, state, ctx: Context):
            await ctx.step("write", lambda: None)

        @node
        async def wait(self, state):
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        a >> [quick, wait]

    class Losing(LocalJournal):
        async def commit(self, write):
            if any(s["name"] == "write" for s in write.get("steps", ())):
                raise LeaseLost("gone")
            await super().commit(write)

    graph = Slow()
    run = graph.local.prepare({}, thread_id="t")
    with pytest.raises(LeaseLost):
        await Executor(graph, run.claim("g"), Losing(run)).run()
    assert cancelled.is_set()
    assert run.end is None


async def test_cancelling_the_executor_cancels_its_nodes_and_ends_nothing():
    started = asyncio.Event()

    @Graph(id="g", state=Trail)
    class Slow:
        @entrypoint
        @node
        async def wait(self, state):
            started.set()
            await asyncio.sleep(30)

    graph = Slow()
    run = graph.local.prepare({}, thread_id="t")
    task = asyncio.create_task(Executor(graph, run.claim("g"), LocalJournal(run)).run())
    await asyncio.wait_for(started.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert run.end is None


@pytest.mark.parametrize("kind", [SystemExit, StopIteration, asyncio.CancelledError], ids=lambda k: k.__name__)
@pytest.mark.parametrize("sync", [False, True], ids=["async", "plain"])
async def test_a_node_cannot_take_the_worker_down(kind: Any, sync: bool):
    @Graph(id="g")
    class Bad:
        if sync:

            @node
            def bad(self, state):
                raise kind("boo")
        else:

            @node
            async def bad(self, state):
                raise kind("boo")

    result = await Bad().arun({})
    assert result.status == "error"
    assert result.error is not None
    assert result.error["error"] in ("NodeError", "RuntimeError")


async def test_the_idempotency_key_is_the_same_in_every_attempt_and_another_in_every_superstep():
    keys: list[str] = []

    @Graph(id="g", state=Trail)
    class Keys:
        @entrypoint
        @node
        async def work(self, state, ctx: Context):
            keys.append(ctx.idempotency_key)
            await ctx.step("noted", lambda: None)
            return {"n": state.get("n", 0) + 1}

        edge(work).to_conditional(lambda self, state: "work" if state["n"] < 2 else END, [work, END])

    await play(Keys(), [{"input": {}}], crash_at=2)  # the input, then the journaled step
    assert len(keys) == 3
    assert keys[0] == keys[1] != keys[2]


async def test_a_journaled_step_is_done_once_and_a_failed_one_again():
    fail = True

    @Graph(id="g")
    class Steps:
        @node
        def work(self, state, ctx: SyncContext):
            ctx.step("once", lambda: done.update(["once"]))
            return {"value": ctx.step("flaky", self.flaky)}

        def flaky(self):
            done["flaky"] += 1
            if fail:
                raise OSError("away")
            return 7

    graph = Steps()
    first = await graph.arun({}, thread_id="t")
    assert first.error == {"error": "OSError", "message": "away"}
    fail = False
    second = await graph.arun(thread_id="t")
    assert second.output == {"value": 7}
    assert done == {"once": 1, "flaky": 2}


async def test_a_step_that_is_no_json_is_refused_with_its_place():
    @Graph(id="g")
    class Steps:
        @node
        async def work(self, state, ctx: Context):
            await ctx.step("bad", lambda: {"at": [object()]})

    result = await Steps().arun({})
    assert result.error is not None
    assert result.error["error"] == "StateError"
    assert "the result of step 'bad'.at[0] is a builtins.object" in result.error["message"]


async def test_the_context_is_there_for_code_deep_inside():
    def deep() -> str:
        return get_context().node

    @Graph(id="g")
    class Deep:
        @node
        def here(self, state):
            return {"node": deep()}

    assert (await Deep().arun({})).output == {"node": "here"}
