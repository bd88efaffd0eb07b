"""Tells the control plane that this worker lives, from its own thread: code that blocks the loop cannot stop it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence

import httpx

from duragraph_worker.backoff import Backoff
from duragraph_worker.errors import DuraGraphError
from duragraph_worker.worker_client import WorkerClient

log = logging.getLogger("duragraph_worker")


class Heartbeat:
    """Beats every third of the lease.

    Both are called in the thread: `held` gives the tokens of the runs at work, `news` takes the tokens among them that
    are lost, and the worker's status ("active", or "draining" when an operator said so).
    """

    def __init__(
        self, client: WorkerClient, held: Callable[[], Sequence[int]], news: Callable[[Sequence[int], str], None]
    ) -> None:
        self._client = client
        self._held = held
        self._news = news
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="duragraph-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin; the first beat goes out at once."""
        self._thread.start()

    async def stop(self, timeout: float = 2.0) -> None:
        """End, after the beat under way: one that came late would make a worker that has left known again."""
        self._over.set()
        deadline = time.monotonic() + timeout
        while self._thread.is_alive() and time.monotonic() < deadline:  # noqa: ASYNC110 - an ending thread sets no event
            await asyncio.sleep(0.005)

    def _beat_on(self) -> None:
        backoff = Backoff(first=0.5)
        with self._client.blocking_http() as http:
            while not self._over.is_set():
                interval = self._client.heartbeat_seconds
                try:
                    answer = self._client.beat(http, self._held(), {})
                    self._news(answer.get("lost") or (), str(answer.get("status") or "active"))
                except (httpx.TransportError, DuraGraphError) as problem:
                    if not backoff.tries:
                        log.warning("heartbeat failed: %s", problem, extra={"worker_id": self._client.worker_id})
                    self._over.wait(min(interval, backoff.next(getattr(problem, "retry_after", None))))
                except Exception:
                    # This thread is all that keeps the worker's leases: it must outlive any answer.
                    log.exception("heartbeat broke", extra={"worker_id": self._client.worker_id})
                    self._over.wait(interval)
                else:
                    backoff.reset()
                    self._over.wait(interval)
