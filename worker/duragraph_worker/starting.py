"""Where a run starts: from its input, or from where the thread stands, with answers, an update or a way to go."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from duragraph_worker.commands import targets_from_json
from duragraph_worker.ids import interrupt_id
from duragraph_worker.journal import (
    AnswerItem,
    CheckpointItem,
    ClaimCheckpoint,
    InterruptItem,
    InterruptState,
    JournalItem,
    StepItem,
    Write,
    join_writes,
)
from duragraph_worker.plan import Joins, Result, Task, again, targets_after, task_from, tasks_to
from duragraph_worker.state import MISSING, Schema, to_json
from duragraph_worker.walk import Head

if TYPE_CHECKING:
    from duragraph_worker.executor import Executor

_is_id = re.compile(r"[0-9a-f]{32}").fullmatch


@dataclass
class Start:
    """A head to run from, what must be written with it, and the ledger rows it already has."""

    head: Head
    write: Write = field(default_factory=Write)
    records: list[JournalItem] = field(default_factory=list)


def head_of(document: ClaimCheckpoint, schema: Schema) -> Head:
    """The head that a claim's checkpoint is."""
    return Head(
        document["checkpoint_id"],
        document["step"],
        {**schema.start(), **(document.get("values") or {})},
        [task_from(item) for item in document.get("tasks") or []],
        (document.get("metadata") or {}).get("joins") or {},
    )


def begin(executor: Executor, head: Head | None, given: Any) -> tuple[Head, list[CheckpointItem]]:
    """New input: a checkpoint that marks it, and one with the input merged in and the entry node next."""
    schema, topology = executor.topology.schema, executor.topology
    values = head.values if head else schema.start()
    marked = executor.make_head(head, values, (), {})
    mark = executor.item(marked, head.checkpoint_id if head else None, "input", {})
    mark["next"] = ["__start__"]
    merged, _ = schema.apply(values, [("__input__", schema.input(given))])
    after = executor.make_head(marked, merged, [topology.entry], {})
    delta = schema.delta(head.values if head else {}, merged)
    return after, [mark, executor.item(after, marked.checkpoint_id, "loop", delta)]


def go_on(executor: Executor, head: Head | None, command: Mapping[str, Any]) -> Start | None:
    """No new input: go on from the head, with what the command says. None: there is nothing to go on from."""
    redirected = command.get("goto") or command.get("update")
    if head is None and not redirected:
        return None
    kwargs = executor.kwargs
    answered = Write()
    forked = bool(kwargs.get("checkpoint_id") or (kwargs.get("checkpoint") or {}).get("checkpoint_id"))
    if "resume" in command and command["resume"] is not None and head is not None:
        if forked and not any(task.open for task in head.tasks):
            return _fork(executor, head, command["resume"])
        answered = answer(head, command["resume"]) or _answer_ahead(executor, head, command["resume"])
    if redirected:
        start = _redirect(executor, head, command)
    elif forked and not answered and head is not None:
        return _fork(executor, head, MISSING)
    else:
        assert head is not None
        return Start(head, answered)
    start.write = join_writes([answered, start.write])
    return start


def answer(head: Head, resume: Any) -> Write:
    """Give answers to the head's open questions: by id, or any JSON to the first one."""
    waiting = [(task, question) for task in head.tasks for question in task.open]
    by_id = _names_questions(resume)
    answers: list[AnswerItem] = []
    for task, question in waiting if by_id else waiting[:1]:
        if by_id and question["id"] not in resume:
            continue
        question["answered"] = True
        question["answer"] = to_json(resume[question["id"]] if by_id else resume, "the answer")
        answers.append(_answer_item(head.checkpoint_id, task.id, question))
    return Write(answers=answers) if answers else Write()


def _names_questions(resume: Any) -> bool:
    """Whether it is `{question id: answer}`."""
    return isinstance(resume, dict) and bool(resume) and all(_is_id(key) for key in resume)


def _answer_ahead(executor: Executor, head: Head, resume: Any) -> Write:
    """No question is open, as after an update from outside: the answer is for the first one that comes up here."""
    nodes = executor.topology.nodes
    waiting = (t for t in head.tasks if t.name in nodes and nodes[t.name].kind != "subgraph" and not t.asked)
    task = next(waiting, None)
    if task is None or _names_questions(resume) or any(other.open for other in head.tasks):
        return Write()
    ahead = InterruptState(
        id=interrupt_id(task.id, "", 0), ordinal=0, value=None, answered=True, answer=to_json(resume, "the answer")
    )
    task.asked.append(ahead)
    return Write(interrupts=[_interrupt_item(head.checkpoint_id, task, ahead)])


def _interrupt_item(checkpoint_id: str, task: Task, question: InterruptState) -> InterruptItem:
    return InterruptItem(
        checkpoint_id=checkpoint_id,
        task_id=task.id,
        ordinal=question["ordinal"],
        interrupt_id=question["id"],
        node=task.name,
        checkpoint_ns="",
        value=question.get("value"),
        answered=bool(question.get("answered")),
        answer=question.get("answer"),
    )


def _answer_item(checkpoint_id: str, task_id: str, question: InterruptState) -> AnswerItem:
    return AnswerItem(
        checkpoint_id=checkpoint_id, task_id=task_id, ordinal=question["ordinal"], answer=question.get("answer")
    )


def _fork(executor: Executor, head: Head, resume: Any) -> Start:
    """Go on from an older checkpoint, maybe with other answers: the same tasks again, on a branch of their own."""
    after = executor.make_head(head, head.values, (), head.joins)
    after.tasks = again(after.checkpoint_id, head.tasks)
    start = Start(after, Write(checkpoints=[executor.item(after, head.checkpoint_id, "fork", {})]))
    if resume is not MISSING:
        for task in head.tasks:
            task.asked = [{**question, "answered": False} for question in task.asked]
        answer(head, resume)
        for old, new in zip(head.tasks, after.tasks, strict=True):
            _carry(executor, head, old, after, new, start)
    executor.records = []
    return start


def _redirect(executor: Executor, head: Head | None, command: Mapping[str, Any]) -> Start:
    """An update or a way to go from outside: a checkpoint of its own, to which unfinished tasks are carried over."""
    schema, topology = executor.topology.schema, executor.topology
    values: dict[str, Any] = head.values if head else schema.start()
    joins: Joins = head.joins if head else {}
    done: list[tuple[str, Result]] = []
    unfinished: list[Task] = []
    for task in head.tasks if head else ():
        record = executor.ledger(head, task)[0].records.get("", MISSING) if head else MISSING
        if record is MISSING:
            unfinished.append(task)
        else:
            done.append((task.name, Result.from_record(record)))
    updates = [(name, result.update or {}) for name, result in done]
    updates.append(("__command__", schema.input(_update_of(command.get("update")))))
    merged, _ = schema.apply(values, updates)
    targets, joins = targets_after(topology, done, joins)
    goto = targets_from_json(to_json(command.get("goto"), "command.goto"))
    after = executor.make_head(head, merged, (), joins)
    fresh = tasks_to(after.checkpoint_id, topology, [*targets, *goto])
    kept = _merge_tasks(after.checkpoint_id, unfinished, fresh)
    after.tasks = [*kept.values(), *(task for task in fresh if task.id not in {k.id for k in kept.values()})]
    delta = schema.delta(head.values if head else {}, merged)
    item = executor.item(after, head.checkpoint_id if head else None, "update", delta)
    start = Start(after, Write(checkpoints=[item]))
    for old in unfinished:
        assert head is not None
        _carry(executor, head, old, after, kept[old.id], start)
    executor.records = []
    return start


def _update_of(update: Any) -> Any:
    """`command.update`: an object, or pairs of key and value."""
    return dict(update) if isinstance(update, list) else update or {}


def _merge_tasks(checkpoint_id: str, unfinished: Sequence[Task], fresh: Sequence[Task]) -> dict[str, Task]:
    """Unfinished tasks at the new checkpoint, by their old id; Sends are numbered behind the fresh ones."""
    pushes = sum(isinstance(task.path[-1], int) for task in fresh)
    kept: dict[str, Task] = {}
    for old in unfinished:
        path = old.path
        if isinstance(path[-1], int):
            path, pushes = [path[0], pushes], pushes + 1
        kept[old.id] = again(checkpoint_id, [Task(old.id, old.name, path, old.input)])[0]
    return kept


def _carry(executor: Executor, head: Head, old: Task, after: Head, new: Task, start: Start) -> None:
    """Take a task's questions, answers and journaled calls along to its new checkpoint."""
    steps: list[StepItem] = []
    for record in executor.records:
        if record["task_id"] == old.id and record["key"]:
            start.records.append({**record, "task_id": new.id})
            steps.append(
                StepItem(
                    checkpoint_id=after.checkpoint_id,
                    task_id=new.id,
                    key=record["key"],
                    kind=record["kind"],
                    name=record["name"],
                    attempt=executor.claim.get("attempt", 1),
                    duration_ms=0,
                    result=record["result"],
                    details={"carried_from": head.checkpoint_id},
                )
            )
    interrupts: list[InterruptItem] = []
    if executor.topology.nodes[old.name].kind != "subgraph":
        for nth, question in enumerate(old.asked):
            carried: InterruptState = {**question, "id": interrupt_id(new.id, "", nth)}
            new.asked.append(carried)
            interrupts.append(_interrupt_item(after.checkpoint_id, new, carried))
    start.write = join_writes([start.write, Write(steps=steps, interrupts=interrupts)])
