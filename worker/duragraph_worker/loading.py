"""Finds the graphs that a target on the command line names: "module:Graph", "file.py:Graph", "module" or "file.py"."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from duragraph_worker.errors import DuraGraphError, GraphError
from duragraph_worker.graph import GraphInstance, instance_of


class TargetError(DuraGraphError):
    """A target names no graph; the message says why and what to write.

    Where the target's own code failed, that exception is the `__cause__`.
    """


def load_graphs(target: str) -> list[GraphInstance]:
    """The graph a target names, or all graphs of its module, in the order of declaration. Raises `TargetError`."""
    place, _, name = target.partition(":")
    module = _load_file(place, target) if place.endswith(".py") else _load_module(place, target)
    return [_named(module, name, target)] if name else _all(module, target)


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


def _named(module: ModuleType, name: str, target: str) -> GraphInstance:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise TargetError(f'{target}: {module.__name__} has no "{name}"; its graphs: {_names(module)}')
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


def _all(module: ModuleType, target: str) -> list[GraphInstance]:
    graphs = _graphs(module)
    if not graphs:
        raise TargetError(f"{target}: there is no graph in it; decorate a class with @Graph(id=...)")
    return [_named(module, name, target) for name in graphs]


def _graphs(module: ModuleType) -> list[str]:
    """The names of the graphs declared in a module; imported ones belong to where they come from."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and (_is_own_class(value, module) or isinstance(value, GraphInstance))
    ]


def _is_own_class(value: Any, module: ModuleType) -> bool:
    return isinstance(value, type) and issubclass(value, GraphInstance) and value.__module__ == module.__name__


def _names(module: ModuleType) -> str:
    return ", ".join(_graphs(module)) or "none"
