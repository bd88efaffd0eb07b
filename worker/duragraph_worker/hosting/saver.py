"""The checkpointer of a hosted run: what the graph saves goes out in the run's own Writes, fenced like all of them.

Content is stored once: a channel that did not change is shared with the checkpoint before, and of a list that only grew
only what was added is sent. What was saved comes back byte for byte; the control plane never looks into it.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    copy_checkpoint,
    get_checkpoint_id,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from duragraph_worker.errors import DuraGraphError
from duragraph_worker.hosting.outbox import Key
from duragraph_worker.hosting.rendering import jsonable
from duragraph_worker.journal import CheckpointItem, WriteItem

if TYPE_CHECKING:
    from duragraph_worker.hosting.running import HostedRun

Saved = Any
"""What was serialised, as JSON: a text "<type>:<base64>", or for a list one text an item."""

INTERRUPT, RESUME = "__interrupt__", "__resume__"
NOBODY = "00000000-0000-0000-0000-000000000000"
"""The task in whose name LangGraph writes what comes from outside."""
_HIDDEN = "__hidden:"
_ROOT = "__root__"
_OWN = ("__", "branch:to:", "join:")
"""How the names of the library's own channels begin: they are kept and not shown."""


@dataclass
class _Point:
    """A checkpoint as this run knows it."""

    checkpoint: Checkpoint
    metadata: CheckpointMetadata
    parent: str | None
    lists: dict[str, list[str]] = field(default_factory=dict)
    """The saved items of its list channels: what a next checkpoint is compared with."""
    writes: dict[tuple[str, int], tuple[str, str, Any]] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)


class RunSaver(BaseCheckpointSaver[int]):
    """Made for one run, on the event loop it runs on. Writes return as soon as they are queued in the run's order;
    reading what this run did not save itself asks the control plane."""

    def __init__(self, run: HostedRun, serde: SerializerProtocol) -> None:
        super().__init__(serde=serde)
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._latest: dict[str, _Point] = {}
        self._used: list[Any] = []
        self._versions: dict[tuple[str, str], ChannelVersions] = {}
        """The versions of the checkpoints that were read."""
        self.read: set[Key] = set()
        """The checkpoints that were stored before and are known here."""
        if saved := (run.claim.get("checkpoint") or {}).get("saved"):
            self._keep("", self._point(saved))

    # what LangGraph calls

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the config names, or the newest of its namespace."""
        ns, wanted = _place(config)
        point = self._latest.get(ns)
        if point is not None and wanted in (None, point.checkpoint["id"]):
            return self._tuple(ns, point)
        if wanted is None and ((not ns and self._run.starts_empty) or self._run.is_new(ns)):
            return None
        found = await self._read({"checkpoint_ns": ns, "checkpoint_id": wanted})
        if not found:
            return None
        point = self._point(found[0])
        if wanted is None:
            self._keep(ns, point)
        return self._tuple(ns, point)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints of the thread, newest first."""
        ns, wanted = _place(config or {"configurable": {}})
        asked: dict[str, Any] = {"checkpoint_ns": ns, "checkpoint_id": wanted, "filter": filter or None}
        asked["before"] = get_checkpoint_id(before) if before else None
        left = limit
        while left is None or left > 0:
            page = min(100, left) if left is not None else 100
            found = await self._read({**asked, "limit": page})
            for one in found:
                yield self._tuple(ns, self._point(one))
            if len(found) < page or wanted:
                return
            asked["before"] = found[-1]["checkpoint_id"]
            left = left - len(found) if left is not None else None

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Queue a checkpoint; it is stored with the run's next Write."""
        return self._put(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Queue what a task wrote."""
        self._put_writes(config, writes, task_id, task_path)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `aget_tuple`, from a thread of the graph's."""
        return cast(CheckpointTuple | None, self._wait(self.aget_tuple(config)))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """As `alist`, from a thread of the graph's."""

        async def collected() -> Sequence[CheckpointTuple]:
            return [one async for one in self.alist(config, filter=filter, before=before, limit=limit)]

        yield from self._wait(collected())

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `aput`, from a thread of the graph's."""
        return cast(RunnableConfig, self._wait(self.aput(config, checkpoint, metadata, new_versions)))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As `aput_writes`, from a thread of the graph's."""
        self._wait(self.aput_writes(config, writes, task_id, task_path))

    def get_next_version(self, current: int | None, channel: None) -> int:
        """Versions are counted: content is found by its checkpoint, so they need not be unique over forks."""
        return 1 if current is None else current + 1

    # storing

    def _put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        ns, parent = _place(config)
        known = self._latest.get(ns)
        base = known if known is not None and known.checkpoint["id"] == parent else None
        point = _Point(copy_checkpoint(checkpoint), get_checkpoint_metadata(config, metadata), parent)
        if base is not None:
            point.lists = {name: items for name, items in base.lists.items() if name not in new_versions}
        channels = {}
        for name in self._changed(ns, parent, checkpoint, new_versions):
            if name in self._run.untracked and name not in checkpoint["channel_values"]:
                continue
            channels[self._stored(ns, name)] = self._change(point, base, name)
        rest = {key: value for key, value in checkpoint.items() if key not in ("channel_values", "id", "pending_sends")}
        kept = dict(cast(Mapping[str, Any], point.metadata))
        item = CheckpointItem(
            checkpoint_id=checkpoint["id"],
            parent_checkpoint_id=parent,
            checkpoint_ns=ns,
            step=kept.pop("step", -1),
            source=kept.pop("source", "loop"),
            channels=channels,
            next=[],
            tasks=[],
            metadata=jsonable(kept),
            saved=rest,
        )
        if not ns:
            self._latest = {at: other for at, other in self._latest.items() if ":" not in at}
        self._keep(ns, point)
        self._run.saved((ns, checkpoint["id"]), item, self._run.untracked | checkpoint["channel_values"].keys())
        return {"configurable": {**config["configurable"], "checkpoint_ns": ns, "checkpoint_id": checkpoint["id"]}}

    def _changed(self, ns: str, parent: str | None, checkpoint: Checkpoint, new: ChannelVersions) -> Sequence[str]:
        """The channels that are not shared with the parent: the new ones, and in a copy, which stands beside what it
        copies and has nothing new, all that differ."""
        known = self._latest.get(ns)
        if parent is not None and known is not None and known.checkpoint["id"] == parent:
            there: Mapping[str, Any] | None = known.checkpoint["channel_versions"]
        else:
            there = self._versions.get((ns, parent or ""))
        versions = checkpoint["channel_versions"]
        if parent is None or there is None:
            return [*new, *(name for name in checkpoint["channel_values"] if name not in new)]
        return [*new, *(name for name in versions if name not in new and versions[name] != there.get(name))]

    def _change(self, point: _Point, base: _Point | None, name: str) -> dict[str, Any]:
        """What a checkpoint writes into a channel: {"set", "saved"}, or {"append", "saved"} where a list only grew."""
        values = point.checkpoint["channel_values"]
        if name not in values:
            return {"set": None, "saved": None}
        value = values[name]
        held = value.value if isinstance(value, _DeltaSnapshot) else value
        shown = None if _is_own(name) and name != self._run.single else jsonable(held)
        if type(value) is not list:
            return {"set": shown, "saved": self._dumped(value)}
        saved = point.lists[name] = [self._dumped(item) for item in value]
        before = base.lists.get(name) if base is not None else None
        if before and len(before) < len(saved) and saved[: len(before)] == before:
            added = shown[len(before) :] if shown is not None else []
            return {"append": added, "saved": saved[len(before) :]}
        return {"set": shown if shown is not None else [], "saved": saved}

    def _put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> None:
        ns, checkpoint_id = _place(config)
        assert checkpoint_id is not None
        point = self._latest.get(ns)
        known = point.writes if point is not None and point.checkpoint["id"] == checkpoint_id else {}
        before = [known.get((task_id, WRITES_IDX_MAP[name]), ("", "", ()))[2] for name in (RESUME, INTERRUPT)]
        items: list[WriteItem] = [*self._taken(task_id, writes)]
        for place, (channel, value) in enumerate(writes):
            if task_id == NOBODY and channel == RESUME and value in self._used:
                value = None  # saved at the run's exit, behind the task that used it
            idx = WRITES_IDX_MAP.get(channel, place)
            if point is not None and point.checkpoint["id"] == checkpoint_id:
                if idx >= 0 and (task_id, idx) in point.writes:
                    continue
                point.writes[task_id, idx] = (task_id, channel, value)
                point.paths[task_id] = task_path
            items.append(
                WriteItem(
                    checkpoint_id=checkpoint_id,
                    checkpoint_ns=ns,
                    task_id=task_id,
                    task_path=task_path,
                    idx=idx,
                    channel=channel,
                    saved=self._dumped(value),
                )
            )
        if items:
            self._run.task_wrote((ns, checkpoint_id), task_id, writes, items, *before)

    def _taken(self, task_id: str, writes: Sequence[tuple[str, Any]]) -> Sequence[WriteItem]:
        """Takes the run's one answer away in the same Write as the task that used it: LangGraph does so in memory only,
        and the next question, in another attempt, would be given it too."""
        head = self._latest.get("")
        place = (NOBODY, WRITES_IDX_MAP[RESUME])
        used = next((value for channel, value in writes if channel == RESUME), None)
        if task_id == NOBODY or not used:
            return []
        self._used.append(used[-1])
        if head is None or place not in head.writes:
            return []
        _, _, answer = head.writes[place]
        if answer is None or answer != used[-1]:
            return []
        head.writes[place] = (NOBODY, RESUME, None)
        return [
            WriteItem(
                checkpoint_id=head.checkpoint["id"],
                checkpoint_ns="",
                task_id=NOBODY,
                task_path="",
                idx=place[1],
                channel=RESUME,
                saved=self._dumped(None),
            )
        ]

    def _keep(self, ns: str, point: _Point) -> None:
        self._latest[ns] = point

    # reading

    async def _read(self, asked: dict[str, Any]) -> Sequence[dict[str, Any]]:
        await self._run.outbox.flushed()
        asked = {name: value for name, value in asked.items() if value is not None}
        return (await self._run.read_checkpoints([asked]))[0]

    def _point(self, document: Mapping[str, Any]) -> _Point:
        """A checkpoint as duragraph.saved_checkpoint() gives it."""
        self.read.add((document["checkpoint_ns"], document["checkpoint_id"]))
        saved = document["saved"]
        self._versions[document["checkpoint_ns"], document["checkpoint_id"]] = saved["channel_versions"]
        values: dict[str, Any] = {}
        lists: dict[str, list[str]] = {}
        for stored, what in document["channels"].items():
            name = self._loaded(document["checkpoint_ns"], stored)
            if what is None or name not in saved["channel_versions"]:
                continue
            if isinstance(what, list):
                lists[name] = what
                values[name] = [self._restored(item) for item in what]
            else:
                values[name] = self._restored(what)
        checkpoint = cast(Checkpoint, {**saved, "id": document["checkpoint_id"], "channel_values": values})
        metadata = {"source": document["source"], "step": document["step"], **document["metadata"]}
        point = _Point(checkpoint, cast(CheckpointMetadata, metadata), document["parent_checkpoint_id"], lists)
        for task_id, path, idx, channel, what, _ in document["writes"]:
            point.writes[task_id, idx] = (task_id, channel, self._restored(what))
            point.paths[task_id] = path
        return point

    def _tuple(self, ns: str, point: _Point) -> CheckpointTuple:
        def config(checkpoint_id: str) -> RunnableConfig:
            return {
                "configurable": {
                    "thread_id": self._run.thread_id,
                    "checkpoint_ns": ns,
                    "checkpoint_id": checkpoint_id,
                }
            }

        written = sorted(point.writes.items(), key=lambda one: (point.paths.get(one[0][0], ""), one[0]))
        return CheckpointTuple(
            config(point.checkpoint["id"]),
            copy_checkpoint(point.checkpoint),
            point.metadata,
            config(point.parent) if point.parent else None,
            [write for _, write in written],
        )

    def _wait(self, work: Any) -> Any:
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            work.close()
            raise DuraGraphError(
                "an async node called a graph's sync method (invoke, get_state, ...), which would stop the worker: "
                "await its async one (ainvoke, aget_state, ...)"
            )
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # names and bytes

    def _stored(self, ns: str, channel: str) -> str:
        if not ns and channel == self._run.single:
            return _ROOT
        return _HIDDEN + channel if _is_own(channel) else channel

    def _loaded(self, ns: str, stored: str) -> str:
        if not ns and stored == _ROOT and self._run.single:
            return self._run.single
        return stored.removeprefix(_HIDDEN)

    def _dumped(self, value: Any) -> str:
        kind, raw = self.serde.dumps_typed(value)
        return f"{kind}:{base64.b64encode(raw).decode()}"

    def _restored(self, saved: str) -> Any:
        kind, _, raw = saved.partition(":")
        return self.serde.loads_typed((kind, base64.b64decode(raw)))


def _is_own(channel: str) -> bool:
    return channel.startswith(_OWN)


def _place(config: RunnableConfig) -> tuple[str, str | None]:
    configurable = config.get("configurable") or {}
    return configurable.get("checkpoint_ns") or "", configurable.get("checkpoint_id") or None
