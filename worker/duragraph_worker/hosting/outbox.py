"""What a hosted run writes, in order: a checkpoint goes out when both its content and what runs next are known."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from duragraph_worker.journal import CheckpointItem, Journal, Write, join_writes

Key = tuple[str, str]
"""(namespace, id) of a checkpoint."""


@dataclass
class Info:
    """What is known of a checkpoint only when its tasks are prepared."""

    values: Any
    next: list[str]
    tasks: list[dict[str, Any]]


class _Slot:
    """A place in the order. Until it has a Write, nothing behind it goes out."""

    def __init__(self, key: Key | None, write: Write | None = None) -> None:
        self.key = key
        self.write = write
        self.content: CheckpointItem | None = None
        self.held: frozenset[str] = frozenset()
        self.info: Info | None = None
        self.behind = Write()  # events that show the checkpoint


class Outbox:
    """The way from a hosted graph to the run's journal. To be used from one event loop.

    `add` puts a Write at the end. A checkpoint has two halves: `content` comes from the saver, `info` from the stream;
    whichever comes first holds the place. With `at_once` only events go out as they come; all else waits for `flushed`
    and goes in one Write, at best the last, so that no crash leaves a part of it. Errors of the journal are raised by
    `check` and `flushed`.
    """

    def __init__(self, journal: Journal, at_once: bool = False) -> None:
        self._journal = journal
        self._at_once = at_once
        self._kept: list[Write] = []
        self._slots: deque[_Slot] = deque()
        self._open: dict[Key, _Slot] = {}
        self._known: dict[str, tuple[Key, Info]] = {}
        self._shown: dict[str, tuple[str, frozenset[str]]] = {}
        self._pump: asyncio.Task[None] | None = None
        self._problem: BaseException | None = None
        self.head: str | None = None
        """The newest checkpoint of the run's own graph that was put here."""

    def add(self, write: Write) -> None:
        """A Write behind all that was added before."""
        self._slots.append(_Slot(None, write))
        self._go()

    def content(self, key: Key, item: CheckpointItem, held: frozenset[str]) -> None:
        """The first half: the checkpoint as the graph saved it; `held` names the channels that have content."""
        self._settle_older(key)
        slot = self._slot(key)
        slot.content, slot.held = item, held
        known = self._known.pop(key[0], None)
        if known is not None and known[0] == key:
            slot.info = known[1]
        if not key[0]:
            self.head = key[1]
        self._compose(slot)

    def info(self, key: Key, info: Info, behind: Write | None = None) -> None:
        """The other half: the values and the tasks; `behind` goes out with it."""
        slot = self._slot(key)
        slot.info = info
        slot.behind = behind or Write()
        self._compose(slot)

    def know(self, key: Key, info: Info) -> None:
        """The other half of a checkpoint that may never be saved: it holds no place."""
        self._known[key[0]] = (key, info)

    def finish(self) -> None:
        """No more halves come: what is there goes out as it is."""
        for slot in list(self._open.values()):
            self._close(slot)
        self._go()

    def check(self) -> None:
        """Raise what the journal raised."""
        if self._problem is not None:
            raise self._problem

    async def flushed(self, last: Write | None = None) -> None:
        """Return when all that can go out is stored, and `last` behind it."""
        while self._pump is not None:
            await asyncio.shield(self._pump)
        self.check()
        kept, self._kept = self._kept, []
        await self._journal.commit(join_writes([*kept, last or Write()]))

    def close(self) -> None:
        """Stop sending."""
        if self._pump is not None:
            self._pump.cancel()

    def _slot(self, key: Key) -> _Slot:
        slot = self._open.get(key)
        if slot is None:
            slot = self._open[key] = _Slot(key)
            self._slots.append(slot)
        return slot

    def _settle_older(self, key: Key) -> None:
        """A graph's next checkpoint: the one before it gets no other half any more."""
        for other in [slot for slot in self._open.values() if slot.key and slot.key[0] == key[0] and slot.key != key]:
            self._close(other)

    def _close(self, slot: _Slot) -> None:
        assert slot.key is not None
        self._open.pop(slot.key, None)
        if slot.content is not None and slot.info is not None:
            self._show_defaults(slot.content, slot.info, slot.held)
        slot.write = _composed(slot)

    def _show_defaults(self, item: CheckpointItem, info: Info, held: frozenset[str]) -> None:
        """A channel without content may have a value all the same. One that nothing was written to, as an empty list,
        is shown once; one that is kept as what was written to it is shown whenever it changes."""
        if not isinstance(info.values, dict):
            return
        at, known = self._shown.get(item["checkpoint_ns"], ("", frozenset()))
        earlier = known if at == item["parent_checkpoint_id"] else frozenset()
        defaults = [name for name in info.values if name not in held]
        for name in defaults:
            if name not in earlier or name in item["channels"]:
                item["channels"][name] = {**item["channels"].get(name, {}), "set": info.values[name]}
        self._shown[item["checkpoint_ns"]] = (item["checkpoint_id"], frozenset(defaults))

    def _compose(self, slot: _Slot) -> None:
        if slot.content is not None and slot.info is not None:
            self._close(slot)
            self._go()

    def _go(self) -> None:
        if self._pump is None and self._slots and self._slots[0].write is not None:
            self._pump = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        try:
            while writes := self._ready():
                joined = join_writes(writes)
                await self._journal.write(joined, flush=bool(joined.get("checkpoints")))
        except asyncio.CancelledError:
            raise
        except BaseException as problem:  # raised by the next check
            self._problem = problem
        finally:
            self._pump = None

    def _ready(self) -> list[Write]:
        ready: list[Write] = []
        while self._slots and (write := self._slots[0].write) is not None:
            self._slots.popleft()
            ready.append(self._let_through(write) if self._at_once else write)
        return [write for write in ready if write]

    def _let_through(self, write: Write) -> Write:
        """The events of a Write, unless they show a checkpoint that is kept, or come behind such."""
        events = write.get("events", [])
        if any("checkpoint_id" in event for event in events) or any("events" in kept for kept in self._kept):
            self._kept.append(write)
            return Write()
        write.pop("events", None)
        if write:
            self._kept.append(write)
        return Write(events=events) if events else Write()


def _composed(slot: _Slot) -> Write:
    item, info = slot.content, slot.info
    if item is None:  # it was never saved: what would show it carries the values itself
        for event in slot.behind.get("events", ()):
            if event.pop("checkpoint_id", None) is not None and info is not None:
                event["data"] = info.values
        return slot.behind
    if info is not None:
        item["next"] = info.next
        item["tasks"] = info.tasks  # type: ignore[typeddict-item]  # made by running
    write = Write(checkpoints=[item])
    if not item["checkpoint_ns"]:
        write["checkpoint_id"] = item["checkpoint_id"]
    return join_writes([write, slot.behind])
