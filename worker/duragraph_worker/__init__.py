"""Write agents as graphs that survive anything, run them here or for a DuraGraph control plane.

    from duragraph_worker import END, Graph, entrypoint, llm_node, node, router_node

    @Graph(id="hello")
    class Hello:
        @entrypoint
        @node()
        def greet(self, state):
            return {"greeting": f"Hello, {state['name']}!"}

    Hello().run({"name": "Ada"}).output     # {"name": "Ada", "greeting": "Hello, Ada!"}
    Hello().serve("http://localhost:8081")  # or work for a control plane

Names are imported when they are first used: importing this package is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from duragraph_worker.client import ApiError, Client, RunFailed
    from duragraph_worker.commands import END, START, Command, Send
    from duragraph_worker.context import Context, SyncContext, get_context
    from duragraph_worker.embedder import Embedder
    from duragraph_worker.errors import (
        DuraGraphError,
        EmbeddingError,
        EmptyInputError,
        GraphError,
        GraphRecursionError,
        InvalidUpdateError,
        LeaseLost,
        NodeError,
        StateError,
        StoreError,
        ToolError,
    )
    from duragraph_worker.events import Event
    from duragraph_worker.graph import Graph, GraphInstance
    from duragraph_worker.interrupts import interrupt
    from duragraph_worker.nodes import (
        edge,
        entrypoint,
        graph_node,
        human_node,
        llm_node,
        node,
        router_node,
        tool_node,
    )
    from duragraph_worker.results import RunResult
    from duragraph_worker.state import MessagesState, append, merge, messages
    from duragraph_worker.store import Item, Store
    from duragraph_worker.tools import Tool, tool
    from duragraph_worker.worker import Worker

_WHERE = {
    "client": "ApiError Client RunFailed",
    "commands": "END START Command Send",
    "context": "Context SyncContext get_context",
    "embedder": "Embedder",
    "errors": "DuraGraphError EmbeddingError EmptyInputError GraphError GraphRecursionError InvalidUpdateError "
    "LeaseLost NodeError StateError StoreError ToolError",
    "events": "Event",
    "graph": "Graph GraphInstance",
    "interrupts": "interrupt",
    "nodes": "edge entrypoint graph_node human_node llm_node node router_node tool_node",
    "results": "RunResult",
    "state": "MessagesState append merge messages",
    "store": "Item Store",
    "tools": "Tool tool",
    "worker": "Worker",
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names.split()}

__all__ = [
    "END",
    "START",
    "ApiError",
    "Client",
    "Command",
    "Context",
    "DuraGraphError",
    "Embedder",
    "EmbeddingError",
    "EmptyInputError",
    "Event",
    "Graph",
    "GraphError",
    "GraphInstance",
    "GraphRecursionError",
    "InvalidUpdateError",
    "Item",
    "LeaseLost",
    "MessagesState",
    "NodeError",
    "RunFailed",
    "RunResult",
    "Send",
    "StateError",
    "Store",
    "StoreError",
    "SyncContext",
    "Tool",
    "ToolError",
    "Worker",
    "append",
    "edge",
    "entrypoint",
    "get_context",
    "graph_node",
    "human_node",
    "interrupt",
    "llm_node",
    "merge",
    "messages",
    "node",
    "router_node",
    "tool",
    "tool_node",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
