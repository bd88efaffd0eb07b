"""Nodes that ask models and run tools."""

from __future__ import annotations

from typing import Any, TypedDict

import pytest

from duragraph_worker import (
    Graph,
    MessagesState,
    entrypoint,
    llm_node,
    tool,
    tool_node,
)
from duragraph_worker.testing import ScriptedProvider, play, tool_calls
from tests.worker.scenarios import (
    ASK,
    Agent,
    add,
    approve,
    done,
)


@pytest.fixture(autouse=True)
def _nothing_done_yet():
    done.clear()


async def test_an_llm_node_runs_tools_and_journals_every_call():
    played = await play(Agent(), [{"input": ASK}])
    kinds = [m["type"] for m in played.output["messages"]]
    assert kinds == ["human", "ai", "tool", "tool", "ai", "tool", "ai"]
    assert played.output["messages"][-1]["content"] == "It is 10."
    assert played.output["messages"][2]["tool_call_id"] == played.output["messages"][1]["tool_calls"][0]["id"]
    assert [(s["kind"], s["key"]) for s in played.ledger] == [
        ("llm", "llm:1"),
        ("tool", "add:1"),
        ("tool", "add:2"),
        ("llm", "llm:2"),
        ("tool", "add:3"),
        ("llm", "llm:3"),
        ("node", ""),
    ]


async def test_a_model_is_not_paid_twice_after_a_crash():
    for n in range(1, 20):
        done.clear()
        played = await play(Agent(), [{"input": ASK}], crash_at=n)
        assert {k: v for k, v in done.items() if k.startswith("llm")} == {"llm0": 1, "llm2": 1, "llm3": 1}
        if played.writes < n:
            break


async def test_an_llm_node_takes_its_prompt_as_text_as_messages_or_from_the_state():
    model = ScriptedProvider("one", "two", "three")

    class S(TypedDict, total=False):
        topic: str
        as_text: str
        chosen: str
        listed: str

    @Graph(id="g", state=S)
    class Prompts:
        @entrypoint
        @llm_node(provider=model, system_prompt="Be brief.", temperature=0.5)
        def as_text(self, state):
            return f"About {state['topic']}"

        @llm_node(provider=model, output="chosen")
        def messages_of_mine(self, state):
            return {"messages": [("system", "s"), ("user", state["as_text"])]}

        @llm_node(provider=model, output="listed")
        async def listed(self, state):
            return [{"role": "user", "content": "list"}]

        as_text >> messages_of_mine >> listed

    result = await Prompts().arun({"topic": "tea"})
    assert result.output == {"topic": "tea", "as_text": "one", "chosen": "two", "listed": "three"}
    first, second, third = model.requests
    assert (first.system, first.temperature) == ("Be brief.", 0.5)
    assert first.messages == [{"role": "user", "content": "About tea"}]
    assert second.messages == [{"role": "system", "content": "s"}, {"role": "user", "content": "one"}]
    assert third.messages == [{"role": "user", "content": "list"}]


async def test_a_model_that_never_stops_calling_tools_is_stopped():
    model = ScriptedProvider(lambda request: tool_calls(("add", {"a": 1, "b": 1})))

    @Graph(id="g", state=MessagesState)
    class Endless:
        @llm_node(provider=model, tools=[add], max_rounds=2)
        def think(self, state): ...

    result = await Endless().arun(ASK)
    assert result.error is not None
    assert result.error["error"] == "NodeError"
    assert len(model.requests) == 3


async def test_a_tool_may_ask_a_person_and_several_ask_at_once():
    def answer(request: Any) -> Any:
        results = [m["content"] for m in request.messages if m["role"] == "tool"]
        return ", ".join(results) or tool_calls(("approve", {"what": "x"}), ("approve", {"what": "y"}))

    @Graph(id="g", state=MessagesState)
    class Careful:
        @llm_node(provider=ScriptedProvider(answer), tools=[approve])
        def think(self, state): ...

    graph = Careful()
    asked = await graph.arun(ASK, thread_id="t")
    ids = {i["value"]["approve"]: i["id"] for i in asked.interrupts}
    result = await graph.arun(thread_id="t", resume={ids["y"]: "no", ids["x"]: "yes"})
    assert result.output["messages"][-1]["content"] == "x: yes, y: no"


async def test_a_failing_tool_is_told_to_the_model():
    @tool
    def broken() -> str:
        """Breaks."""
        raise OSError("no disk")

    def answer(request: Any) -> Any:
        results = [m["content"] for m in request.messages if m["role"] == "tool"]
        return results[0] if results else tool_calls(("broken", {}), ("unknown", {}))

    @Graph(id="g", state=MessagesState)
    class Unlucky:
        @llm_node(provider=ScriptedProvider(answer), tools=[broken])
        def think(self, state): ...

    result = await Unlucky().arun(ASK)
    assert "no disk" in result.output["messages"][-1]["content"]
    assert [m["status"] for m in result.output["messages"] if m["type"] == "tool"] == ["error", "error"]


async def test_a_tool_node_runs_the_calls_of_the_last_message():
    @Graph(id="g", state=MessagesState)
    class ByHand:
        @entrypoint
        @tool_node(tools=[add])
        def act(self, state): ...

        @tool_node
        def more(self, state):
            return {"messages": [{"role": "assistant", "content": "done by hand"}]}

        act >> more

    calls = [{"name": "add", "args": {"a": 2, "b": 3}, "id": "c1"}]
    result = await ByHand().arun({"messages": [{"role": "assistant", "content": "", "tool_calls": calls}]})
    assert [(m["type"], m["content"]) for m in result.output["messages"]] == [
        ("ai", ""),
        ("tool", "5"),
        ("ai", "done by hand"),
    ]
