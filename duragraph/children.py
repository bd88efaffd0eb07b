"""The processes that `duragraph dev` runs: in sessions of their own, shown line by line, stopped to the last."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

Show = Callable[[str, str], None]

_KILL_PATIENCE = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1


class Stop:
    """What the user asks with Ctrl-C or SIGTERM: once to stop in order, twice to hurry."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurry = asyncio.Event()

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Inside, the signals only set the events."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._heard)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _heard(self) -> None:
        (self.hurry if self.asked.is_set() else self.asked).set()


class Child:
    """One process. `ended` is set when it has; then `code` is its exit code, negative for a signal."""

    def __init__(self, label: str, process: subprocess.Popen[bytes], show: Show) -> None:
        self.label = label
        self.ended = asyncio.Event()
        self._process = process
        self._show = show
        self._rest = b""
        assert process.stdout is not None, "it is started with a pipe"
        self._pipe = process.stdout
        os.set_blocking(self._pipe.fileno(), False)
        asyncio.get_running_loop().add_reader(self._pipe.fileno(), self._read)

    @property
    def code(self) -> int | None:
        """The exit code."""
        return self._process.returncode

    def look(self) -> None:
        """Notice that it has ended."""
        if self._process.poll() is not None and not self.ended.is_set():
            self._read()
            self._close_pipe()
            # What it started itself and left behind goes with it.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self.ended.set()

    async def stop(self, patience: float, hurry: asyncio.Event | None = None) -> None:
        """SIGTERM, then time to finish; a second SIGTERM in a hurry; SIGKILL at last. Returns when it has ended."""
        self._send(signal.SIGTERM)
        await first(self.ended, *([hurry] if hurry else []), timeout=patience)
        if not self.ended.is_set() and hurry is not None and hurry.is_set():
            self._send(signal.SIGTERM)
            await first(self.ended, timeout=_KILL_PATIENCE)
        if not self.ended.is_set():
            self._show(self.label, "does not stop: killed")
            self._send(signal.SIGKILL)
            await self.ended.wait()

    def _send(self, number: signal.Signals) -> None:
        if not self.ended.is_set():
            self._process.send_signal(number)

    def _read(self) -> None:
        while not self._pipe.closed:
            try:
                chunk = os.read(self._pipe.fileno(), 65536)
            except BlockingIOError:
                return
            if not chunk:
                self._close_pipe()
                return
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                self._show(self.label, line.decode(errors="replace").rstrip())

    def _close_pipe(self) -> None:
        if not self._pipe.closed:
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())
            self._pipe.close()
            if self._rest:
                self._show(self.label, self._rest.decode(errors="replace"))


class Children:
    """All of them, told when one ends."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._all: list[Child] = []
        self._die_with_us = _die_with_parent()

    @contextmanager
    def reaped(self) -> Iterator[Children]:
        """Inside, those that end are noticed."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._look)
        try:
            yield self
        finally:
            loop.remove_signal_handler(signal.SIGCHLD)

    def start(self, label: str, command: Sequence[str], environment: Mapping[str, str]) -> Child:
        """A process in a session of its own: Ctrl-C in the terminal does not reach it."""
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=self._die_with_us,
        )  # fmt: skip
        child = Child(label, process, self._show)
        self._all.append(child)
        child.look()  # it may have ended before SIGCHLD was ours to hear
        return child

    def _look(self) -> None:
        for child in self._all:
            child.look()
        self._all = [child for child in self._all if not child.ended.is_set()]


def _die_with_parent() -> Callable[[], None] | None:
    """Run in a child before its program: the kernel sends it SIGTERM when we die, even of SIGKILL. Linux only."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(0)

    return ask


async def first(*events: asyncio.Event, timeout: float | None = None) -> None:
    """Returns when one of the events is set, or after `timeout` seconds."""
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
