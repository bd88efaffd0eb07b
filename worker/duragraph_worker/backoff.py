"""How long to wait before trying again: exponential, with jitter, and never sooner than the server asked for."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime


class Backoff:
    """Rising delays in seconds: `first`, doubled each time up to `limit`, each shortened at random by up to a half.

    The jitter keeps a fleet that lost the same server from coming back in step.
    """

    def __init__(self, first: float = 0.1, limit: float = 5.0) -> None:
        self._first = first
        self._limit = limit
        self._tries = 0

    @property
    def tries(self) -> int:
        """How many delays have been given since the last reset."""
        return self._tries

    def reset(self) -> None:
        """Start again from `first`: the other side has answered."""
        self._tries = 0

    def next(self, retry_after: float | None = None) -> float:
        """The next delay in seconds, and at least `retry_after` where the server said one."""
        ceiling = min(self._limit, self._first * 2.0 ** min(self._tries, 30))
        self._tries += 1
        delay = ceiling * (0.5 + random.random() / 2)  # noqa: S311 - spreads load, guards nothing
        return max(delay, retry_after or 0.0)


def retry_after(headers: Mapping[str, str], limit: float = 60.0) -> float | None:
    """Seconds from a Retry-After header, a number or an HTTP date (RFC 9110, 10.2.3); None where absent or unreadable.

    A delay over `limit` is cut to it, so that a wrong clock or header cannot silence a client for hours.
    """
    raw = headers.get("retry-after")
    if raw is None:
        return None
    try:
        seconds = float(raw)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(raw).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), limit) if seconds == seconds else None  # NaN is unequal to itself
