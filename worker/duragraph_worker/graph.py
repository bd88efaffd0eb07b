"""`@Graph`: makes a class with node methods a graph that can be run, streamed, served and drawn."""

from __future__ import annotations

import asyncio
import importlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from duragraph_worker.errors import GraphError
from duragraph_worker.events import Event
from duragraph_worker.results import EventStream, Runner, RunResult
from duragraph_worker.state import Schema
from duragraph_worker.topology import Topology, collect


class GraphInstance:
    """What a class decorated with `@Graph` can do, besides its own methods."""

    _topology: ClassVar[Topology]
    _runner: Runner | None = None

    if TYPE_CHECKING:

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...

    @classmethod
    def topology(cls) -> Topology:
        """The checked graph."""
        return cls._topology

    @classmethod
    def definition(cls) -> dict[str, Any]:
        """What is registered with a control plane: `{nodes, edges, entry_point, channels, ...}`."""
        return cls._topology.definition()

    @classmethod
    def schemas(cls) -> dict[str, Any]:
        """JSON Schemas: `{input_schema, output_schema, state_schema, config_schema, context_schema}`."""
        return cls._topology.schemas()

    @classmethod
    def draw(cls) -> str:
        """The graph as a Mermaid flowchart."""
        return cls._topology.mermaid()

    @property
    def local(self) -> Runner:
        """This instance's local runner, with its threads in memory."""
        if self._runner is None:
            self._runner = _above("local").LocalRunner(self)
        return self._runner

    async def arun(self, input: Any = None, **options: Any) -> RunResult:
        """As `run`, in a running event loop."""
        return await self.local.run(input, **options)

    def run(self, input: Any = None, **options: Any) -> RunResult:
        """Run here, without a control plane.

        Options: `thread_id` (state is kept between calls with the same one), `config`, `context`, `resume` (the answer
        to the question the thread waits at, or `{interrupt id: answer}`), `command`, `interrupt_before`,
        `interrupt_after`. A node's exception is in the result: `result.raise_for_error()`.
        """
        result: RunResult = wait_for(self.arun(input, **options))
        return result

    def stream(self, input: Any = None, *, stream_mode: str | Sequence[str] = "values", **options: Any) -> EventStream:
        """Run here and give the events as they happen: `for event in ...` or `async for event in ...`.

        `stream_mode`: values, updates, messages, messages-tuple, custom, tasks, checkpoints, debug, events; one or
        several. Options as for `run`, and `subgraphs=True`.
        """
        return self.local.stream(input, stream_mode=stream_mode, **options)

    def astream(self, input: Any = None, **options: Any) -> AsyncIterator[Event]:
        """As `stream`, for `async for` only."""
        return aiter(self.stream(input, **options))

    def serve(self, url: str | None = None, **options: Any) -> None:
        """Work for the control plane at `url` until stopped; options are those of `Worker`."""
        arguments = () if url is None else (url,)
        _above("worker").Worker(*arguments, graphs=[self], **options).run()


class Graph:
    """Class decorator: `@Graph(id="agent", state=State)`.

    `state` is a TypedDict, a dataclass, a pydantic model, or nothing for a plain dict; `context` a schema of what a run
    is given besides its input. The graph is checked at once: GraphError names an unreachable node, an unknown target, a
    missing or second entry, a router that leads nowhere.
    """

    def __init__(
        self,
        id: str,
        *,
        state: Any = None,
        context: Any = None,
        description: str | None = None,
        version: str = "1.0.0",
    ) -> None:
        if not 1 <= len(id) <= 200:
            raise GraphError('a graph needs an id of 1 to 200 characters: @Graph(id="my_agent")')
        self.id = id
        self.state = state
        self.context = context
        self.description = description
        self.version = version

    def __call__(self, cls: type) -> type[GraphInstance]:
        """Check the class and give it `run`, `stream` and the others of GraphInstance."""
        topology = Topology(
            self.id, Schema(self.state), self.description or _first_line(cls), self.version, self.context
        )
        collect(cls, topology)
        for name in topology.nodes:
            if hasattr(GraphInstance, name):
                raise GraphError(f"{cls.__name__}: node '{name}' hides Graph.{name}; name it otherwise")
        if issubclass(cls, GraphInstance):  # a subclass of a graph
            mixed: Any = cls
        else:
            own = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
            mixed = type(cls)(cls.__name__, (cls, GraphInstance), own)  # type: ignore[misc]  # cls may have a metaclass
        mixed._topology = topology
        return cast(type[GraphInstance], mixed)


def _above(module: str) -> Any:
    """A module that stands on this one: loaded when a graph is run or served, and no sooner."""
    return importlib.import_module(f"duragraph_worker.{module}")


def _first_line(cls: type) -> str | None:
    lines = (cls.__doc__ or "").strip().splitlines()
    return lines[0] if lines else None


def instance_of(graph: Any) -> GraphInstance:
    """A graph given as its class or as an instance."""
    made = graph() if isinstance(graph, type) else graph
    if not isinstance(made, GraphInstance):
        raise GraphError(f"{graph!r} is no graph; decorate the class with @Graph(id=...)")
    return made


def wait_for(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end from plain code, also where an event loop is already running (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    return in_thread(lambda: asyncio.run(coroutine))


def in_thread(work: Callable[[], Any]) -> Any:
    """Do `work` in a thread of its own and give back what it gave or raised."""
    box: dict[str, Any] = {}

    def body() -> None:
        try:
            box["result"] = work()
        except BaseException as problem:  # handed to the caller
            box["error"] = problem

    thread = threading.Thread(target=body, name="duragraph-run")
    thread.start()
    thread.join()
    if "error" in box:
        raise box["error"]
    return box.get("result")
