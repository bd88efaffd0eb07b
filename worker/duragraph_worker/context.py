"""What a node can ask for: `def work(self, state, ctx)`.

An `async def` node gets a Context and awaits its `step`; a plain node gets a SyncContext, whose `step` simply returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from duragraph_worker.errors import NodeError
from duragraph_worker.interrupts import current
from duragraph_worker.store import Store

if TYPE_CHECKING:
    from duragraph_worker.running import TaskRun


class _Shared:
    """What both kinds of context have."""

    def __init__(self, run: TaskRun) -> None:
        self._run = run

    @property
    def run_id(self) -> str:
        """The run."""
        return self._run.claim["run_id"]

    @property
    def thread_id(self) -> str:
        """The thread whose state this is."""
        return self._run.claim.get("thread_id", "")

    @property
    def graph_id(self) -> str:
        """The graph the run was made for."""
        return self._run.claim.get("graph_id", "")

    @property
    def node(self) -> str:
        """This node's name."""
        return self._run.task.name

    @property
    def attempt(self) -> int:
        """Which attempt of the run this is, from 1: it rises when a worker died or the run was retried."""
        return self._run.claim.get("attempt", 1)

    @property
    def step_number(self) -> int:
        """The superstep."""
        return self._run.step_number

    @property
    def idempotency_key(self) -> str:
        """The same in every attempt of this task and different for every other: hand it to services you call."""
        return self._run.task.id

    @property
    def config(self) -> Mapping[str, Any]:
        """The run's config: `configurable`, `tags`, `metadata`, `recursion_limit`."""
        return self._run.config

    @property
    def context(self) -> Any:
        """The run's context: as the graph's context schema (a dataclass or model), else a dict."""
        return self._run.user_context()

    @property
    def cancelled(self) -> bool:
        """Whether the run was stopped meanwhile: long loops in plain functions must look, nothing else stops them."""
        return self._run.cancelled

    @property
    def store(self) -> Store:
        """What is remembered across threads: `await ctx.store.aput(...)`, or `ctx.store.put(...)` in a plain node."""
        return Store(self._run)

    def emit(self, data: Any) -> None:
        """Send any JSON to the `custom` stream of the run, now. Raises StateError for what is no JSON."""
        self._run.emit_custom(data)


class Context(_Shared):
    """For `async def` nodes."""

    async def step(self, name: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `fn` once, whatever happens: its result (JSON) is journaled, and a repeated attempt takes it from there.

        `fn` is a function (run in a thread), a coroutine function or anything that returns an awaitable. A call that
        failed is not journaled. Steps are told apart by name and order: keep both the same between attempts.
        """
        return await self._run.step(name, fn, *args, **kwargs)


class SyncContext(_Shared):
    """For plain nodes, which run in a thread."""

    def step(self, name: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """As Context.step; `fn` is called in this thread."""
        return self._run.step_in_thread(name, fn, *args, **kwargs)


def get_context() -> Context | SyncContext:
    """The context of the node that runs here, for code deep inside one. Raises NodeError elsewhere."""
    asking = current.get()
    run: Any = getattr(asking, "run", asking)
    if run is None:
        raise NodeError("get_context() was called outside a running node")
    made: Context | SyncContext = run.context
    return made
