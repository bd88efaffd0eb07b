"""Reads a langgraph.json: its graphs, the folders they import from, the environment they expect, and its embedder."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from duragraph_worker.embedder import Embedder
from duragraph_worker.loading import TargetError, load_value


def read_config(path: str) -> list[tuple[str, str]]:
    """(graph id, target) for each graph; puts its dependencies on the import path and its `env` into the environment,
    where a variable is not set already. Raises `TargetError`."""
    file = Path(path).resolve()
    document = _read(file)
    folder = file.parent
    for dependency in document.get("dependencies") or ["."]:
        if isinstance(dependency, str) and dependency.startswith("."):
            place = str((folder / dependency).resolve())
            if place not in sys.path:
                sys.path.insert(0, place)
    for name, value in _environment(file, document.get("env")).items():
        os.environ.setdefault(name, value)
    graphs = document.get("graphs")
    if not isinstance(graphs, dict) or not graphs:
        raise TargetError(f'{file.name} has no "graphs"; write {{"graphs": {{"agent": "./agent.py:graph"}}}}')
    return [(name, _target(file, name, said)) for name, said in graphs.items()]


def read_embedder(path: str) -> Embedder | None:
    """The embedder of its `store.index`, if there is one; `read_config` goes before. Raises `TargetError`."""
    file = Path(path).resolve()
    store = _read(file).get("store")
    index = store.get("index") if isinstance(store, dict) else None
    if not index:
        return None
    said, dims, fields = ((index if isinstance(index, dict) else {}).get(name) for name in ("embed", "dims", "fields"))
    if not isinstance(said, str) or ":" not in said or type(dims) is not int:
        raise TargetError(f'{file.name}: write "store": {{"index": {{"embed": "./file.py:function", "dims": 384}}}}')
    if fields is not None and not (isinstance(fields, list) and all(isinstance(one, str) for one in fields)):
        raise TargetError(f'{file.name}: "fields" of the index must be a list of paths, such as ["title", "text"]')
    place = said.rpartition(":")[0]
    try:
        fn = load_value(f"{file.parent}/{said}") if place.endswith(".py") else _provided(file, said)
        return Embedder(fn, dims=dims, fields=fields or ["$"])
    except (TypeError, ValueError) as problem:
        raise TargetError(f"{file.name}: the index: {problem}") from problem


def _provided(file: Path, said: str) -> Any:
    try:
        from duragraph_worker.hosting.embeddings import provided

        return provided(said)
    except Exception as problem:  # a provider may want more than its package, such as a key
        raise TargetError(
            f'{file.name}: the embedder "{said}" cannot be made: {problem}; '
            'it takes langchain, and the package and the key of the provider; or name a function, "./file.py:embed"'
        ) from problem


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text())
    except OSError as problem:
        raise TargetError(f"{file}: {problem.strerror}; name a langgraph.json") from None
    except ValueError as problem:
        raise TargetError(f"{file} is not JSON: {problem}") from None
    if not isinstance(document, dict):
        raise TargetError(f'{file} must be an object: {{"graphs": {{"agent": "./agent.py:graph"}}}}')
    return document


def _environment(file: Path, said: Any) -> dict[str, str]:
    if isinstance(said, dict):
        return {str(name): str(value) for name, value in said.items()}
    if not isinstance(said, str):
        return {}
    place = file.parent / said
    if not place.is_file():
        raise TargetError(f'{file.name}: there is no env file "{said}"')
    try:
        from dotenv import dotenv_values
    except ModuleNotFoundError:
        raise TargetError(
            f'{file.name} names the env file "{said}", and python-dotenv is not installed; '
            'pip install "duragraph-worker[langgraph]"'
        ) from None
    return {name: value for name, value in dotenv_values(place).items() if value is not None}


def _target(file: Path, name: str, said: Any) -> str:
    place = said.get("path") if isinstance(said, dict) else said
    if not isinstance(place, str):
        raise TargetError(f'{file.name}: the graph "{name}" names no file; write "{name}": "./agent.py:graph"')
    module, colon, attribute = place.partition(":")
    if module.endswith(".py") or "/" in module:
        module = str((file.parent / module).resolve())
    return f"{module}{colon}{attribute}"
