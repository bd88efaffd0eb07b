"""Watches the Python files in the folders of targets, leaving out what nobody edits."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing, suppress
from itertools import islice
from pathlib import Path

from duragraph.errors import DuragraphError

_GATHER_MS = 300
_MOST_FOLDERS = 2000
_NEVER = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist"})


def folder_of(place: str) -> Path:
    """The folder whose files belong to a target: the file's, or the package's."""
    if place.endswith(".py"):
        return Path(place).resolve().parent
    top = place.partition(".")[0]
    for found in (Path.cwd() / top, Path.cwd() / f"{top}.py"):
        if found.exists():
            return Path.cwd()
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(top)
        if spec is not None and spec.origin:
            return Path(spec.origin).resolve().parent
    return Path.cwd()


async def watch(roots: Iterable[Path]) -> AsyncIterator[set[Path]]:
    """The Python files that changed, some at a time. Raises `DuragraphError` without watchfiles."""
    try:
        from watchfiles import Change, PythonFilter, awatch
    except ImportError:
        raise DuragraphError(
            "changes are not noticed: watchfiles is not installed", hint='pip install "duragraph[dev]"'
        ) from None
    is_python = PythonFilter()

    def wanted(change: Change, path: str) -> bool:
        return is_python(change, path) or (change == Change.added and Path(path).is_dir())

    while True:
        # Folder by folder: the database writes without end into one that may lie among them.
        folders = list(islice(_folders(roots), _MOST_FOLDERS))
        async with aclosing(awatch(*folders, watch_filter=wanted, debounce=_GATHER_MS, recursive=False)) as watching:
            async for changes in watching:
                if files := {Path(path) for change, path in changes if is_python(change, path)}:
                    yield files
                if len(files) < len(changes):
                    break  # a new folder


def _folders(roots: Iterable[Path]) -> Iterator[Path]:
    """Each root and what is below, without hidden folders, environments and the like."""
    for root in sorted(set(roots)):
        for place, names, _ in os.walk(root):
            names[:] = [name for name in sorted(names) if _is_edited(Path(place, name))]
            yield Path(place)


def _is_edited(folder: Path) -> bool:
    return not folder.name.startswith(".") and folder.name not in _NEVER and not (folder / "pyvenv.cfg").exists()
