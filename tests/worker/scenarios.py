"""Graphs of every shape, and what is run on them: played undisturbed, with crashes, and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Annotated, Any, TypedDict

from duragraph_worker import (
    Graph,
    MessagesState,
    Send,
    SyncContext,
    append,
    entrypoint,
    graph_node,
    human_node,
    interrupt,
    llm_node,
    node,
    router_node,
    tool,
)
from duragraph_worker.testing import ScriptedProvider, tool_calls

done: Counter[str] = Counter()
"""Side effects of these graphs: what a crash must not repeat once it is recorded."""


class Trail(TypedDict, total=False):
    trail: Annotated[list[str], append]
    n: int


def step(name: str, *, sync: bool = False, **options: Any) -> Any:
    """A node that leaves its name in the trail."""

    if sync:

        def work(self, state):
            done[name] += 1
            return {"trail": [name]}
    else:

        async def work(self, state):
            done[name] += 1
            return {"trail": [name]}

    return node(name=name, **options)(work)


@Graph(id="linear", state=Trail)
class Linear:
    a = entrypoint(step("a"))
    b = step("b", sync=True)
    c = step("c")
    a >> b >> c


@Graph(id="diamond", state=Trail)
class Diamond:
    a = entrypoint(step("a"))
    b = step("b")
    c = step("c", sync=True)
    c2 = step("c2")
    d = step("d")
    a >> [b, c]
    c >> c2
    [b, c2] >> d


@Graph(id="loop", state=Trail)
class Loop:
    @entrypoint
    @node()
    async def work(self, state):
        done["work"] += 1
        return {"n": state.get("n", 0) + 1, "trail": [f"work{state.get('n', 0) + 1}"]}

    @router_node()
    async def enough(self, state):
        done["enough"] += 1
        return "stop" if state["n"] >= 3 else "work"

    stop = step("stop")

    work >> enough
    enough >> work
    enough >> stop


class MapState(TypedDict, total=False):
    items: list[int]
    squares: Annotated[list[int], append]
    total: int


@Graph(id="map-reduce", state=MapState)
class MapReduce:
    @entrypoint
    @router_node
    def split(self, state):
        return [Send("square", {"item": item}) for item in state["items"]]

    @node
    async def square(self, sent):
        done[f"square{sent['item']}"] += 1
        await asyncio.sleep(0.001 * (5 - sent["item"]))  # they finish in another order than they began
        return {"squares": [sent["item"] ** 2]}

    @node
    def reduce(self, state):
        return {"total": sum(state["squares"])}

    split >> square >> reduce


class Approval(TypedDict, total=False):
    amount: int
    review: dict[str, Any]
    paid: str


@Graph(id="approval", state=Approval)
class Pay:
    @entrypoint
    @human_node(prompt="May I pay?", schema={"type": "object"})
    def review(self, state):
        return {"amount": state["amount"]}

    @node()
    def pay(self, state, ctx: SyncContext):
        if not state["review"]["ok"]:
            return {"paid": "no"}
        receipt = ctx.step("charge", self.charge, state["amount"], key=ctx.idempotency_key)
        ctx.step("mail", self.charge, 0, key="mail")
        return {"paid": receipt}

    def charge(self, amount, key):
        done[f"charge{amount}"] += 1
        return f"paid {amount}"

    review >> pay


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    done[f"add{a}+{b}"] += 1
    return a + b


@tool
async def approve(what: str) -> str:
    """Ask a person."""
    return f"{what}: {interrupt({'approve': what})}"


def script() -> ScriptedProvider:
    """Two tools at once, one more, then the answer; by what was asked, so that every attempt gets the right one."""

    def answer(request: Any) -> Any:
        results = [m for m in request.messages if m["role"] == "tool"]
        done[f"llm{len(results)}"] += 1
        if not results:
            return tool_calls(("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4}))
        if len(results) == 2:
            return tool_calls(("add", {"a": 3, "b": 7}))
        return f"It is {results[-1]['content']}."

    return ScriptedProvider(answer)


@Graph(id="agent", state=MessagesState)
class Agent:
    @entrypoint
    @llm_node(model="scripted", provider=script(), tools=[add], system_prompt="Add.")
    async def think(self, state):
        """The state's messages are the prompt."""


@Graph(id="wrapper", state=Trail)
class Wrapper:
    before = entrypoint(step("before"))
    inner = graph_node(Diamond)
    after = step("after")
    before >> inner >> after


ASK = {"messages": [{"role": "user", "content": "1+2+3+4?"}]}
SCENARIOS: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "linear": (Linear, [{"input": {}}]),
    "fan-out with a join": (Diamond, [{"input": {}}]),
    "router loop": (Loop, [{"input": {}}]),
    "map-reduce by Send": (MapReduce, [{"input": {"items": [1, 2, 3, 4]}}]),
    "human": (Pay, [{"input": {"amount": 5}}, {"resume": {"ok": True}}]),
    "llm with tools": (Agent, [{"input": ASK, "stream_mode": ["messages-tuple", "values"]}]),
    "subgraph with a join": (Wrapper, [{"input": {}}]),
    "breakpoints": (Linear, [{"input": {}, "interrupt_before": ["b"], "interrupt_after": ["b"]}, {}, {}]),
    "durability exit": (Diamond, [{"input": {}, "durability": "exit"}]),
}
