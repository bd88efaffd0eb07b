"""What a local run gives back: its result, and its events while it runs."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from duragraph_worker.events import Event


@dataclass(frozen=True)
class RunResult:
    """What came of a local run.

    `status`: success, error, or interrupted (it waits: for answers to `interrupts`, or at a breakpoint, see `next`).
    `output` is the state. `error` is `{"error": type, "message": text}`. `tokens` counts `input_tokens`,
    `output_tokens` and `total_tokens`. `nodes_executed` are those run now, in the order they finished.
    """

    run_id: str
    status: str
    output: dict[str, Any]
    interrupts: tuple[dict[str, Any], ...] = ()
    error: dict[str, str] | None = None
    nodes_executed: tuple[str, ...] = ()
    tokens: dict[str, int] = field(default_factory=dict)
    duration_ms: float = 0.0
    thread_id: str = ""
    next: tuple[str, ...] = ()
    exception: BaseException | None = field(default=None, repr=False)

    def raise_for_error(self) -> RunResult:
        """The result itself, or the exception of the node that failed."""
        if self.exception is not None:
            raise self.exception
        return self


class EventStream:
    """The events of a run, for `for` and for `async for`; `result` is there when they are all given.

    The run begins when the first event is asked for, and is cancelled when an `async for` is left early.
    """

    def __init__(self, execute: Callable[[Callable[[Event], None]], Coroutine[Any, Any, RunResult]]) -> None:
        self._execute = execute
        self.result: RunResult | None = None

    async def __aiter__(self) -> AsyncIterator[Event]:
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        task = asyncio.create_task(self._execute(events.put_nowait))
        task.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                yield event
            self.result = await task
        finally:
            task.cancel()

    def __iter__(self) -> Iterator[Event]:
        events: queue.Queue[Event | None] = queue.Queue()
        failed: list[BaseException] = []

        def work() -> None:
            try:
                self.result = asyncio.run(self._execute(events.put))
            except BaseException as problem:  # raised where the events are read
                failed.append(problem)
            finally:
                events.put(None)

        thread = threading.Thread(target=work, name="duragraph-stream", daemon=True)
        thread.start()
        while (event := events.get()) is not None:
            yield event
        thread.join()
        if failed:
            raise failed[0]


class Runner(Protocol):
    """Runs a graph here: `local.LocalRunner`."""

    def run(self, input: Any = None, **options: Any) -> Awaitable[RunResult]:
        """Run to the end, a question or a breakpoint."""
        ...

    def stream(self, input: Any = None, *, stream_mode: str | Sequence[str] = "values", **options: Any) -> EventStream:
        """The events of a run."""
        ...

    def thread(self, thread_id: str | None = None) -> Any:
        """A thread in memory."""
        ...
