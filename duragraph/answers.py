"""Shapes of what is answered: described to clients and held by tests, never checked on the way."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from duragraph.models import Object
from duragraph.resource_models import ThreadStatus


class Answer(BaseModel):
    """What an answer has; more may be added."""

    model_config = ConfigDict(extra="forbid")


class Error(Answer):
    """What went wrong. `code` is stable and for programs; `field` names the part of the request at fault."""

    detail: str
    code: str
    field: str | None = None
    hint: str | None = None
    error: str | None = Field(default=None, description="The detail once more, where LangGraph has it under this name.")


class CommandRefused(Error):
    """What is no command of protocol v2, with its id where it has one; `error` is the protocol's own word."""

    type: Literal["error"]
    id: int | str | None
    message: str


class RpcFault(Answer):
    """Why a call of JSON-RPC failed."""

    code: int
    message: str
    data: Any = None


class RpcAnswer(Answer):
    """The answer to a call of JSON-RPC 2.0: its result, or why there is none."""

    jsonrpc: Literal["2.0"]
    id: str | int | float | None
    result: Any = None
    error: RpcFault | None = None


class AssistantVersion(Answer):
    """One version of an assistant."""

    assistant_id: UUID
    graph_id: str
    config: Object
    context: Object
    metadata: Object
    name: str
    description: str | None
    version: int
    created_at: str


class Assistant(AssistantVersion):
    """A graph with a configuration."""

    updated_at: str


class AssistantList(Answer):
    """A page of assistants, in the older form."""

    assistants: list[Assistant]
    total: int


class DrawnNode(Answer):
    """A node of a drawing."""

    id: str
    type: str
    data: Object


class DrawnEdge(Answer):
    """An edge of a drawing."""

    source: str
    target: str
    conditional: bool | None = None
    data: str | None = None


class Drawing(Answer):
    """A graph to be drawn."""

    nodes: list[DrawnNode]
    edges: list[DrawnEdge]


class GraphSchemas(Answer):
    """JSON Schemas of what goes into a graph and comes out."""

    graph_id: str
    input_schema: Object | None
    output_schema: Object | None
    state_schema: Object | None
    config_schema: Object | None
    context_schema: Object | None


class Interrupt(Answer):
    """A question to a person."""

    id: str
    value: Any


class Problem(Answer):
    """Why a run failed."""

    error: str
    message: str


class ThreadTtl(Answer):
    """How long a thread is kept."""

    strategy: str
    ttl_minutes: float
    expires_at: str


class Thread(Answer):
    """A conversation: a line of runs over one state."""

    thread_id: UUID
    created_at: str
    updated_at: str
    state_updated_at: str | None
    metadata: Object
    status: ThreadStatus
    config: Object
    values: Object | None
    error: Problem | None
    interrupts: dict[str, list[Interrupt]]
    ttl: ThreadTtl | None = None
    extracted: Object | None = None


class ThreadList(Answer):
    """A page of threads, in the older form."""

    threads: list[Thread]
    total: int


class Cron(Answer):
    """A schedule that makes runs."""

    cron_id: UUID
    assistant_id: UUID
    thread_id: UUID | None
    user_id: str
    end_time: str | None
    schedule: str
    timezone: str | None
    payload: Object
    next_run_date: str | None
    metadata: Object
    on_run_completed: str | None
    enabled: bool
    created_at: str
    updated_at: str


class ThreadsPruned(Answer):
    """How many threads were pruned: those that are busy or not there are left out."""

    pruned_count: int


class Stored(Answer):
    """How many rows there are, and their bytes as stored."""

    count: int
    bytes: int


class StoredChannel(Answer):
    """What one channel takes."""

    versions: int
    bytes: int


class StoredChannels(Stored):
    """What the channels take."""

    by_channel: dict[str, StoredChannel]


class ThreadStorage(Answer):
    """What the state of a thread takes: `pending_writes` is what its nodes gave and asked."""

    thread_id: UUID
    total_bytes: int
    checkpoints: Stored
    channel_values: StoredChannels
    pending_writes: Stored


class Point(Answer):
    """A point in a thread's history."""

    thread_id: UUID
    checkpoint_ns: str
    checkpoint_id: UUID | None = None


class StateTask(Answer):
    """What runs next, or ran then."""

    id: str
    name: str
    path: list[str | int]
    error: str | None
    interrupts: list[Interrupt]
    checkpoint: Point | None
    state: ThreadState | None
    result: Any


class ThreadState(Answer):
    """The state of a thread at a checkpoint; nothing but empty values before the first."""

    values: Object
    next: list[str]
    tasks: list[StateTask]
    metadata: Object
    created_at: str | None
    checkpoint: Point | None
    parent_checkpoint: Point | None
    interrupts: list[Interrupt]
    checkpoint_id: UUID | None
    parent_checkpoint_id: UUID | None


class StateUpdated(Answer):
    """The checkpoint an update made."""

    checkpoint: Point
    configurable: Point
    checkpoint_id: UUID


class Item(Answer):
    """What is stored under a namespace and a key."""

    namespace: list[str]
    key: str
    value: Object
    created_at: str
    updated_at: str


class FoundItem(Item):
    """An item that a search found."""

    score: float | None


class FoundItems(Answer):
    """A page of items."""

    items: list[FoundItem]


class FoundNamespaces(Answer):
    """A page of namespaces."""

    namespaces: list[list[str]]


class StoreResults(Answer):
    """One result an operation, in order: null, an item, items or namespaces."""

    results: list[Any]


class Ok(Answer):
    """The server answers."""

    ok: bool
    services: Object


class Health(Answer):
    """How the server is: healthy; degraded, which works with something missing; or unhealthy, which does not work."""

    status: Literal["healthy", "degraded", "unhealthy"]
    version: str
    reasons: list[str]
    draining: bool
    listen: Object
    pool: Object
    schema_version: Object
