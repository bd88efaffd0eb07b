"""Eleven small graphs with known final states, written with this SDK: no network, no clock in any output."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypedDict

from duragraph_worker import (
    END,
    Command,
    Context,
    Graph,
    MessagesState,
    Send,
    edge,
    entrypoint,
    get_context,
    graph_node,
    interrupt,
    llm_node,
    node,
)
from duragraph_worker.llm import LLMChunk, LLMRequest, LLMResponse, Usage
from duragraph_worker.testing import ScriptedProvider


@Graph(id="echo", state=MessagesState)
class Echo:
    @entrypoint
    @node()
    async def echo(self, state):
        return {"messages": {"role": "assistant", "content": f"echo: {state['messages'][-1]['content']}"}}


class CounterState(TypedDict, total=False):
    target: int
    count: Annotated[int, operator.add]
    log: Annotated[list[str], operator.add]
    result: str


@Graph(id="counter", state=CounterState)
class Counter:
    @entrypoint
    @node()
    async def prepare(self, state):
        return {"log": ["prepare"]}

    @node()
    async def increment(self, state):
        return {"count": 1, "log": [f"increment:{state['count'] + 1}"]}

    @node()
    async def finish(self, state):
        return {"log": ["finish"], "result": f"counted to {state['count']}"}

    def more(self, state):
        return "increment" if state["count"] < state.get("target", 0) else "finish"

    edge(prepare).to_conditional(more, [increment, finish])
    edge(increment).to_conditional(more, [increment, finish])


class InterruptState(TypedDict, total=False):
    request: str
    times: int
    parallel: int
    answers: Annotated[list[Any], operator.add]
    status: str


@Graph(id="interrupting", state=InterruptState)
class Interrupting:
    @entrypoint
    @node()
    async def prepare(self, state):
        return {"status": "waiting"}

    @node()
    def ask(self, state):
        number = len(state["answers"]) + 1
        return {"answers": [interrupt({"question": f"approve {state.get('request', '')}?", "number": number})]}

    @node()
    async def ask_one(self, sent):
        answer = interrupt({"question": f"item {sent['item']}", "number": sent["item"]})
        return {"answers": [{"item": sent["item"], "answer": answer}]}

    @node()
    async def apply(self, state):
        return {"status": "done"}

    def first(self, state):
        if state.get("parallel", 0):
            return [Send("ask_one", {"item": i + 1}) for i in range(state["parallel"])]
        return "ask"

    def again(self, state):
        return "ask" if len(state["answers"]) < state.get("times", 1) else "apply"

    edge(prepare).to_conditional(first, [ask, ask_one])
    edge(ask).to_conditional(again, [ask, apply])
    ask_one >> apply


class SlowState(TypedDict, total=False):
    steps: int
    sleep: float
    tag: str
    done: Annotated[list[str], operator.add]


def _done(state):
    return len([d for d in state["done"] if d.startswith(state.get("tag", ""))])


@Graph(id="slow", state=SlowState)
class Slow:
    @entrypoint
    @node()
    async def step(self, state):
        await asyncio.sleep(float(state.get("sleep", 0.1)))
        return {"done": [f"{state.get('tag', '')}{_done(state) + 1}"]}

    edge(step).to_conditional(lambda self, state: "step" if _done(state) < state.get("steps", 1) else END, [step, END])


class FailingState(TypedDict, total=False):
    message: str
    fail: bool
    trail: Annotated[list[str], operator.add]


@Graph(id="failing", state=FailingState)
class Failing:
    @entrypoint
    @node()
    async def before(self, state):
        return {"trail": ["before"]}

    @node()
    async def boom(self, state):
        if state.get("fail", True):
            raise ValueError(state.get("message", "boom"))
        return {"trail": ["survived"]}

    before >> boom


class Parrot:
    """A model that says the user's text back, token by token, and then that it is done."""

    name = "parrot"

    async def chat(self, request: LLMRequest) -> LLMResponse:
        answer = self._answer(request)
        get_context().emit({"stage": "end", "n": 3})
        return answer

    async def stream(self, request: LLMRequest) -> AsyncIterator[LLMChunk]:
        async for chunk in ScriptedProvider(self._answer(request)).stream(request):
            if chunk.response is not None:
                get_context().emit({"stage": "end", "n": 3})
            yield chunk

    def _answer(self, request: LLMRequest) -> LLMResponse:
        text = f"you said {request.messages[-1]['content']} and that is all"
        return LLMResponse(text, request.model, Usage(3, 7), [], "stop")


@Graph(id="tokens", state=MessagesState)
class Tokens:
    @entrypoint
    @node()
    async def announce(self, state, ctx: Context):
        ctx.emit({"stage": "start", "n": 1})
        ctx.emit({"stage": "thinking", "n": 2})

    @llm_node(model="parrot", provider=Parrot())
    async def model(self, state):
        """The state's messages are the prompt."""

    announce >> model


class NestedState(TypedDict, total=False):
    pause: bool
    trail: Annotated[list[str], operator.add]
    inner: Annotated[list[str], operator.add]


class ChildState(TypedDict, total=False):
    pause: bool
    inner: Annotated[list[str], operator.add]
    secret: str


@Graph(id="child", state=ChildState)
class Child:
    @entrypoint
    @node()
    async def child_one(self, state):
        return {"inner": ["child_one"], "secret": "kept in the child"}

    @node()
    async def child_two(self, state):
        if state.get("pause"):
            return {"inner": [f"child_two:{interrupt({'question': 'child asks'})}"]}
        return {"inner": ["child_two"]}

    child_one >> child_two


@Graph(id="nested", state=NestedState)
class Nested:
    @entrypoint
    @node()
    async def parent_before(self, state):
        return {"trail": ["parent_before"]}

    child = graph_node(Child)

    @node()
    async def parent_after(self, state):
        return {"trail": ["parent_after"]}

    parent_before >> child >> parent_after


class ContextSchema(TypedDict, total=False):
    user_name: str
    style: str


class ContextState(TypedDict, total=False):
    text: str
    seen: dict[str, Any]
    reply: str


@Graph(id="context", state=ContextState, context=ContextSchema)
class Contextual:
    @entrypoint
    @node()
    async def read(self, state, ctx: Context):
        conf, meta = ctx.config.get("configurable", {}), ctx.config.get("metadata", {})
        style = ctx.context.get("style") or conf.get("style") or "plain"
        name = ctx.context.get("user_name") or conf.get("user_name") or "nobody"
        ids = ("thread_id", "run_id", "assistant_id", "graph_id")
        return {
            "seen": {
                "configurable": {k: str(conf[k]) for k in (*ids, "user_name", "style") if conf.get(k)},
                "context": {k: ctx.context.get(k) for k in ("user_name", "style")},
                "tags": list(ctx.config.get("tags", [])),
                "metadata": {k: str(meta[k]) for k in (*ids, "purpose") if meta.get(k)},
                "recursion_limit": ctx.config.get("recursion_limit"),
            },
            "reply": f"{style}: hello {name}, {state.get('text', '')}",
        }


class MemoryState(TypedDict, total=False):
    space: str
    fact: str
    known: list[str]


@Graph(id="memory", state=MemoryState)
class Memory:
    @entrypoint
    @node()
    async def remember(self, state, ctx: Context):
        space = ("facts", state["space"])
        if fact := state.get("fact"):
            await ctx.store.aput(space, fact, {"fact": fact})
        return {"known": sorted(item.key for item in await ctx.store.asearch(space, limit=100))}


class RoutingState(TypedDict, total=False):
    go: str
    trail: Annotated[list[str], operator.add]


@Graph(id="routing", state=RoutingState)
class Routing:
    @entrypoint
    @node()
    async def start(self, state):
        return {"trail": ["start"]}

    @node(goto=["left", "right"])
    async def decide(self, state):
        return Command(goto=state.get("go", "left"), update={"trail": ["decide"]})

    @node()
    async def left(self, state):
        return {"trail": ["left"]}

    @node()
    async def right(self, state):
        return {"trail": ["right"]}

    start >> decide
