"""Runs graphs without a control plane: the same executor, against a journal and threads in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from duragraph_worker.errors import DuraGraphError, LeaseLost
from duragraph_worker.events import Event, modes_of
from duragraph_worker.executor import Executor, Outcome
from duragraph_worker.ids import ordered_id
from duragraph_worker.journal import (
    CheckpointItem,
    Claim,
    ClaimCheckpoint,
    EventItem,
    InterruptItem,
    StepItem,
    Write,
)
from duragraph_worker.local_store import LocalStore
from duragraph_worker.results import EventStream, RunResult
from duragraph_worker.state import to_json
from duragraph_worker.store import Store

if TYPE_CHECKING:
    from duragraph_worker.graph import GraphInstance


@dataclass
class LocalThread:
    """A thread in memory: its checkpoints with their values, its ledger, its questions."""

    thread_id: str
    head: str | None = None
    checkpoints: dict[str, CheckpointItem] = field(default_factory=dict)
    values: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)  # by namespace and checkpoint id
    steps: dict[tuple[str, str, str], StepItem] = field(default_factory=dict)  # by checkpoint, task and key
    interrupts: dict[tuple[str, str, int], dict[str, Any]] = field(default_factory=dict)

    def store(self, item: CheckpointItem) -> None:
        """Keep a checkpoint; its values are its parent's with what changed."""
        ns = item.get("checkpoint_ns", "")
        values = dict(self.values.get((ns, item.get("parent_checkpoint_id") or ""), {}))
        for key, change in item["channels"].items():
            values[key] = [*values[key], *change["append"]] if "append" in change else change["set"]
        if (ns, item["checkpoint_id"]) in self.values:
            raise DuraGraphError(f"checkpoint {item['checkpoint_id']} is stored already")
        self.values[ns, item["checkpoint_id"]] = values
        if not ns:
            self.checkpoints[item["checkpoint_id"]] = item

    def record(self, item: StepItem) -> None:
        """Keep a ledger row; no task and no call may finish twice."""
        at = (item["checkpoint_id"], item["task_id"], item["key"])
        if at in self.steps:
            raise DuraGraphError(f"step {item['name']} {item['key']!r} of task {item['task_id']} is recorded already")
        self.steps[at] = item

    def ask(self, item: InterruptItem) -> None:
        """Keep a question."""
        at = (item["checkpoint_id"], item["task_id"], item["ordinal"])
        self.interrupts.setdefault(at, {"answered": False, "answer": None, **item})

    def document(self, checkpoint_id: str) -> ClaimCheckpoint:
        """A checkpoint as a claim has it."""
        item = self.checkpoints[checkpoint_id]
        tasks = [{**task, "interrupts": self.asked(checkpoint_id, task["id"])} for task in item["tasks"]]
        shown = {k: item[k] for k in ("checkpoint_id", "parent_checkpoint_id", "step", "source", "next", "metadata")}
        return cast(ClaimCheckpoint, {**shown, "values": self.values["", checkpoint_id], "tasks": tasks})

    def asked(self, checkpoint_id: str, task_id: str) -> list[dict[str, Any]]:
        """The questions of a task."""
        return [
            {"id": q["interrupt_id"], **{k: q[k] for k in ("ordinal", "value", "answered", "answer")}}
            for (checkpoint, task, _), q in sorted(self.interrupts.items(), key=lambda entry: entry[0][2])
            if checkpoint == checkpoint_id and task == task_id
        ]


@dataclass
class LocalRun:
    """A run in memory, as the control plane would keep it."""

    run_id: str
    thread: LocalThread
    kwargs: dict[str, Any]
    items: LocalStore = field(default_factory=LocalStore)
    checkpoint_id: str | None = None
    attempt: int = 0
    events: list[EventItem] = field(default_factory=list)
    end: dict[str, Any] | None = None

    def claim(self, graph_id: str) -> Claim:
        """The claim of the next attempt."""
        self.attempt += 1
        resumed = self.checkpoint_id is not None
        point = self.kwargs.get("checkpoint_id") or (self.kwargs.get("checkpoint") or {}).get("checkpoint_id")
        start = self.checkpoint_id or point or self.thread.head
        journal = [item for item in self.thread.steps.values() if item["checkpoint_id"] == start]
        claim = Claim(
            run_id=self.run_id,
            token=self.attempt,
            attempt=self.attempt,
            thread_id=self.thread.thread_id,
            temporary=False,
            graph_id=graph_id,
            kwargs=self.kwargs,
            resumed=resumed,
            checkpoint=self.thread.document(start) if start else None,
            journal=cast(Any, journal),
        )
        return cast(Claim, to_json(claim))  # nothing of the store may be shared with what runs


class LocalJournal:
    """The in-memory Journal of one attempt: a write is stored whole, at once."""

    def __init__(self, run: LocalRun, listen: Callable[[EventItem], None] | None = None) -> None:
        self.local_run = run
        self.listen = listen
        self._token = run.attempt

    async def commit(self, write: Write) -> None:
        """Store the write."""
        run, thread = self.local_run, self.local_run.thread
        self._check()
        write = cast(Write, to_json(write))
        for checkpoint in write.get("checkpoints", ()):
            thread.store(checkpoint)
        for step in write.get("steps", ()):
            thread.record(step)
        for question in write.get("interrupts", ()):
            thread.ask(question)
        for answer in write.get("answers", ()):
            at = (answer["checkpoint_id"], answer["task_id"], answer["ordinal"])
            thread.interrupts[at].update(answered=True, answer=answer["answer"])
        run.checkpoint_id = write.get("checkpoint_id") or run.checkpoint_id
        if "end" in write:
            run.end = cast(dict[str, Any], write["end"])
            thread.head = run.checkpoint_id or thread.head
        for event in write.get("events", ()):
            run.events.append(event)
            if self.listen:
                self.listen(event)

    async def write(self, write: Write, *, flush: bool = False) -> None:
        """Store the write."""
        await self.commit(write)

    async def store(self, ops: list[dict[str, Any]]) -> list[Any]:
        """Ask the store that the runs of this graph share."""
        self._check()
        return await self.local_run.items.store_ops(ops)

    def _check(self) -> None:
        run = self.local_run
        if run.attempt != self._token or run.end is not None:
            raise LeaseLost(f"run {run.run_id} was claimed anew or has ended")


class LocalRunner:
    """Threads in memory, and the runs on them."""

    def __init__(self, graph: GraphInstance) -> None:
        self.graph = graph
        self.threads: dict[str, LocalThread] = {}
        self.items = LocalStore()

    @property
    def store(self) -> Store:
        """What the runs of this graph remember, to look at or to prepare: `graph.local.store.put(...)`."""
        return Store(self.items)

    def thread(self, thread_id: str | None = None) -> LocalThread:
        """A thread by its id, made when it is new."""
        name = thread_id or ordered_id()
        return self.threads.setdefault(name, LocalThread(name))

    def prepare(
        self,
        input: Any = None,
        *,
        thread_id: str | None = None,
        config: Mapping[str, Any] | None = None,
        context: Any = None,
        resume: Any = None,
        command: Mapping[str, Any] | None = None,
        stream_mode: str | Sequence[str] = (),
        subgraphs: bool = False,
        **kwargs: Any,
    ) -> LocalRun:
        """A run as the control plane would make it. Raises TypeError for an unknown option."""
        if unknown := set(kwargs) - _OPTIONS:
            raise TypeError(f"unknown option {', '.join(sorted(unknown))}; there are {', '.join(sorted(_OPTIONS))}")
        thread = self.thread(thread_id)
        run_id = ordered_id()
        if resume is not None:
            command = {**(command or {}), "resume": resume}
        given = dict(config or {})
        given.setdefault("recursion_limit", 25)
        call = {
            **kwargs,
            "input": _plain(input),
            "command": dict(command) if command else None,
            "config": given,
            "context": _plain(context),
            "stream_mode": list(modes_of(stream_mode)) if stream_mode else [],
            "subgraphs": subgraphs,
        }
        return LocalRun(run_id, thread, to_json(call), self.items)

    async def run(self, input: Any = None, **options: Any) -> RunResult:
        """Run to the end, a question or a breakpoint."""
        return await self.execute(self.prepare(input, **options))

    async def execute(self, run: LocalRun, listen: Callable[[EventItem], None] | None = None) -> RunResult:
        """One attempt at a run."""
        started = time.perf_counter()
        claim = run.claim(self.graph.topology().graph_id)
        outcome = await Executor(self.graph, claim, LocalJournal(run, listen)).run()
        return result_of(run, outcome, (time.perf_counter() - started) * 1000)

    def stream(self, input: Any = None, *, stream_mode: str | Sequence[str] = "values", **options: Any) -> EventStream:
        """The events of a run that begins when they are first asked for."""
        run = self.prepare(input, stream_mode=stream_mode, **options)
        return EventStream(lambda listen: self.execute(run, lambda item: listen(_event(run, item))))


_OPTIONS = {"interrupt_before", "interrupt_after", "durability", "checkpoint_id", "checkpoint", "metadata"}


def result_of(run: LocalRun, outcome: Outcome, duration_ms: float) -> RunResult:
    """A run's outcome as its caller sees it."""
    waits = outcome.status == "success" and bool(outcome.next)
    return RunResult(
        run_id=run.run_id,
        status="interrupted" if waits else outcome.status,
        output=outcome.values,
        interrupts=outcome.interrupts,
        error=outcome.error,
        nodes_executed=outcome.nodes_executed,
        tokens=outcome.tokens,
        duration_ms=round(duration_ms, 3),
        thread_id=run.thread.thread_id,
        next=outcome.next,
        exception=outcome.exception,
    )


def _event(run: LocalRun, item: EventItem) -> Event:
    """A frame as a subscriber of the control plane would get it: a values frame has its values."""
    data = item.get("data")
    if checkpoint_id := item.get("checkpoint_id"):
        data = {**run.thread.values["", checkpoint_id], **(data or {})}
    node = next(iter(data)) if item["event"].startswith("updates") and isinstance(data, dict) and data else None
    return Event(item["event"], data, run.run_id, node)


def _plain(value: Any) -> Any:
    """A dataclass or a model given as input, as a dict."""
    fields = getattr(value, "__dataclass_fields__", None)
    return {name: getattr(value, name) for name in fields} if fields and not isinstance(value, type) else value
