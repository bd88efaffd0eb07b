"""Runs one task: calls the node's method as its kind says, and turns what it returned into a Result."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from duragraph_worker.commands import Command, Send, Target, as_targets
from duragraph_worker.context import Context, SyncContext
from duragraph_worker.errors import InvalidUpdateError, NodeError
from duragraph_worker.ids import interrupt_id
from duragraph_worker.interrupts import Interrupted, current, schema_of
from duragraph_worker.journal import InterruptState, JournalItem, StepItem, Write
from duragraph_worker.nodes import Branch
from duragraph_worker.plan import Result, Task
from duragraph_worker.state import MISSING, to_json

if TYPE_CHECKING:
    from duragraph_worker.walk import Walk


class Ledger:
    """What a task of the run's graph has recorded and records; the tasks of a subgraph share their parent's."""

    def __init__(
        self, checkpoint_id: str, task_id: str, journal: list[JournalItem], asked: list[InterruptState], attempt: int
    ) -> None:
        self.checkpoint_id = checkpoint_id
        self.task_id = task_id
        self.attempt = attempt
        self.records = {item["key"]: item["result"] for item in journal if item["task_id"] == task_id}
        self.asked = {question["id"]: question for question in asked}
        self._ordinal = max((q["ordinal"] for q in asked), default=-1)

    def next_ordinal(self) -> int:
        """A number for a new question of this task."""
        self._ordinal += 1
        return self._ordinal

    def entry(
        self, key: str, kind: str, name: str, result: Any, seconds: float, details: dict[str, Any] | None = None
    ) -> StepItem:
        """A completed node or side effect, kept for this attempt and as it is written."""
        self.records[key] = result
        return StepItem(
            checkpoint_id=self.checkpoint_id,
            task_id=self.task_id,
            key=key,
            kind=kind,
            name=name,
            attempt=self.attempt,
            duration_ms=round(seconds * 1000, 3),
            result=result,
            details=details,
        )


class Asker:
    """The questions of one task, or of one tool call inside it: numbered by themselves."""

    def __init__(self, run: TaskRun, scope: str) -> None:
        self.run = run
        self.scope = scope
        self.count = 0

    def ask(self, value: Any, schema: dict[str, Any] | None) -> Any:
        """The answer, or raise Interrupted with the question."""
        ledger, task = self.run.ledger, self.run.task
        this = interrupt_id(task.id, self.scope, self.count)
        self.count += 1
        known = ledger.asked.get(this)
        if known and known.get("answered"):
            return known.get("answer")
        question = {
            "interrupt_id": this,
            "ordinal": known["ordinal"] if known else ledger.next_ordinal(),
            "node": task.name,
            "checkpoint_ns": "|".join(self.run.walk.ns),
            "value": to_json(value, f"what node '{task.name}' asks"),
        }
        if schema is not None:
            question["response_schema"] = schema
        raise Interrupted([question])


class TaskRun:
    """One attempt at a task."""

    def __init__(
        self,
        walk: Walk,
        task: Task,
        values: Mapping[str, Any],
        step: int,
        ledger: Ledger,
        key: str,
        checkpoint_id: str,
    ) -> None:
        self.walk = walk
        self.task = task
        self.values = values
        self.step_number = step
        self.ledger = ledger
        self.key = key
        self.checkpoint_id = checkpoint_id
        self.node = walk.topology.nodes[task.name]
        self.claim = walk.shared.claim
        self.streams = walk.streams
        self.cancelled = False
        self.seconds = 0.0
        self.context = (Context if self.node.is_async else SyncContext)(self)
        self._counts: Counter[str] = Counter()
        self._loop = asyncio.get_running_loop()

    @property
    def given(self) -> Any:
        """What the task runs on: the state, or what it was sent."""
        return self.values if self.task.input is MISSING else self.task.input

    @property
    def config(self) -> dict[str, Any]:
        """The run's config."""
        return self.walk.shared.config

    def user_context(self) -> Any:
        """The run's context as the graph's context schema."""
        given = (self.claim.get("kwargs") or {}).get("context") or {}
        schema = self.walk.topology.context_schema
        plain = (
            schema is None or (isinstance(schema, type) and issubclass(schema, dict)) or hasattr(schema, "__total__")
        )
        return dict(given) if plain else schema(**given)

    async def run(self) -> Result:
        """The task's result. Raises Interrupted when it asks, and whatever the node raises."""
        token = current.set(Asker(self, ""))
        started = time.perf_counter()
        try:
            result = await self._by_kind()
            return await self._follow(result)
        except asyncio.CancelledError as problem:
            self.cancelled = True
            here = asyncio.current_task()
            if here is not None and here.cancelling():
                raise
            raise NodeError(f"node '{self.task.name}' awaited something that was cancelled") from problem
        except BaseException:
            self.cancelled = True
            raise
        finally:
            self.seconds = time.perf_counter() - started
            current.reset(token)

    async def as_if_done(self, update: dict[str, Any]) -> Result:
        """The result that the task would have had with this update; only what chooses the way is called."""
        if self.node.kind != "router":
            return await self._follow(Result(update))
        routed = self._routed(await self.call_method())
        return Result(update, routed.goto)

    async def _by_kind(self) -> Result:
        kind = self.node.kind
        if kind == "subgraph":
            from duragraph_worker.subgraph import run_subgraph

            return Result(await run_subgraph(self))
        returned = await self.call_method()
        if kind == "router":
            return self._routed(returned)
        if kind == "human":
            return self._answered(returned)
        if kind == "llm" or (kind == "tool" and returned is None):
            from duragraph_worker import llm_loop

            returned = await (llm_loop.ask_model(self, returned) if kind == "llm" else llm_loop.run_tools(self))
        return self._result(returned)

    async def call_method(self) -> Any:
        """Call the node's method on the state: on the loop, or in a thread when it is a plain function."""
        schema = self.walk.topology.schema
        if self.task.input is MISSING:
            view = schema.view(self.values)
        else:
            view = dict(self.task.input) if isinstance(self.task.input, dict) else self.task.input
        arguments = (view, self.context) if self.node.wants_context else (view,)
        return await self._call(functools.partial(self.node.method, self.walk.graph, *arguments))

    async def _call(self, fn: Callable[[], Any]) -> Any:
        asynchronous = inspect.iscoroutinefunction(fn.func if isinstance(fn, functools.partial) else fn)
        try:
            returned = fn() if asynchronous else await in_thread(fn)
            return await returned if inspect.isawaitable(returned) else returned
        except (SystemExit, StopIteration, GeneratorExit) as problem:
            # These would end the worker's loop or get lost in it.
            raise NodeError(f"node '{self.task.name}' raised {type(problem).__name__}({problem})") from problem

    def _result(self, returned: Any) -> Result:
        """A dict, a Command, None or a list of them."""
        if returned is None:
            return Result()
        parts = returned if isinstance(returned, list | tuple) else [returned]
        update: dict[str, Any] | None = None
        goto: list[Target] = []
        for part in parts:
            if isinstance(part, Command):
                goto += part.targets()
                part = part.update
            if part is None:
                continue
            fresh = self.walk.topology.schema.update(part, self.task.name)
            if update and (twice := update.keys() & fresh.keys()):
                raise InvalidUpdateError(f"node '{self.task.name}' returned the key '{twice.pop()}' twice")
            update = {**(update or {}), **fresh}
        return Result(update, self._checked(goto))

    def _routed(self, returned: Any) -> Result:
        if isinstance(returned, Command):
            return self._result(returned)
        allowed = self.walk.topology.routes[self.task.name]
        return Result(None, self._chosen(returned, self.walk.topology.mappings.get(self.task.name), allowed, "router"))

    def _chosen(self, returned: Any, mapping: Mapping[Any, str] | None, allowed: Any, what: str) -> tuple[Target, ...]:
        if mapping is not None and isinstance(returned, str | int | bool | None) and returned in mapping:
            returned = mapping[returned]
        targets = as_targets(returned)
        for target in targets:
            name = target.node if isinstance(target, Send) else target
            if name not in allowed:
                raise NodeError(
                    f"{what} '{self.task.name}' chose '{name}', which is not declared; "
                    f"it may go to {', '.join(allowed)}"
                )
        return self._checked(targets)

    def _checked(self, targets: list[Target]) -> tuple[Target, ...]:
        nodes = self.walk.topology.nodes
        checked: list[Target] = []
        for target in targets:
            name = target.node if isinstance(target, Send) else target
            if name not in nodes and name != "__end__":
                raise NodeError(
                    f"node '{self.task.name}' goes to '{name}', which is no node; there are {', '.join(nodes)}"
                )
            if isinstance(target, Send):
                what = f"what node '{self.task.name}' sends to '{name}'"
                target = Send(name, to_json(target.input, what))
            checked.append(target)
        return tuple(checked)

    def _answered(self, asked: Any) -> Result:
        config, schema = self.node.config, self.walk.topology.schema
        question: Any = {"prompt": config["prompt"]}
        if isinstance(asked, str):
            question = {"prompt": asked}
        elif isinstance(asked, Mapping):
            question = {**question, **asked}
        elif asked is not None:
            raise NodeError(
                f"human node '{self.task.name}' returned {type(asked).__name__}; return a dict, a text or None"
            )
        answering = current.get()
        assert answering is not None
        answer = answering.ask(question, schema_of(config.get("schema")))
        output = config.get("output") or (self.task.name if self.task.name in schema.channels else None)
        if output is None and isinstance(answer, dict):
            return self._result(answer)
        return self._result({output or self.task.name: answer})

    async def _follow(self, result: Result) -> Result:
        """The result with what its conditional edges choose, asked on the state as this task leaves it."""
        branches = self.walk.topology.branches.get(self.task.name)
        if not branches:
            return result
        schema = self.walk.topology.schema
        after, _ = schema.apply(self.values, [(self.task.name, result.update or {})])
        goto = result.goto
        for branch in branches:
            goto += await self._ask_branch(branch, schema.view(after))
        return Result(result.update, goto)

    async def _ask_branch(self, branch: Branch, view: Any) -> tuple[Target, ...]:
        chosen = branch.choose(self.walk.graph, view)
        if inspect.isawaitable(chosen):
            chosen = await chosen
        return self._chosen(chosen, branch.mapping, branch.targets, "the conditional edge of node")

    # What the context offers ------------------------------------------------------------------------------------------

    def emit_custom(self, data: Any) -> None:
        """Send a custom event, from the loop or from a thread."""
        events = self.streams.custom(to_json(data, f"what node '{self.task.name}' emits"))
        if not events:
            return
        if in_loop(self._loop):
            self.walk.shared.emit(events)
        else:
            self._loop.call_soon_threadsafe(self.walk.shared.emit, events)

    async def store_ops(self, ops: list[dict[str, Any]]) -> list[Any]:
        """Ask the store, while the run is held."""
        return await self.walk.shared.journal.store(ops)

    def store_ops_in_thread(self, ops: list[dict[str, Any]]) -> list[Any]:
        """The same from a node's own thread."""
        if in_loop(self._loop):
            raise NodeError(f"node '{self.task.name}': await ctx.store.aget(...), aput(...) and so on in an async node")
        return asyncio.run_coroutine_threadsafe(self.store_ops(ops), self._loop).result()

    def next_key(self, name: str) -> str:
        """The journal key of the next call of that name."""
        self._counts[name] += 1
        return f"{self.key}/{name}:{self._counts[name]}" if self.key else f"{name}:{self._counts[name]}"

    def recorded(self, key: str) -> Any:
        """What was recorded under the key, else MISSING."""
        return self.ledger.records.get(key, MISSING)

    async def record(
        self,
        key: str,
        kind: str,
        name: str,
        result: Any,
        seconds: float,
        details: dict[str, Any] | None = None,
        *,
        commit: bool = True,
    ) -> None:
        """Record a side effect that was done; with `commit`, return when it is stored."""
        entry = self.ledger.entry(key, kind, name, result, seconds, details)
        if self.walk.shared.durable:
            await self.walk.shared.send(Write(steps=[entry]), commit=commit)

    async def step(self, name: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `fn` unless that was done already."""
        key = self.next_key(name)
        if (known := self.recorded(key)) is not MISSING:
            return known
        started = time.perf_counter()
        result = to_json(await self._call(functools.partial(fn, *args, **kwargs)), f"the result of step '{name}'")
        await self.record(key, "step", name, result, time.perf_counter() - started)
        return result

    def step_in_thread(self, name: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The same from a node's own thread."""
        if in_loop(self._loop):
            raise NodeError(f"node '{self.task.name}': await ctx.step(...) in an async node")
        key = self.next_key(name)
        if (known := self.recorded(key)) is not MISSING:
            return known
        started = time.perf_counter()
        returned = fn(*args, **kwargs)
        if inspect.isawaitable(returned):
            returned = asyncio.run_coroutine_threadsafe(_await(returned), self._loop).result()
        result = to_json(returned, f"the result of step '{name}'")
        done = self.record(key, "step", name, result, time.perf_counter() - started)
        asyncio.run_coroutine_threadsafe(done, self._loop).result()
        return result


async def _await(awaitable: Any) -> Any:
    return await awaitable


def in_loop(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this is the loop's own thread."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


async def in_thread(fn: Callable[[], Any]) -> Any:
    """Call a plain function in a thread, with the context variables of here; StopIteration comes out as NodeError."""

    def call() -> Any:
        try:
            return fn()
        except StopIteration as problem:  # a future cannot carry it
            raise NodeError(f"StopIteration({problem}) left the node") from problem

    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(None, functools.partial(context.run, call))
