"""One claimed run of a hosted graph: LangGraph drives it, and everything it does goes through the run's journal."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast

from langgraph.channels import UntrackedValue
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.pregel import Pregel
from langgraph.types import Command, Interrupt, Send, StateUpdate

from duragraph_worker.errors import LeaseLost
from duragraph_worker.executor import Outcome
from duragraph_worker.hosted import HostedJournal
from duragraph_worker.hosting.frames import Frames
from duragraph_worker.hosting.outbox import Info, Key, Outbox
from duragraph_worker.hosting.rendering import jsonable, told
from duragraph_worker.hosting.saver import INTERRUPT, NOBODY, RESUME, RunSaver
from duragraph_worker.hosting.store import RunStore
from duragraph_worker.journal import (
    AnswerItem,
    CheckpointItem,
    Claim,
    EndItem,
    EventItem,
    InterruptItem,
    StepItem,
    Write,
    WriteItem,
    run_config,
)

_RETURN = "__return__"
_CONTROL = frozenset({INTERRUPT, RESUME, "__error__", "__error_source_node__", "__scheduled__"})
_START = "__start__"
_ANSWER_ID = re.compile(r"[0-9a-f]{32}").fullmatch


class HostedRun:
    """What the saver and the driver of one run share. To be made on the loop it runs on."""

    def __init__(self, graph: Pregel[Any, Any], claim: Claim, journal: HostedJournal) -> None:
        self.claim = claim
        self.kwargs: dict[str, Any] = claim.get("kwargs") or {}
        self.thread_id = claim["thread_id"]
        self._exit = self.kwargs.get("durability") == "exit"
        self.outbox = Outbox(journal, at_once=self._exit or "state_update" in self.kwargs)
        self.read_checkpoints = journal.read_checkpoints
        self.starts_empty = not (claim.get("checkpoint") or {}).get("saved")
        shown = graph.stream_channels_asis
        self.single = shown if isinstance(shown, str) else None
        """The one channel that is the whole state, where the state is no object."""
        self.untracked = _untracked(graph)
        """Channels that are never kept: what they hold is in no checkpoint, and so not in what is shown of one."""
        self._journal = journal
        self._fresh: set[str] = set()
        self._names: dict[str, str] = {}
        self._unnamed: dict[str, tuple[Key, Sequence[tuple[str, Any]]]] = {}
        """Tasks that finished before the stream told their names."""
        self._began: dict[str, float] = {}
        self._done = {item["task_id"] for item in claim.get("journal") or () if not item["key"]}
        self._nodes: list[str] = []
        self._values: Any = None
        self._next: list[str] = []
        self._asked: list[Any] = []
        for task in (claim.get("checkpoint") or {}).get("tasks") or ():
            self._names[task["id"]] = task["name"]
        self._frames = Frames(
            self.kwargs.get("stream_mode") or ["values"], subgraphs=bool(self.kwargs.get("subgraphs"))
        )
        serde = JsonPlusSerializer(pickle_fallback=False, allowed_msgpack_modules=_known_types(graph))
        self._saver = RunSaver(self, serde)
        self._graph = graph.copy({"checkpointer": self._saver, "store": RunStore(journal.store)})
        self._held: Any = None  # values that were streamed last, perhaps just what the next checkpoint holds

    # what the saver tells

    def is_new(self, ns: str) -> bool:
        """Whether nothing can have been saved in a namespace before: it belongs to a task that this run made."""
        return any(part.split(":")[1] in self._fresh for part in ns.split("|") if ":" in part)

    def saved(self, key: Key, item: CheckpointItem, held: frozenset[str]) -> None:
        """The graph saved a checkpoint; `held` names the channels that have content in it."""
        self.outbox.content(key, item, held)

    def task_wrote(
        self,
        key: Key,
        task_id: str,
        writes: Sequence[tuple[str, Any]],
        items: list[WriteItem],
        answered: Sequence[Any] = (),
        asked: Any = (),
    ) -> None:
        """A task of the checkpoint `key` finished, asked or failed; what it was answered and what it asked before."""
        write = Write(writes=items)
        if task_id == NOBODY:
            self.outbox.add(write)
            return
        answers = next((value for channel, value in writes if channel == RESUME), answered)
        if answers is not answered:
            write["answers"] = [
                AnswerItem(checkpoint_id=key[1], task_id=task_id, ordinal=n, answer=jsonable(answer))
                for n, answer in enumerate(answers)
            ]
        asking = [_each(value) for channel, value in writes if channel == INTERRUPT]
        finished = any(channel not in _CONTROL for channel, _ in writes)
        if asking or finished:
            now = [*answers, *(asking[-1] if asking else ())]
            write["interrupts"] = [self._question(key, task_id, now[n], n) for n in range(len(answers), len(now))]
            # A task that holds a subgraph asks what is open in it, and is not told of the answers.
            before = [*answered, *_each(asked)]
            write["interrupts"] += [
                self._question(key, task_id, before[n], n) | InterruptItem(answered=True)
                for n in range(len(now), len(before))
            ]
        if finished and task_id not in self._done:
            self._done.add(task_id)
            name = self._names.get(task_id)
            if name is None:
                self._unnamed[task_id] = (key, writes)
            elif name != _START:
                self._nodes.append(name)
                write["steps"] = [self._step(key, task_id, name, writes)]
        self.outbox.add(write)

    def _question(self, key: Key, task_id: str, asked: Any, ordinal: int) -> InterruptItem:
        value, asked_id = (asked.value, asked.id) if isinstance(asked, Interrupt) else (asked, task_id)
        item = InterruptItem(
            checkpoint_id=key[1],
            task_id=task_id,
            ordinal=ordinal,
            interrupt_id=asked_id,
            node=self._names.get(task_id, ""),
            checkpoint_ns=key[0],
            value=jsonable(value),
        )
        schema = getattr(asked, "response_schema", None)
        if isinstance(schema, dict):
            item["response_schema"] = jsonable(schema)
        return item

    def _step(self, key: Key, task_id: str, name: str, writes: Sequence[tuple[str, Any]]) -> StepItem:
        result: Any = {}
        for channel, value in writes:
            if channel == "__root__":  # the whole state, which is no object
                result = jsonable(value)
            elif channel == _RETURN or not channel.startswith(("__", "branch:to:", "join:")):
                result[channel] = jsonable(value)
        began = self._began.get(task_id)
        return StepItem(
            checkpoint_id=key[1],
            task_id=task_id,
            key="",
            kind="node",
            name=name,
            attempt=self.claim.get("attempt", 1),
            duration_ms=round((time.perf_counter() - began) * 1000, 3) if began is not None else 0,
            result=result,
            details=None,
        )

    # running

    async def run(self) -> Outcome:
        """Run to the end, a question or a breakpoint, and write that. Raises LeaseLost, CancelledError, and what the
        journal raised; a node's exception ends the run."""
        try:
            if "state_update" in self.kwargs:
                return await self._update_state()
            if not await self._stands_at_a_breakpoint():
                async for ns, mode, payload in self._stream():
                    await self._take(ns, mode, payload)
            self.outbox.finish()
            self.outbox.check()
            return await self._end()
        except LeaseLost:
            raise
        except Exception as problem:
            self.outbox.finish()
            self.outbox.check()
            return await self._fail(problem)
        finally:
            self.outbox.close()

    async def _stands_at_a_breakpoint(self) -> bool:
        """Whether an attempt before this one stopped there and died before it said so. LangGraph would go on: to be
        called without an input is how one passes a breakpoint."""
        before = self.kwargs.get("interrupt_before") or self._graph.interrupt_before_nodes
        after = self.kwargs.get("interrupt_after") or self._graph.interrupt_after_nodes
        if not self.claim.get("resumed") or not (before or after):
            return False
        state = await self._graph.aget_state(self._config())
        stops = _among([task.name for task in state.tasks if task.id not in self._done], before)
        if not stops and after and state.parent_config and (state.metadata or {}).get("source") == "loop":
            done = await self._graph.aget_state(state.parent_config)
            stops = bool(state.next) and _among([task.name for task in done.tasks], after)
        if stops:
            self._next = list(state.next)
            self._values = state.values
        return stops

    async def _stream(self) -> AsyncIterator[tuple[tuple[str, ...], str, Any]]:
        options: Any = {
            "context": self.kwargs.get("context") or None,
            "stream_mode": self._frames.asked_of_graph,
            "subgraphs": True,
            "interrupt_before": self.kwargs.get("interrupt_before"),
            "interrupt_after": self.kwargs.get("interrupt_after"),
            # Of sync and async the first is kept by waiting below, where the next step is asked for.
            "durability": "exit" if self._exit else "async",
        }
        config = self._config()
        if "events" not in self._frames.modes:
            async for frame in self._graph.astream(self._input(), config, **options):
                yield cast(Any, frame)
            return
        root = None
        async for event in self._graph.astream_events(self._input(), config, version="v2", **options):
            root = root or event["run_id"]
            if event["event"] == "on_chain_stream" and event["run_id"] == root:
                chunk = event["data"]["chunk"]
                if isinstance(chunk, tuple) and len(chunk) == 3:
                    yield chunk
                    continue
            self._emit(self._frames.event(event))

    async def _take(self, ns: tuple[str, ...], mode: str, payload: Any) -> None:
        self.outbox.check()
        held = self._held
        self._held = None
        if mode == "checkpoints":
            self._checkpoint(ns, payload, held)
            held = None
        if held is not None:
            self._emit(self._frames.of((), "values", held))
        if mode == "tasks":
            self._task(payload)
        if mode == "values" and not ns:
            self._note(payload)
            if not self._exit and not self._asked:
                self._held = payload
                return
        self._emit(self._frames.of(ns, mode, payload))
        if mode == "checkpoints" and not ns and self.kwargs.get("durability") == "sync":
            await self.outbox.flushed()

    def _note(self, payload: Any) -> None:
        """What the run gives out if it ends here. Of several questions each comes with values of its own, and behind
        them may come the values without any."""
        asked = list(payload.get(INTERRUPT) or ()) if isinstance(payload, dict) else []
        known = {one.id for one in self._asked}
        self._asked += [one for one in asked if one.id not in known]
        if asked or not self._asked:
            self._values = payload

    def _checkpoint(self, ns: tuple[str, ...], payload: Any, held: Any) -> None:
        """A checkpoint's other half, and the values that were streamed just before it: by reference where they are the
        same, so that they are stored once."""
        key = ("|".join(ns), payload["config"]["configurable"]["checkpoint_id"])
        same = held is not None and not ns and held == payload["values"] and "values" in self._frames.modes
        same = same and not (self.untracked and self.untracked & held.keys())
        behind = Write()
        if held is not None:
            events = [EventItem(event="values", checkpoint_id=key[1])] if same else self._frames.of((), "values", held)
            if events:
                behind["events"] = events
        for task in payload["tasks"]:
            self._name(task["id"], task["name"])
        if not ns:
            self._next = list(payload["next"])
            self._asked = []
        if self._exit or key in self._saver.read:
            if same:
                behind["events"] = self._frames.of((), "values", held)
            if behind:
                self.outbox.add(behind)
            if self._exit:
                self.outbox.know(key, _info(payload))
            return
        self._fresh.update(task["id"] for task in payload["tasks"])
        self.outbox.info(key, _info(payload), behind)

    def _task(self, payload: Any) -> None:
        self._name(payload["id"], payload["name"])
        if "input" in payload:
            self._began[payload["id"]] = time.perf_counter()

    def _name(self, task_id: str, name: str) -> None:
        self._names[task_id] = name
        finished = self._unnamed.pop(task_id, None)
        if finished is not None and name != _START:
            self._nodes.append(name)
            self.outbox.add(Write(steps=[self._step(finished[0], task_id, name, finished[1])]))

    def _emit(self, events: list[EventItem]) -> None:
        if events:
            self.outbox.add(Write(events=events))

    def _input(self) -> Any:
        """What the graph is given: nothing when an attempt before this one has begun already."""
        command = self.kwargs.get("command")
        if self.claim.get("resumed"):
            return None
        if not command:
            return self.kwargs.get("input")
        if self._command_is_stored():
            # What it says is among the writes that are loaded with the checkpoint; answers by id are never stored.
            by_id = isinstance(command.get("resume"), dict) and all(map(_ANSWER_ID, command["resume"]))
            command = {"resume": command["resume"]} if by_id else {}
        given: dict[str, Any] = {}
        if command.get("resume") is not None:
            given["resume"] = command["resume"]
        if command.get("update") is not None:
            update = command["update"]
            given["update"] = [tuple(pair) for pair in update] if isinstance(update, list) else update
        if command.get("goto"):
            goto = command["goto"] if isinstance(command["goto"], list) else [command["goto"]]
            given["goto"] = [Send(one["node"], one.get("input")) if isinstance(one, dict) else one for one in goto]
        return Command(**given) if given else None

    def _command_is_stored(self) -> bool:
        saved = (self.claim.get("checkpoint") or {}).get("saved") or {}
        return any(write[0] == NOBODY and write[5] == self.claim["run_id"] for write in saved.get("writes") or ())

    def _config(self) -> Any:
        config = run_config(self.claim)
        configurable = {"checkpoint_ns": "", **config["configurable"]}
        if self.kwargs.get("checkpoint_id") and not self.claim.get("resumed"):
            configurable["checkpoint_id"] = self.kwargs["checkpoint_id"]
        return {**config, "configurable": configurable}

    # the end

    async def _end(self) -> Outcome:
        end = EndItem(status="success")
        if self.claim.get("temporary") or self.outbox.head is None or not self._shows_all:
            end["output"] = self._shown()
        return await self._last(end, Write(), Outcome("success", _as_object(self._values), tuple(self._next)))

    def _shown(self) -> Any:
        values = jsonable(self._values if self._values is not None else {})
        return {**values, INTERRUPT: jsonable(self._asked)} if self._asked and isinstance(values, dict) else values

    @property
    def _shows_all(self) -> bool:
        """Whether what the graph gives out is its whole state: then the checkpoint has it."""
        return self._graph.output_channels == self._graph.stream_channels_asis

    async def _fail(self, problem: BaseException) -> Outcome:
        error = told(problem)
        write = Write(events=[EventItem(event="error", data=error)])
        outcome = Outcome("error", _as_object(self._values), tuple(self._next), error=error, exception=problem)
        return await self._last(EndItem(status="error", error=error), write, outcome)

    async def _last(self, end: EndItem, write: Write, outcome: Outcome) -> Outcome:
        if self._held is not None:
            self._emit(self._frames.of((), "values", self._held))
            self._held = None
        write["end"] = end
        await self.outbox.flushed(write)
        return Outcome(
            outcome.status,
            outcome.values,
            outcome.next,
            tuple(jsonable(one) for one in self._asked),
            outcome.error,
            outcome.exception,
            tuple(self._nodes),
        )

    # changing the state from outside

    async def _update_state(self) -> Outcome:
        """Apply updates as the graph would; what they cannot be is said in the run's output, and changes nothing."""
        config = self._config()
        try:
            for superstep in self.kwargs["state_update"]:
                updates = [StateUpdate(one.get("values"), one.get("as_node")) for one in superstep["updates"]]
                config = await self._graph.abulk_update_state(config, [updates])
                state = await self._graph.aget_state(config)
                key = ("", config["configurable"]["checkpoint_id"])
                tasks = [{"id": task.id, "name": task.name, "path": jsonable(task.path)} for task in state.tasks]
                self.outbox.info(key, Info(jsonable(state.values), list(state.next), tasks))
        except LeaseLost:
            raise
        except Exception as problem:
            self.outbox.check()
            await self._journal.commit(Write(end=EndItem(status="success", output={"refused": told(problem)})))
            return Outcome("success")
        self.outbox.finish()
        await self.outbox.flushed(Write(end=EndItem(status="success", output={"checkpoint_id": self.outbox.head})))
        return Outcome("success")


def _known_types(graph: Pregel[Any, Any]) -> tuple[Any, ...] | None:
    """The types of the graph's own schemas: besides plain ones and those of LangChain only these are made again."""
    known: set[tuple[str, ...]] = set()
    for one in _graphs(graph):
        known |= getattr(one, "_serde_allowlist", None) or set()
    return tuple(known) or None


def _untracked(graph: Pregel[Any, Any]) -> frozenset[str]:
    return frozenset(
        name for one in _graphs(graph) for name, channel in one.channels.items() if isinstance(channel, UntrackedValue)
    )


def _graphs(graph: Pregel[Any, Any]) -> list[Any]:
    return [graph, *(inner for _, inner in graph.get_subgraphs(recurse=True))]


def _info(payload: Any) -> Info:
    """What is shown of a checkpoint's tasks; where the library leaves the path out, it is the usual one."""
    tasks = []
    for task in payload["tasks"]:
        path = ["__pregel_pull", task["name"]]
        tasks.append({"id": task["id"], "name": task["name"], "path": path})
    return Info(jsonable(payload["values"]), list(payload["next"]), tasks)


def _among(names: Sequence[str], nodes: Any) -> bool:
    return any(nodes == "*" or name in nodes for name in names if name != _START)


def _each(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _as_object(values: Any) -> dict[str, Any]:
    return jsonable(values) if isinstance(values, Mapping) else {}
