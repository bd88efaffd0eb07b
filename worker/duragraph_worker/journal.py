"""What passes between the executor and whoever stores a run: the shapes of a write and of a claim, and the Journal.

The shapes are those of the worker protocol, field for field, so a worker sends a write as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypedDict, cast

Json = Any  # None | bool | int | float | str | list[Json] | dict[str, Json], checked by state.to_json


class EventItem(TypedDict, total=False):
    """One frame for the run's stream. With a `checkpoint_id` the values are read there and `data` is laid over them."""

    event: str
    data: Json
    checkpoint_id: str


class TaskItem(TypedDict, total=False):
    """A task of a checkpoint: `path` is `["__pull__", node]` or `["__push__", i]`; `input` is what a Send carried."""

    id: str
    name: str
    path: list[str | int]
    input: Json
    interrupts: list[InterruptState]


class InterruptState(TypedDict, total=False):
    """A question of a task as a claim shows it."""

    id: str
    ordinal: int
    value: Json
    answered: bool
    answer: Json


class CheckpointItem(TypedDict, total=False):
    """A new checkpoint; `channels` holds what changed: `{"set": value}` or `{"append": [...]}`.

    `saved`, here and in `channels`, is what a hosted graph wrote itself, kept beside what is shown.
    """

    checkpoint_id: str
    parent_checkpoint_id: str | None
    checkpoint_ns: str
    step: int
    source: str
    channels: dict[str, dict[str, Json]]
    next: list[str]
    tasks: list[TaskItem]
    metadata: dict[str, Json]
    saved: Json


class WriteItem(TypedDict):
    """What a task of a hosted graph wrote, kept until its superstep is complete: `idx` is its place, see the table."""

    checkpoint_id: str
    checkpoint_ns: str
    task_id: str
    task_path: str
    idx: int
    channel: str
    saved: Json


class StepItem(TypedDict, total=False):
    """A completed node (`key` is empty) or a completed side effect inside one."""

    checkpoint_id: str
    task_id: str
    key: str
    kind: str
    name: str
    attempt: int
    duration_ms: float
    result: Json
    details: dict[str, Json] | None


class InterruptItem(TypedDict, total=False):
    """A question that a task asks; with `answered` and `answer` when it was carried over from another checkpoint."""

    checkpoint_id: str
    task_id: str
    ordinal: int
    interrupt_id: str
    node: str
    checkpoint_ns: str
    value: Json
    response_schema: dict[str, Json]
    answered: bool
    answer: Json


class AnswerItem(TypedDict):
    """The answer to a question asked at that checkpoint by that task."""

    checkpoint_id: str
    task_id: str
    ordinal: int
    answer: Json


class EndItem(TypedDict, total=False):
    """How the run ends: success | error | timeout | interrupted | retry | release."""

    status: str
    error: dict[str, str]
    output: Json
    retry_after: float


class Write(TypedDict, total=False):
    """One commit of a run, without run_id, token and write_no: those belong to whoever sends it."""

    checkpoint_id: str | None
    events: list[EventItem]
    checkpoints: list[CheckpointItem]
    steps: list[StepItem]
    interrupts: list[InterruptItem]
    answers: list[AnswerItem]
    writes: list[WriteItem]
    end: EndItem


class ClaimCheckpoint(TypedDict, total=False):
    """Where a run starts from, with its values rendered."""

    checkpoint_id: str
    parent_checkpoint_id: str | None
    step: int
    source: str
    values: dict[str, Json]
    next: list[str]
    tasks: list[TaskItem]
    metadata: dict[str, Json]
    saved: Json


class JournalItem(TypedDict):
    """A step completed earlier from the claim's checkpoint."""

    task_id: str
    key: str
    kind: str
    name: str
    result: Json


class Claim(TypedDict, total=False):
    """A run handed to a worker."""

    run_id: str
    token: int
    attempt: int
    max_attempts: int
    thread_id: str
    temporary: bool
    assistant_id: str
    graph_id: str
    last_seq: int
    kwargs: dict[str, Json]
    metadata: dict[str, Json]
    resumed: bool
    checkpoint: ClaimCheckpoint | None
    journal: list[JournalItem]


def run_config(claim: Claim) -> dict[str, Any]:
    """The run's config as its nodes see it: the ids in `configurable` and `metadata`, and there the run's metadata."""
    config: dict[str, Any] = (claim.get("kwargs") or {}).get("config") or {}
    known: Mapping[str, Any] = claim
    ids = {key: known[key] for key in ("thread_id", "run_id", "graph_id", "assistant_id") if known.get(key)}
    configurable = {**(config.get("configurable") or {}), **ids}
    metadata = {**(config.get("metadata") or {}), **(claim.get("metadata") or {}), **ids}
    return {**config, "configurable": configurable, "metadata": metadata}


class Journal(Protocol):
    """Stores the writes of one claimed run, in the order of the calls; several tasks of the run may call at once.

    All methods raise LeaseLost when the run belongs to someone else now: nothing of the refused write was stored, and
    the executor stops. An `end` is in the last write, which is committed.
    """

    async def write(self, write: Write, *, flush: bool = False) -> None:
        """Queue a write: it goes out within some 25 ms, at once with `flush`, alone or in one commit with others."""

    async def commit(self, write: Write) -> None:
        """Queue a write and return when it, and so every earlier one, is stored."""

    async def store(self, ops: list[dict[str, Json]]) -> list[Json]:
        """Do operations of the key-value store in one commit of their own, at once. Raises StoreError."""
        ...


def join_writes(writes: Iterable[Write]) -> Write:
    """One write that commits all of these, in order; the last `checkpoint_id` and the `end` are kept."""
    joined: dict[str, Any] = {}
    for write in writes:
        for key, value in write.items():
            if isinstance(value, list):
                joined.setdefault(key, []).extend(value)
            else:
                joined[key] = value
    return cast(Write, joined)
