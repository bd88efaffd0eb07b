"""Runs a claimed run of a graph, superstep by superstep, against a journal: the same code locally and in a worker.

What is promised, given a journal that stores writes in order and each one whole or not at all:

- A finished superstep is one write: the ledger rows of its tasks, the new checkpoint, the events, and with the last one
  the run's end. A recorded task is never run again; of a superstep cut off half-way only the unrecorded tasks are.
- A task's id, and so its idempotency key and the ids of its questions, are the same in every attempt.
- With durability `exit` nothing but events is written before the end, and a crash starts the run over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from duragraph_worker import starting
from duragraph_worker.errors import EmptyInputError, GraphRecursionError, LeaseLost
from duragraph_worker.events import Streams
from duragraph_worker.ids import ordered_id
from duragraph_worker.journal import (
    CheckpointItem,
    Claim,
    ClaimCheckpoint,
    EndItem,
    EventItem,
    InterruptItem,
    Journal,
    JournalItem,
    StepItem,
    Write,
    join_writes,
)
from duragraph_worker.plan import Task
from duragraph_worker.run_state import RECURSION_LIMIT, RunState
from duragraph_worker.running import Ledger
from duragraph_worker.updating import apply_supersteps
from duragraph_worker.walk import Head, Superstep, TaskFailed, Walk, error_of, questions_of

if TYPE_CHECKING:
    from duragraph_worker.graph import GraphInstance

__all__ = ["Claim", "Executor", "Journal", "Outcome", "Write", "join_writes"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended here: `status` success or error. One that stops to ask ends as success, with `next` set."""

    status: str
    values: dict[str, Any] = field(default_factory=dict)
    next: tuple[str, ...] = ()
    interrupts: tuple[dict[str, Any], ...] = ()
    error: dict[str, str] | None = None
    exception: BaseException | None = None
    nodes_executed: tuple[str, ...] = ()
    tokens: dict[str, int] = field(default_factory=dict)


class Executor(Walk):
    """One claimed run: `await Executor(graph, claim, journal).run()`."""

    def __init__(self, graph: GraphInstance, claim: Claim, journal: Journal) -> None:
        super().__init__(RunState(claim, journal), graph, Streams(claim, graph.topology()), ())
        self.claim = claim
        self.kwargs = self.shared.kwargs
        self.records: list[JournalItem] = list(claim.get("journal") or [])
        self._head: Head | None = None
        self._base: Head | None = None  # where a run with durability exit started from
        self._held = Write()  # what durability exit keeps for the end
        self._supersteps = 0
        self._outcome = Outcome("success")

    async def run(self) -> Outcome:
        """Run to the end and write it: the `end` is in the last, committed write.

        A failing node ends the run as `error`; no exception leaves here for it. Raises LeaseLost when the journal does,
        an error of the journal that even the end met, and CancelledError when cancelled: then nothing was ended and the
        nodes were stopped (a plain function in a thread cannot be: its result is dropped).
        """
        try:
            head = await self._start()
            while head is not None:
                head = await self._step(head)
        except LeaseLost:
            raise
        except TaskFailed as failed:
            superstep = failed.superstep
            step = self._head.step + 1 if self._head else 0
            events = superstep.events + self.streams.task_failed(failed.task, error_of(failed.error), step)
            await self._fail(failed.error, superstep.steps, events)
        except Exception as problem:
            await self._fail(problem)
        finally:
            self.shared.close()
        return self._outcome

    def ledger(self, head: Head, task: Task) -> tuple[Ledger, str]:
        """Each task of the run's own graph has its own rows."""
        return Ledger(head.checkpoint_id, task.id, self.records, task.asked, self.claim.get("attempt", 1)), ""

    def next_id(self, head: Head | None) -> str:
        """Checkpoints sort by id."""
        return ordered_id(head.checkpoint_id if head else None)

    async def _start(self) -> Head | None:
        """Where to begin, written as far as it must be; None when the run ended with it."""
        document = self.claim.get("checkpoint")
        head = starting.head_of(document, self.topology.schema) if document else None
        self._head = self._base = head
        self.shared.at = head.checkpoint_id if head else None
        if "state_update" in self.kwargs:
            await self._update_state(head)
            return None
        if head is not None and self.claim.get("resumed") and self.shared.durable:
            self.shared.emit(self.streams.start(head.values, None))
            return head
        command = self.kwargs.get("command")
        given = None if command else self.kwargs.get("input")
        self.shared.emit(self.streams.start(head.values if head else {}, given))
        if given is not None:
            return await self._begin(head, given)
        if head is None and not command:
            raise EmptyInputError("this thread has nothing to go on with, and the run has no input; give it one")
        return await self._go_on(head, command or {})

    async def _update_state(self, head: Head | None) -> None:
        """A change from outside instead of a run; what it cannot be is its output, and then nothing changes."""
        write = Write()
        try:
            after, items = await apply_supersteps(self, head, self.kwargs["state_update"])
        except Exception as problem:
            output: dict[str, Any] = {"refused": {"error": type(problem).__name__, "message": str(problem)}}
        else:
            output = {"checkpoint_id": after.checkpoint_id if after else None}
            if after is not None:
                self._head = after
                write = Write(checkpoints=items, checkpoint_id=after.checkpoint_id)
        write["end"] = EndItem(status="success", output=output)
        await self.shared.send(write, commit=True)

    async def _begin(self, head: Head | None, given: Any) -> Head | None:
        after, (mark, merged) = starting.begin(self, head, given)
        self.records = []
        before = head.values if head else self.topology.schema.start()
        # Input without any key of the state is a way to start over; there are no new values to show.
        shown = self.streams.values(self.stored(after), after.values) if self.topology.schema.input(given) else []
        events = [
            *self.streams.input_checkpoint(mark, before), *shown, *self.streams.checkpoint(merged, after.values)
        ]  # fmt: skip
        return await self._advance(after, Write(checkpoints=[mark, merged]), events, commit=False)

    async def _go_on(self, head: Head | None, command: Mapping[str, Any]) -> Head | None:
        start = starting.go_on(self, head, command)
        if start is None:
            await self._end(Write(), self.streams.finish({}))  # an answer, but nothing ever asked
            return None
        self.records += start.records
        here: Sequence[CheckpointItem | ClaimCheckpoint] = start.write.get("checkpoints", [])
        if not here and (document := self.claim.get("checkpoint")):
            here = [document]
        events = self.streams.values(self.stored(start.head), start.head.values)
        events += [event for item in here for event in self.streams.checkpoint(item, start.head.values)]
        return await self._advance(start.head, start.write, events=events, commit=False, at_start=True)

    async def _step(self, head: Head) -> Head | None:
        """One superstep; None when the run ended with it."""
        limit = int((self.kwargs.get("config") or {}).get("recursion_limit") or RECURSION_LIMIT)
        if self._supersteps >= limit:
            raise GraphRecursionError(
                f"the graph '{self.topology.graph_id}' was not done after {limit} supersteps (next: "
                f"{', '.join(task.name for task in head.tasks)}); raise config.recursion_limit if it should go on"
            )
        self._supersteps += 1
        done = await self.superstep(head)
        if done.questions or done.waiting:
            await self._pause(head, done)
            return None
        after, item, events = self.next_head(head, done)
        self.records = []
        ran = {task.name for task in head.tasks}
        return await self._advance(after, Write(steps=done.steps, checkpoints=[item]), done.events + events, ran=ran)

    async def _advance(
        self,
        after: Head,
        write: Write,
        events: list[EventItem],
        *,
        ran: Iterable[str] = (),
        commit: bool = True,
        at_start: bool = False,
    ) -> Head | None:
        """Stand on `after` and write it, with the run's end when nothing is next or a breakpoint says stop."""
        self._head = after
        if self.shared.durable:
            write["checkpoint_id"] = self.shared.at = after.checkpoint_id
        else:
            self._held = join_writes([self._held, Write(**{k: v for k, v in write.items() if k in _KEPT})])  # type: ignore[typeddict-item]  # a selection of its keys
            write = Write()
        write["events"] = events
        if not after.tasks:
            write["events"] = events + self.streams.finish(after.values)
            await self._end(write)
        elif not at_start and self._breaks(after, ran):
            write["events"] = events + self.streams.pause([]) + self.streams.finish(after.values)
            await self._end(write)
        else:
            await self.shared.send(write, commit=commit and self.shared.durable)
            return after
        return None

    def _breaks(self, after: Head, ran: Iterable[str]) -> bool:
        def named(nodes: Any, names: Iterable[str]) -> bool:
            return nodes == "*" or any("*" in nodes or name in nodes for name in names) if nodes else False

        upcoming = [task.name for task in after.tasks]
        return named(self.kwargs.get("interrupt_before"), upcoming) or (
            named(self.kwargs.get("interrupt_after"), ran) and bool(ran)
        )

    async def _pause(self, head: Head, done: Superstep) -> None:
        """Stop for answers: the questions are kept on the same checkpoint."""
        events = self.events_of_pause(head, done) + self.streams.finish(head.values)
        items = [InterruptItem(**question) for question in done.questions]  # type: ignore[typeddict-item]  # made by Asker
        await self._end(Write(steps=done.steps, interrupts=items, events=events), asked=questions_of(head, done))

    async def _end(
        self, write: Write, events: Sequence[EventItem] = (), *, asked: Sequence[dict[str, Any]] = ()
    ) -> None:
        """The last write of a run that did not fail."""
        values = dict(self._head.values) if self._head else {}
        end = EndItem(status="success")
        if self.claim.get("temporary"):
            end["output"] = {**values, **({"__interrupt__": list(asked)} if asked else {})}
        write["end"] = end
        write["events"] = [*write.get("events", []), *events]
        await self._last(write)
        self._outcome = self._made("success", values, asked)

    async def _fail(
        self, problem: BaseException, steps: Sequence[StepItem] = (), events: Sequence[EventItem] = ()
    ) -> None:
        """The last write of a run that failed. The head stays, so that a later run may go on from it."""
        error = error_of(problem)
        end = EndItem(status="error", error=error)
        await self._last(Write(steps=list(steps), events=[*events, *self.streams.error(error)], end=end))
        values = dict(self._head.values) if self._head else {}
        self._outcome = self._made("error", values, error=error, exception=problem)

    async def _last(self, write: Write) -> None:
        if not self.shared.durable:
            write = join_writes([self._held, self._exit_checkpoint(), write])
        await self.shared.send(write, commit=True)

    def _exit_checkpoint(self) -> Write:
        """The one checkpoint of a run with durability exit: where it stands now, on top of where it started."""
        head, base = self._head, self._base
        if head is None or head is base:
            return Write()
        delta = self.topology.schema.delta(base.values if base else {}, head.values)
        item = self.item(head, base.checkpoint_id if base else None, "loop", delta)
        return Write(checkpoint_id=head.checkpoint_id, checkpoints=[item])

    def _made(
        self,
        status: str,
        values: dict[str, Any],
        asked: Sequence[dict[str, Any]] = (),
        *,
        error: dict[str, str] | None = None,
        exception: BaseException | None = None,
    ) -> Outcome:
        return Outcome(
            status,
            values,
            tuple(task.name for task in self._head.tasks) if self._head else (),
            tuple(asked),
            error,
            exception,
            tuple(self.shared.nodes_executed),
            dict(self.shared.tokens),
        )


_KEPT = ("answers",)
