"""Tells the control plane that this worker lives, from its own thread: code that blocks the loop cannot stop it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from duragraph_worker.backoff import Backoff
from duragraph_worker.errors import DuraGraphError
from duragraph_worker.worker_client import WorkerClient

log = logging.getLogger("duragraph_worker")


class Heartbeat:
    """Beats every third of the lease; `lost` is called in the thread with tokens of runs that are no longer held.

    `held` is called in the thread too and gives the tokens of the runs at work.
    """

    def __init__(
        self, client: WorkerClient, held: Callable[[], Sequence[int]], lost: Callable[[Sequence[int]], None]
    ) -> None:
        self._client = client
        self._held = held
        self._lost = lost
        self._over = threading.Event()
        self._status = "active"
        self._thread = threading.Thread(target=self._beat_on, name="duragraph-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin; the first beat goes out at once."""
        self._thread.start()

    def stop(self) -> None:
        """End; a beat under way is not waited for."""
        self._over.set()

    def _beat_on(self) -> None:
        backoff = Backoff(first=0.5)
        with self._client.blocking_http() as http:
            while not self._over.is_set():
                interval = self._client.heartbeat_seconds
                try:
                    self._take(self._client.beat(http, self._held(), {}))
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

    def _take(self, answer: dict[str, Any]) -> None:
        if lost := answer.get("lost"):
            self._lost(lost)
        status = str(answer.get("status") or "active")
        if status != self._status:
            self._status = status
            log.info("worker is %s", status, extra={"worker_id": self._client.worker_id})
