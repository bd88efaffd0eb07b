"""Waiting for what can be seen: a test never sleeps for a guessed time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_PAUSE = 0.005


def wait_for(probe: Callable[[], T | None], timeout: float = 10.0, *, what: str) -> T:
    """The probe's first true answer; fails after `timeout` seconds, naming what was awaited and the last answer."""
    deadline = time.monotonic() + timeout
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}; last seen: {answer!r}")
        threading.Event().wait(_PAUSE)


async def wait_for_async(probe: Callable[[], Awaitable[T | None]], timeout: float = 10.0, *, what: str) -> T:
    """As `wait_for`, for a probe that is awaited."""
    deadline = time.monotonic() + timeout
    while True:
        answer = await probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}; last seen: {answer!r}")
        await asyncio.sleep(_PAUSE)
