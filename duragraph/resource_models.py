"""Shapes of the requests about assistants, threads, states, items and crons: what does not fit them is refused."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from duragraph.models import Checkpoint, Config, Nodes, Object, Shape, StreamMode, Token, Webhook

Limit = Annotated[int, Field(ge=1, le=1000)]
Offset = Annotated[int, Field(ge=0, le=2**31 - 1)]
Order = Literal["asc", "desc"]
Text = Annotated[str, Field(max_length=10_000)]
GraphId = Annotated[str, Field(min_length=1, max_length=200)]

AssistantField = Literal[
    "assistant_id",
    "graph_id",
    "name",
    "description",
    "config",
    "context",
    "created_at",
    "updated_at",
    "metadata",
    "version",
]
ThreadField = Literal[
    "thread_id",
    "created_at",
    "updated_at",
    "state_updated_at",
    "metadata",
    "config",
    "status",
    "values",
    "interrupts",
    "error",
]
CronField = Literal[
    "cron_id",
    "assistant_id",
    "thread_id",
    "on_run_completed",
    "end_time",
    "schedule",
    "timezone",
    "created_at",
    "updated_at",
    "user_id",
    "payload",
    "next_run_date",
    "metadata",
    "enabled",
]
ThreadStatus = Literal["idle", "busy", "interrupted", "error"]


class AssistantCreate(Shape):
    """A new assistant."""

    assistant_id: UUID | None = None
    graph_id: GraphId
    config: Config | None = None
    context: Object | None = None
    metadata: Object | None = None
    if_exists: Literal["raise", "do_nothing"] | None = None
    name: Text | None = None
    description: Text | None = None


class AssistantPatch(Shape):
    """What changes in an assistant: metadata is merged, config and context are replaced."""

    graph_id: GraphId | None = None
    config: Config | None = None
    context: Object | None = None
    metadata: Object | None = None
    name: Text | None = None
    description: Text | None = None


class AssistantCount(Shape):
    """Which assistants are meant."""

    metadata: Object | None = None
    graph_id: GraphId | None = None
    name: Text | None = None


class AssistantSearch(AssistantCount):
    """A page of assistants."""

    limit: Limit | None = Field(default=None, description="10 when not given.")
    offset: Offset | None = None
    sort_by: Literal["assistant_id", "created_at", "updated_at", "name", "graph_id"] | None = None
    sort_order: Order | None = None
    select: list[AssistantField] | None = None


class AssistantVersions(Shape):
    """A page of an assistant's versions."""

    limit: Limit | None = Field(default=None, description="10 when not given.")
    offset: Offset | None = None
    metadata: Object | None = None


class AssistantLatest(Shape):
    """The version an assistant shall have; may be a query parameter instead."""

    version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None


class Ttl(Shape):
    """How long a thread is kept, in minutes, and what then becomes of it."""

    ttl: Annotated[float, Field(ge=0, le=52_560_000)]
    strategy: Literal["delete", "keep_latest"] | None = None


class Update(Shape):
    """One update of a superstep."""

    values: Object | list[Object] | None = None
    as_node: str | None = None


class Superstep(Shape):
    """Updates that make one checkpoint together."""

    updates: list[Update] = Field(max_length=1000)


class ThreadCreate(Shape):
    """A new thread."""

    thread_id: UUID | None = None
    metadata: Object | None = None
    if_exists: Literal["raise", "do_nothing"] | None = None
    graph_id: GraphId | None = None
    ttl: Ttl | None = None
    supersteps: list[Superstep] | None = Field(default=None, max_length=1000)


class ThreadPatch(Shape):
    """What changes in a thread: metadata is merged at the top level."""

    metadata: Object | None = None
    ttl: Ttl | None = None


class ThreadPrune(Shape):
    """Which threads to prune: `delete` removes them, `keep_latest` all of their history but the latest state."""

    thread_ids: list[UUID] = Field(max_length=1000)
    strategy: Literal["delete", "keep_latest"] | None = Field(default=None, description="delete when not given.")


class StatePatch(Shape):
    """Metadata to merge."""

    metadata: Object | None = None


class ThreadCount(Shape):
    """Which threads are meant."""

    metadata: Object | None = None
    values: Object | None = None
    status: ThreadStatus | None = None
    ids: list[UUID] | None = Field(default=None, max_length=10_000)


class ThreadSearch(ThreadCount):
    """A page of threads."""

    limit: Limit | None = Field(default=None, description="10 when not given.")
    offset: Offset | None = None
    sort_by: Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"] | None = None
    sort_order: Order | None = None
    select: list[ThreadField] | None = None
    extract: dict[str, str] | None = Field(
        default=None, max_length=10, description='{alias: path}, such as "values.messages[-1].content".'
    )


class Configured(Shape):
    """A checkpoint inside a config."""

    configurable: Checkpoint


class Mark(Shape):
    """A checkpoint by its id."""

    checkpoint_id: UUID


class ConfiguredMark(Shape):
    """A checkpoint by its id inside a config."""

    configurable: Mark


class StateUpdate(Shape):
    """A change of a thread's state from outside."""

    values: Object | list[Object] | None = None
    as_node: str | None = None
    checkpoint: Checkpoint | Configured | None = None
    checkpoint_id: UUID | None = None


class StateAt(Shape):
    """Which state is meant."""

    checkpoint: Checkpoint | Configured
    subgraphs: bool | None = None
    select: list[str] | None = Field(default=None, description="Fields of the state, and channels as `values.<key>`.")


class StateSearch(Shape):
    """A page of a thread's history."""

    limit: Limit | None = Field(default=None, description="1 when not given.")
    before: UUID | ConfiguredMark | Mark | None = None
    metadata: Object | None = None
    checkpoint: Checkpoint | Configured | None = None
    select: list[str] | None = Field(default=None, description="Fields of a state, and channels as `values.<key>`.")


class ItemDelete(Shape):
    """An item of the key-value store by its name."""

    namespace: list[str] = Field(default_factory=list, description="Labels: not empty, without periods.")
    key: str = Field(min_length=1)


class ItemPut(Shape):
    """An item of the key-value store; one that is there is replaced."""

    namespace: list[str] = Field(description="Labels: not empty, without periods; the first is not `langgraph`.")
    key: str = Field(min_length=1)
    value: Object
    index: Literal[False] | list[str] | None = Field(
        default=None,
        description="The paths whose texts it is found by, or false; the embedder's own if not given.",
    )
    ttl: float | None = Field(default=None, description="Minutes until it expires.")
    ttl_seconds: float | None = Field(default=None, description="The same in seconds, where `ttl` is not given.")


class ItemSearch(Shape):
    """A page of the items under a prefix."""

    namespace_prefix: list[str] | None = None
    filter: Object | None = Field(
        default=None, description="{field: value, or {operator: value}}: $eq, $ne, $gt, $gte, $lt, $lte."
    )
    limit: Limit | None = Field(default=None, description="10 when not given.")
    offset: Offset | None = None
    query: str | None = Field(
        default=None,
        description="What is looked for: what fits best comes first, with its score. Needs a worker that offers an "
        "embedder, and pgvector; else it has no effect.",
    )
    refresh_ttl: bool | None = Field(default=None, description="Whether what is found begins its time anew; true.")


class NamespaceSearch(Shape):
    """A page of the namespaces that hold items; `*` stands for any one label."""

    prefix: list[str] | None = None
    suffix: list[str] | None = None
    max_depth: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    limit: Limit | None = Field(default=None, description="100 when not given.")
    offset: Offset | None = None


class WorkerStore(Shape):
    """What a run asks of the key-value store: `op` is put, get, delete, search, list_namespaces or index."""

    run_id: UUID
    token: Token
    ops: list[Object] = Field(max_length=1000)


class CronBase(Shape):
    """What a cron's runs are asked, and when."""

    timezone: str | None = Field(default=None, description="An IANA name; UTC when not given.")
    end_time: datetime | date | None = Field(default=None, description="Without an offset it is in UTC.")
    input: Any = None
    metadata: Object | None = None
    config: Config | None = None
    context: Object | None = None
    webhook: Webhook | None = None
    interrupt_before: Nodes | None = None
    interrupt_after: Nodes | None = None
    multitask_strategy: Literal["reject", "enqueue", "interrupt", "rollback"] | None = None
    on_run_completed: Literal["delete", "keep"] | None = None
    enabled: bool | None = None
    stream_mode: StreamMode | list[StreamMode] | None = None
    stream_subgraphs: bool | None = None
    stream_resumable: bool | None = None
    durability: Literal["sync", "async", "exit"] | None = None
    checkpoint_during: bool | None = None


class CronCreate(CronBase):
    """A new cron."""

    schedule: str = Field(description='"minute hour day month weekday"; seconds as a sixth field are left out.')
    assistant_id: Annotated[str, Field(min_length=1, max_length=200)]


class CronPatch(CronBase):
    """What changes in a cron: metadata is merged, the rest replaced; null clears end_time, timezone and webhook."""

    schedule: str | None = None


class CronCount(Shape):
    """Which crons are meant."""

    assistant_id: UUID | None = None
    thread_id: UUID | None = None
    enabled: bool | None = None
    metadata: Object | None = None


class CronSearch(CronCount):
    """A page of crons."""

    limit: Limit | None = Field(default=None, description="10 when not given.")
    offset: Offset | None = None
    sort_by: (
        Literal["cron_id", "assistant_id", "thread_id", "next_run_date", "end_time", "created_at", "updated_at"] | None
    ) = None
    sort_order: Order | None = None
    select: list[CronField] | None = None


class RpcCall(Shape):
    """A call of JSON-RPC 2.0."""

    jsonrpc: Literal["2.0"]
    id: str | int | float | None = Field(default=None, description="Without it, nothing is answered.")
    method: str
    params: Object | None = None


class WorkerWrites(Shape):
    """What runs did: one Write a run, each one commit."""

    writes: list[Object] = Field(max_length=1000)
