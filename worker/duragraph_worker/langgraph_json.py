"""Reads a langgraph.json: its graphs, the folders they import from, and the environment they expect."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from duragraph_worker.loading import TargetError


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
