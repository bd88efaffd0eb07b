"""Finds the graphs that a target on the command line names: "module:Graph", "file.py:Graph", "module" or "file.py".

Graphs of LangGraph are found too, and served under the name they have in the module; "id=file.py:graph" names another.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from duragraph_worker.errors import DuraGraphError, GraphError
from duragraph_worker.graph import GraphInstance, instance_of
from duragraph_worker.hosted import HostedGraph

AnyGraph = GraphInstance | HostedGraph

_TARGET = re.compile(r"(?:(?P<id>[^=:/\\]+)=)?(?P<place>[^:]+)(?::(?P<name>.*))?")


class TargetError(DuraGraphError):
    """A target names no graph; the message says why and what to write.

    Where the target's own code failed, that exception is the `__cause__`.
    """


def load_graphs(target: str, graph_id: str | None = None) -> list[AnyGraph]:
    """The graph a target names, or all graphs of its module, in the order of declaration. Raises `TargetError`.

    `graph_id`: the id that a graph of LangGraph is served by.
    """
    # LangGraph then notes the types of a graph's schemas: the only ones that are made again from what was saved.
    os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")
    parts = _TARGET.fullmatch(target)
    if parts is None:
        raise TargetError(f'{target}: write "module:Graph", "file.py:Graph" or "file.py"')
    place, name, graph_id = parts["place"], parts["name"], graph_id or parts["id"]
    module = _load_file(place, target) if place.endswith(".py") else _load_module(place, target)
    return [_named(module, name, target, graph_id)] if name else _all(module, target)


def load_value(target: str) -> Any:
    """What "file.py:name" names. Raises `TargetError`."""
    place, _, name = target.rpartition(":")
    module = _load_file(place, target)
    if (found := getattr(module, name, None)) is None:
        raise TargetError(f'{target}: {module.__name__} has no "{name}"')
    return found


def _load_module(place: str, target: str) -> ModuleType:
    _put_on_path(Path.cwd())
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as problem:
        if problem.name is None or not f"{place}.".startswith(f"{problem.name}."):
            raise _broken(place, problem) from problem
        hint = f"; for a file write {place}.py" if Path(f"{place}.py").exists() else ""
        raise TargetError(
            f'{target}: there is no module "{problem.name}" here or among the installed packages{hint}'
        ) from None
    except Exception as problem:
        raise _broken(place, problem) from problem


def _load_file(place: str, target: str) -> ModuleType:
    path = Path(place).resolve()
    if not path.is_file():
        raise TargetError(f"{target}: there is no file {path}")
    _put_on_path(path.parent)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # as an import would: type hints and pickles look it up there
    try:
        spec.loader.exec_module(module)
    except Exception as problem:
        raise _broken(place, problem) from problem
    return module


def _broken(place: str, problem: Exception) -> TargetError:
    return TargetError(f"{place} cannot be loaded: {type(problem).__name__}: {problem}")


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _named(module: ModuleType, name: str, target: str, graph_id: str | None = None) -> AnyGraph:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise TargetError(f'{target}: {module.__name__} has no "{name}"; its graphs: {_names(module)}')
    if not _is_ours(found) and (hosted := _hosted(found, graph_id or name.rpartition(".")[2])) is not None:
        return hosted
    try:
        return instance_of(found)
    except GraphError:
        raise TargetError(
            f'{target}: "{name}" is no graph; decorate the class with @Graph(id=...); its graphs: {_names(module)}'
        ) from None
    except TypeError as problem:
        raise TargetError(
            f'{target}: "{name}" cannot be made without arguments ({problem}); '
            f"make it in {module.__name__} (graph = {name}(...)) and name that"
        ) from problem


def _is_ours(value: Any) -> bool:
    return isinstance(value, GraphInstance) or (isinstance(value, type) and issubclass(value, GraphInstance))


def _hosted(value: Any, graph_id: str) -> HostedGraph | None:
    """A graph of LangGraph, or a function that may make one; None for anything else, or where LangGraph is not here."""
    makes = callable(value) and not isinstance(value, type)
    if "langgraph" not in sys.modules and not makes:
        return None
    try:
        hosting = importlib.import_module("duragraph_worker.hosting.graphs")
    except ModuleNotFoundError as problem:
        if problem.name is None or problem.name.partition(".")[0] not in ("langgraph", "langchain_core"):
            raise
        return None
    if not makes and not hosting.is_graph(value):
        return None
    made: HostedGraph = hosting.LangGraphGraph(graph_id, value)
    return made


def _all(module: ModuleType, target: str) -> list[AnyGraph]:
    graphs = _graphs(module)
    if not graphs:
        raise TargetError(f"{target}: there is no graph in it; decorate a class with @Graph(id=...)")
    return [_named(module, name, target) for name in graphs]


def _graphs(module: ModuleType) -> list[str]:
    """The names of the graphs declared in a module; imported ones belong to where they come from."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (_is_own_class(value, module) or isinstance(value, GraphInstance) or _is_compiled(value))
    ]


def _is_compiled(value: Any) -> bool:
    """Whether it is a compiled graph of LangGraph; nothing is imported to know it."""
    pregel = sys.modules.get("langgraph.pregel")
    return pregel is not None and isinstance(value, pregel.Pregel)


def _is_own_class(value: Any, module: ModuleType) -> bool:
    return isinstance(value, type) and issubclass(value, GraphInstance) and value.__module__ == module.__name__


def _names(module: ModuleType) -> str:
    return ", ".join(_graphs(module)) or "none"
