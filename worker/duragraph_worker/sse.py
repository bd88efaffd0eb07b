"""Server-sent events read from lines: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

# Milliseconds; more than eleven days are no time to come back after.
_RETRY = re.compile("[0-9]{1,9}")


@dataclass(frozen=True)
class StreamPart:
    """One frame of a run's stream: `event` (such as "values"), `data` (decoded JSON), `id` (None unless resumable)."""

    event: str
    data: Any
    id: str | None = None


class FrameParser:
    """Gives a `StreamPart` for each complete frame among the lines fed to it; comments are heartbeats and are dropped.

    An incomplete frame at the end of a cut stream is never given: the reconnect brings it again, whole.
    """

    def __init__(self) -> None:
        self.last_id: str | None = None
        self.retry_seconds: float | None = None
        self._event = ""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, line: str) -> StreamPart | None:
        """Take one line without its line end. Raises ValueError where a frame's data is not JSON."""
        if not line:
            return self._finish()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and _RETRY.fullmatch(value):
            self.retry_seconds = int(value) / 1000
        return None

    def _finish(self) -> StreamPart | None:
        event, data, frame_id = self._event, self._data, self._id
        self._event, self._data, self._id = "", [], None
        if frame_id is not None:
            self.last_id = frame_id
        if not data and not event:
            return None
        text = "\n".join(data)
        try:
            return StreamPart(event or "message", json.loads(text) if text else None, frame_id)
        except RecursionError:
            raise ValueError("a frame's data is nested too deeply to be read") from None


async def read_lines(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
    """Lines of a text stream, ended by LF, CR LF or CR; unlike str.splitlines not by U+2028 and its like."""
    open_line: list[str] = []
    after_cr = False
    async for chunk in chunks:
        if not chunk:
            continue
        text = chunk[1:] if after_cr and chunk[0] == "\n" else chunk
        after_cr = chunk[-1] == "\r"
        *lines, rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for line in lines:
            yield "".join([*open_line, line])
            open_line.clear()
        open_line.append(rest)
