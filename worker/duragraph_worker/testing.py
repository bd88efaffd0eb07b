"""For tests of graphs: a model that answers from a script, and a crash after any write.

model = ScriptedProvider(tool_calls(("search", {"query": "tea"})), "It is green.")

@llm_node(provider=model, tools=[search])
def answer(self, state): ...

report = await crash_everywhere(lambda: Agent(), [{"input": {...}}, {"resume": "yes"}])
assert report.final_states_differ == []
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from duragraph_worker.executor import Executor
from duragraph_worker.journal import Write
from duragraph_worker.llm import LLMChunk, LLMRequest, LLMResponse, ToolCall, Usage
from duragraph_worker.local import LocalJournal, LocalRun, LocalRunner, result_of
from duragraph_worker.results import RunResult

if TYPE_CHECKING:
    from duragraph_worker.graph import GraphInstance
    from duragraph_worker.journal import StepItem

Answer = str | LLMResponse | Exception | Callable[[LLMRequest], "Answer"]


def tool_calls(*calls: tuple[str, Mapping[str, Any]]) -> LLMResponse:
    """The answer of a model that wants tools called: `tool_calls(("search", {"query": "tea"}), ...)`."""
    made = [ToolCall(f"call-{name}-{i}", name, dict(arguments)) for i, (name, arguments) in enumerate(calls)]
    return LLMResponse("", "scripted", Usage(1, 1), made, "tool_calls")


class ScriptedProvider:
    """A model provider whose answers are given: texts, responses, exceptions, or functions of the request.

    `requests` holds what was asked. One answer that is a function serves every request; otherwise a request too many
    fails.
    """

    name = "scripted"

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[LLMRequest] = []

    async def chat(self, request: LLMRequest) -> LLMResponse:
        """The next answer."""
        self.requests.append(request)
        if not self.answers:
            raise AssertionError(
                f"the script has no answer left for request {len(self.requests)}: {request.messages[-1:]}"
            )
        always = len(self.answers) == 1 and callable(self.answers[0])
        answer = self.answers[0] if always else self.answers.pop(0)
        while callable(answer):
            answer = answer(request)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            words = len(answer.split())
            return LLMResponse(answer, request.model, Usage(len(request.messages), words), [], "stop")
        return answer

    async def stream(self, request: LLMRequest) -> AsyncIterator[LLMChunk]:
        """The next answer, in words and the spaces between them."""
        response = await self.chat(request)
        for piece in re.findall(r"\s+|\S+", response.content):
            yield LLMChunk(piece)
        yield LLMChunk(response=response)


class Crash(BaseException):
    """The process died: nothing after it was written."""


class _Writes:
    """Counts the writes of all runs of a scenario, and says when to die."""

    def __init__(self, crash_at: int | None) -> None:
        self.crash_at = crash_at
        self.count = 0


class CrashingJournal(LocalJournal):
    """A journal that dies right after storing a write: everything later from this attempt is lost."""

    def __init__(self, run: LocalRun, writes: _Writes) -> None:
        super().__init__(run)
        self.writes = writes
        self.dead = False

    async def commit(self, write: Write) -> None:
        """Store the write, then maybe die."""
        if self.dead:
            raise Crash
        self.writes.count += 1
        await super().commit(write)
        if self.writes.count == self.writes.crash_at:
            self.dead = True
            raise Crash

    async def store(self, ops: list[dict[str, Any]]) -> list[Any]:
        """Ask the store, unless dead; what was put before a crash stays."""
        if self.dead:
            raise Crash
        return await super().store(ops)


@dataclass
class Scenario:
    """Runs that follow each other on one thread, played once."""

    results: list[RunResult] = field(default_factory=list)
    ledger: list[StepItem] = field(default_factory=list)
    writes: int = 0
    attempts: int = 0

    @property
    def output(self) -> dict[str, Any]:
        """The final state."""
        return self.results[-1].output


async def play(graph: GraphInstance, calls: Sequence[Mapping[str, Any]], crash_at: int | None = None) -> Scenario:
    """Play runs (options of `GraphInstance.run`, each a dict) on one thread, dying right after write `crash_at`.

    The run that died is claimed again, as another worker would. A step recorded twice raises DuraGraphError.
    """
    runner, writes, scenario = LocalRunner(graph), _Writes(crash_at), Scenario()
    for call in calls:
        run = runner.prepare(**{"thread_id": "scenario", **call})
        while run.end is None:
            claim = run.claim(graph.topology().graph_id)
            scenario.attempts += 1
            try:
                outcome = await Executor(graph, claim, CrashingJournal(run, writes)).run()
            except Crash:
                continue
            scenario.results.append(result_of(run, outcome, 0))
        if not scenario.results or scenario.results[-1].run_id != run.run_id:
            scenario.results.append(_stored_result(runner, run))
    scenario.ledger = list(runner.thread("scenario").steps.values())
    scenario.writes = writes.count
    return scenario


def _stored_result(runner: LocalRunner, run: LocalRun) -> RunResult:
    """The result of a run whose worker died right after the last write: what the thread holds."""
    head = run.thread.head
    values = run.thread.values["", head] if head else {}
    waits = tuple(run.thread.checkpoints[head]["next"]) if head else ()
    end: dict[str, Any] = run.end or {}
    status = "interrupted" if waits and end["status"] == "success" else str(end["status"])
    asked = [
        {"value": q["value"], "id": q["interrupt_id"], "response_schema": q.get("response_schema")}
        for q in run.thread.interrupts.values()
        if q["checkpoint_id"] == head and not q["answered"]
    ]
    return RunResult(run.run_id, status, values, tuple(asked), end.get("error"), next=waits)


@dataclass
class CrashReport:
    """What `crash_everywhere` found."""

    undisturbed: Scenario
    crashed: list[Scenario]

    @property
    def final_states_differ(self) -> list[int]:
        """The writes after which a crash changed the final state (message ids aside)."""
        wanted = without_ids(self.undisturbed.output)
        return [n for n, played in enumerate(self.crashed, 1) if without_ids(played.output) != wanted]


async def crash_everywhere(make: Callable[[], GraphInstance], calls: Sequence[Mapping[str, Any]]) -> CrashReport:
    """Play the runs undisturbed, then once for each write with a crash right after it."""
    undisturbed = await play(make(), calls)
    crashed = [await play(make(), calls, crash_at=n) for n in range(1, undisturbed.writes + 1)]
    return CrashReport(undisturbed, crashed)


def without_ids(value: Any) -> Any:
    """State without the ids of its messages, which are new in every run."""
    if isinstance(value, dict):
        return {k: without_ids(v) for k, v in value.items() if not (k == "id" and "type" in value)}
    if isinstance(value, list):
        return [without_ids(item) for item in value]
    return value
