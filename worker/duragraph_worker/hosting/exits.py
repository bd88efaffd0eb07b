"""Keeps a node that calls `sys.exit()` from ending the worker: asyncio lets SystemExit out of a task and its loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any

from duragraph_worker.errors import NodeError


def keep_exits_inside() -> None:
    """From now on SystemExit fails the task of the running loop that it is raised in, as any other exception does."""
    loop = asyncio.get_running_loop()
    if loop.get_task_factory() is None:
        loop.set_task_factory(_task)


def _task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    return asyncio.Task(_Guarded(work), loop=loop, **options)


class _Guarded(Coroutine[Any, Any, Any]):
    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self._work = work

    def send(self, value: Any) -> Any:
        try:
            return self._work.send(value)
        except SystemExit as problem:
            raise NodeError(f"a node raised SystemExit({problem})") from problem

    def throw(self, *problem: Any) -> Any:
        try:
            return self._work.throw(*problem)
        except SystemExit as exit:
            raise NodeError(f"a node raised SystemExit({exit})") from exit

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._work.__await__()
