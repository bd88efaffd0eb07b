"""Supersteps of one graph, the run's own or a subgraph's: run the tasks of a head, then make the next head."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from duragraph_worker.commands import Target
from duragraph_worker.errors import LeaseLost, NodeError
from duragraph_worker.events import Streams
from duragraph_worker.interrupts import Interrupted
from duragraph_worker.journal import CheckpointItem, EventItem, InterruptState, StepItem, Write
from duragraph_worker.plan import Joins, Result, Task, targets_after, tasks_to
from duragraph_worker.running import Ledger, TaskRun
from duragraph_worker.state import MISSING, Delta

if TYPE_CHECKING:
    from duragraph_worker.graph import GraphInstance
    from duragraph_worker.run_state import RunState


@dataclass
class Head:
    """Where a graph stands: a checkpoint, its values and what runs next."""

    checkpoint_id: str
    step: int
    values: dict[str, Any]
    tasks: list[Task] = field(default_factory=list)
    joins: Joins = field(default_factory=dict)


@dataclass
class Superstep:
    """What came of a head's tasks: all results, or questions that wait."""

    results: dict[str, Result] = field(default_factory=dict)
    questions: list[dict[str, Any]] = field(default_factory=list)  # new ones, as Interrupted carries them, with task_id
    waiting: list[InterruptState] = field(default_factory=list)  # those asked before
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # both, as they are shown, by the task's id
    steps: list[StepItem] = field(default_factory=list)  # not written yet
    events: list[EventItem] = field(default_factory=list)  # not written yet
    closing: list[EventItem] = field(default_factory=list)  # for the end, when it comes to questions


class TaskFailed(Exception):
    """A node raised; its siblings were stopped."""

    def __init__(self, task: Task, error: BaseException, superstep: Superstep) -> None:
        super().__init__(str(error))
        self.task = task
        self.error = error
        self.superstep = superstep


class Walk(ABC):
    """One graph on its way. Subclasses say where tasks are recorded and how a head is stored."""

    def __init__(self, shared: RunState, graph: GraphInstance, streams: Streams, ns: tuple[str, ...]) -> None:
        self.shared = shared
        self.graph = graph
        self.topology = graph.topology()
        self.streams = streams
        self.ns = ns

    @abstractmethod
    def ledger(self, head: Head, task: Task) -> tuple[Ledger, str]:
        """Where a task is recorded, and under which key."""

    @abstractmethod
    def next_id(self, head: Head | None) -> str:
        """The id of the checkpoint after `head`."""

    def stored(self, head: Head) -> str | None:
        """The checkpoint that a values event may refer to; None when it is not stored."""
        return head.checkpoint_id if self.shared.durable else None

    async def superstep(self, head: Head) -> Superstep:
        """Run the tasks that are neither recorded nor waiting. Raises TaskFailed, LeaseLost."""
        done = Superstep()
        todo: list[TaskRun] = []
        for task in head.tasks:
            if task.name not in self.topology.nodes:
                raise NodeError(
                    f"node '{task.name}' is next on this thread, but graph '{self.topology.graph_id}' lacks it; "
                    "bring it back or start over with input"
                )
            ledger, key = self.ledger(head, task)
            record = ledger.records.get(key, MISSING)
            if record is not MISSING:
                done.results[task.id] = Result.from_record(record)
            elif task.open and self.topology.nodes[task.name].kind != "subgraph":
                done.waiting += task.open
                done.asked += [(task.id, shown(question)) for question in task.open]
            else:
                todo.append(TaskRun(self, task, head.values, head.step + 1, ledger, key, head.checkpoint_id))
        starts = [e for run in todo for e in self.streams.task_start(run.task, run.given, head.step + 1)]
        if starts:
            self.shared.emit(starts)
        if len(todo) == 1:
            await self._one(todo[0], done)
        elif todo:
            await self._side_by_side(todo, done)
        return done

    async def _one(self, task_run: TaskRun, done: Superstep) -> None:
        try:
            self._take(task_run, await task_run.run(), done)
        except Interrupted as asks:
            self._take_questions(task_run, asks, done)
        except LeaseLost:
            raise
        except Exception as problem:
            raise TaskFailed(task_run.task, problem, done) from problem

    async def _side_by_side(self, todo: Sequence[TaskRun], done: Superstep) -> None:
        running = {asyncio.create_task(_guarded(run)): run for run in todo}
        try:
            while running:
                finished, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                failed: tuple[TaskRun, BaseException] | None = None
                for one in sorted(finished, key=lambda t: todo.index(running[t])):
                    task_run, outcome = running.pop(one), one.result()
                    if isinstance(outcome, Result):
                        self._take(task_run, outcome, done)
                    elif isinstance(outcome, Interrupted):
                        self._take_questions(task_run, outcome, done)
                    else:
                        failed = failed or (task_run, outcome)
                if failed:
                    if isinstance(failed[1], LeaseLost):
                        raise failed[1]
                    raise TaskFailed(failed[0].task, failed[1], done) from failed[1]
                if running and self.shared.durable and (done.steps or done.events):
                    # A crash now repeats only those that still run.
                    await self.shared.send(Write(steps=done.steps, events=done.events))
                    done.steps, done.events = [], []
        finally:
            for one, task_run in running.items():
                task_run.cancelled = True
                one.cancel()
            if running:
                await asyncio.wait(running)

    def _take(self, task_run: TaskRun, result: Result, done: Superstep) -> None:
        task = task_run.task
        done.results[task.id] = result
        done.steps.append(task_run.ledger.entry(task_run.key, "node", task.name, result.record(), task_run.seconds))
        done.events += self.streams.task_done(task, task_run.given, result, task_run.step_number)
        self.shared.nodes_executed.append(task.name)

    def _take_questions(self, task_run: TaskRun, asks: Interrupted, done: Superstep) -> None:
        ledger = task_run.ledger
        for question in asks.questions:
            done.questions.append({"checkpoint_id": ledger.checkpoint_id, "task_id": ledger.task_id, **question})
        questions = [shown(question) for question in asks.questions]
        done.asked += [(task_run.task.id, question) for question in questions]
        done.events += self.streams.pause(questions)
        done.closing += self.streams.task_asks(task_run.task, questions, task_run.step_number)

    def events_of_pause(self, head: Head, done: Superstep) -> list[EventItem]:
        """What is not written yet of a superstep that came to questions, and the values with all of them."""
        asked = questions_of(head, done)
        again = [] if done.questions else self.streams.pause(asked)
        return [*done.events, *again, *self.streams.values(self.stored(head), head.values, asked), *done.closing]

    def next_head(self, head: Head, done: Superstep) -> tuple[Head, CheckpointItem, list[EventItem]]:
        """Merge the results, in the order of the tasks. Raises InvalidUpdateError."""
        results = [(task.name, done.results[task.id]) for task in head.tasks]
        values, delta = self.topology.schema.apply(head.values, [(name, r.update or {}) for name, r in results])
        targets, joins = targets_after(self.topology, results, head.joins)
        after = self.make_head(head, values, targets, joins)
        item = self.item(after, head.checkpoint_id, "loop", delta)
        new = any(result.update for _, result in results)
        events = self.streams.values(self.stored(after), values) if new else []
        return after, item, events + self.streams.checkpoint(item, values)

    def make_head(self, before: Head | None, values: dict[str, Any], targets: Iterable[Target], joins: Joins) -> Head:
        """The head after `before` with tasks for the targets."""
        checkpoint_id = self.next_id(before)
        tasks = tasks_to(checkpoint_id, self.topology, targets)
        return Head(checkpoint_id, before.step + 1 if before else -1, values, tasks, joins)

    def item(self, head: Head, parent: str | None, source: str, delta: Delta) -> CheckpointItem:
        """A head as it is stored."""
        return CheckpointItem(
            checkpoint_id=head.checkpoint_id,
            parent_checkpoint_id=parent,
            checkpoint_ns="|".join(self.ns),
            step=head.step,
            source=source,
            channels=delta,
            next=[task.name for task in head.tasks],
            tasks=[task.item() for task in head.tasks],
            metadata={"joins": head.joins} if head.joins else {},
        )


def shown(question: Any) -> dict[str, Any]:
    """A question as streams and results show it."""
    return {
        "value": question["value"],
        "id": question.get("interrupt_id") or question["id"],
        "response_schema": question.get("response_schema"),
    }


def questions_of(head: Head, done: Superstep) -> list[dict[str, Any]]:
    """All questions that wait, in the order of the tasks and not of who asked first."""
    return [question for task in head.tasks for of, question in done.asked if of == task.id]


def error_of(problem: BaseException) -> dict[str, str]:
    """An exception as runs and streams show it."""
    return {"error": type(problem).__name__, "message": str(problem)}


async def _guarded(task_run: TaskRun) -> Result | BaseException:
    """What a task came to, its exception as a value: none may get lost while its siblings are looked at."""
    try:
        return await task_run.run()
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise
    except BaseException as problem:
        return problem
