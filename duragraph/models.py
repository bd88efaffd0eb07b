"""Shapes of requests: what the edge must refuse. The rest passes through to the SQL functions as it came."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, RootModel

StreamMode = Literal[
    "values", "updates", "messages", "messages-tuple", "custom", "events", "debug", "tasks", "checkpoints"
]
RUN_FIELDS = (
    "run_id", "thread_id", "assistant_id", "created_at", "updated_at", "status", "metadata", "kwargs",
    "multitask_strategy", "attempt", "error", "cancel_reason", "langsmith_session_name",
)  # fmt: skip
STREAM_MODES = ("values", "updates", "messages", "messages-tuple", "custom", "events", "debug", "tasks", "checkpoints")
THREAD_STREAM_MODES = ("run_modes", "lifecycle", "state_update")

Object = dict[str, Any]
Nodes = Literal["*"] | list[str]
Token = Annotated[int, Field(ge=0, lt=2**63)]
Webhook = Annotated[str, Field(min_length=1, max_length=8192)]
Count = Annotated[int, Field(ge=0, lt=2**63)]


class Shape(BaseModel):
    """Strict in what it names, lenient about what it does not."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Config(Shape):
    """LangGraph's config of a run or an assistant."""

    tags: list[str] | None = None
    recursion_limit: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    configurable: Object | None = None
    metadata: Object | None = None


class Checkpoint(Shape):
    """A point in a thread's history."""

    thread_id: UUID | None = None
    checkpoint_ns: str | None = None
    checkpoint_id: UUID | None = None
    checkpoint_map: Object | None = None


class Command(Shape):
    """What a run may begin with instead of input. `resume` may be anything."""

    resume: Any = None
    update: Object | list[Any] | None = None
    goto: str | Object | list[str | Object] | None = None


class RunCreate(Shape):
    """The body of every request that makes a run. `input` may be anything and is not looked at."""

    assistant_id: str = Field(min_length=1, max_length=200)
    checkpoint: Checkpoint | None = None
    checkpoint_id: UUID | None = None
    command: Command | None = None
    metadata: Object | None = None
    config: Config | None = None
    context: Object | None = None
    webhook: Webhook | None = None
    interrupt_before: Nodes | None = None
    interrupt_after: Nodes | None = None
    stream_mode: StreamMode | list[StreamMode] | None = None
    stream_subgraphs: bool | None = None
    stream_resumable: bool | None = None
    feedback_keys: list[str] | None = None
    multitask_strategy: Literal["reject", "enqueue", "interrupt", "rollback"] | None = None
    if_not_exists: Literal["create", "reject"] | None = None
    on_completion: Literal["delete", "keep", "complete", "continue"] | None = None
    on_disconnect: Literal["continue", "cancel"] | None = None
    after_seconds: Annotated[float, Field(ge=0, le=315_360_000)] | None = None
    checkpoint_during: bool | None = None
    durability: Literal["sync", "async", "exit"] | None = None
    strict_resume: bool | None = Field(
        default=None,
        description="409 when `command.resume` meets no open question, instead of a run that does nothing.",
    )
    priority: Annotated[int, Field(ge=-32768, le=32767)] | None = None
    max_attempts: Annotated[int, Field(ge=1, le=1000)] | None = None


class RunBatch(RootModel[list[RunCreate]]):
    """Several runs at once: all are made or none."""

    root: list[RunCreate] = Field(min_length=1, max_length=1000)


class RunsCancel(Shape):
    """Which runs to cancel: by id, by thread, or by status over the whole server."""

    run_ids: list[UUID] | None = Field(default=None, max_length=10_000)
    thread_id: UUID | None = None
    status: Literal["pending", "running", "all"] | None = None
    action: Literal["interrupt", "rollback"] | None = None


class ProtocolCommand(Shape):
    """A command of protocol v2. Its answer has the same `id`."""

    id: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    method: str = Field(max_length=200)
    params: Object | None = None


class EventStreamRequest(Shape):
    """What of a thread's events to give: those after `since` of these channels, below these namespaces."""

    channels: list[str] = Field(min_length=1, max_length=1000)
    namespaces: list[list[str]] | None = Field(default=None, max_length=1000)
    depth: Annotated[int, Field(ge=0)] | None = None
    since: Annotated[int, Field(lt=2**63)] | None = None


class InterruptResponse(Shape):
    """An answer to one question of a run. `response` may be anything."""

    interrupt_id: str = Field(min_length=1)
    response: Any = None


class InputRespond(Shape):
    """Answers to the questions on which a thread waits: one, or several at once."""

    interrupt_id: str | None = None
    response: Any = None
    responses: list[InterruptResponse] | None = Field(default=None, min_length=1, max_length=10_000)
    update: Object | None = None
    goto: str | Object | list[str | Object] | None = None
    config: Object | None = None
    metadata: Object | None = None


class WorkerGraph(Shape):
    """A graph that a worker serves."""

    graph_id: str = Field(min_length=1, max_length=200)
    definition: Object | None = None
    schemas: Object | None = None


class WorkerRegister(Shape):
    """A worker's registration."""

    worker_id: str = Field(min_length=1, max_length=200)
    capacity: int = Field(default=10, ge=1, le=1_000_000)
    lease_seconds: int = Field(default=30, ge=1, le=86400)
    build_id: str | None = Field(default=None, max_length=200)
    graphs: list[WorkerGraph] = Field(default_factory=list, max_length=10_000)
    details: Object | None = None


class WorkerClaim(Shape):
    """A worker's poll for runs."""

    max_runs: int = Field(default=1, ge=0, le=1000)
    wait_seconds: float = Field(default=0, ge=0)
    held: list[Token] = Field(default_factory=list, max_length=100_000)


class SavedRead(Shape):
    """Which checkpoints of a hosted graph are meant: one, or the newest of a namespace."""

    checkpoint_ns: str | None = None
    checkpoint_id: UUID | None = None
    before: UUID | None = None
    filter: Object | None = None
    limit: int = Field(default=1, ge=1, le=1000)


class WorkerReads(Shape):
    """A worker asks what was saved on the thread of a run it holds."""

    run_id: UUID
    token: Token
    reads: list[SavedRead] = Field(max_length=100)


class WorkerBeat(Shape):
    """A heartbeat, of our protocol when `held` is there, else of the published one."""

    held: list[Token] | None = Field(default=None, max_length=100_000)
    active_runs: int = Field(default=0, ge=0, le=2**31 - 1)
    details: Object | None = None
    status: str | None = None
    total_runs: Count | None = None
    failed_runs: Count | None = None


class LegacyCapabilities(Shape):
    """Of the published protocol's registration."""

    graphs: list[str] = Field(default_factory=list)
    max_concurrent_runs: int = Field(default=10, ge=1, le=1_000_000)


class LegacyRegister(Shape):
    """The published protocol's registration."""

    worker_id: str = Field(min_length=1, max_length=200)
    name: str | None = None
    capabilities: LegacyCapabilities = Field(default_factory=LegacyCapabilities)
    graph_definitions: list[Object] = Field(default_factory=list)


class LegacyPoll(Shape):
    """The published protocol's poll."""

    max_tasks: int = Field(default=1, ge=0, le=1000)


class LegacyEvent(Shape):
    """The published protocol's event."""

    run_id: str
    event_type: str
    data: Object = Field(default_factory=dict)
    node_id: str | None = None
