"""Graphs of LangGraph beyond the toy ones: functional, sync, with types of their own, made by factories."""

from __future__ import annotations

import operator
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from langchain_core.runnables import RunnableConfig
from langgraph.channels import UntrackedValue
from langgraph.channels.delta import DeltaChannel
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt
from pydantic import BaseModel
from typing_extensions import TypedDict

CALLS: list[str] = []
"""What ran, in order: tests clear it."""


@task
async def double(n: int) -> int:
    CALLS.append(f"double {n}")
    return n * 2


@entrypoint()
async def flow(given: dict[str, Any]) -> dict[str, Any]:
    first = await double(given["n"])
    answer = interrupt({"question": f"add to {first}?"}) if given.get("ask") else 0
    return {"result": await double(first) + answer}


class Numbers(TypedDict, total=False):
    n: int
    seen: Annotated[list[int], operator.add]


def _plain(state: Numbers) -> Numbers:
    CALLS.append("plain")
    return {"n": state["n"] + 1, "seen": [state["n"]]}


plain = StateGraph(Numbers).add_node("plain", _plain).add_edge(START, "plain").add_edge("plain", END)


@dataclass
class Point:
    x: int
    tags: list[str]


class Order(BaseModel):
    item: str
    points: list[Point] = []


async def _extend(order: Order) -> dict[str, Any]:
    assert isinstance(order, Order)
    assert all(isinstance(point, Point) for point in order.points)
    return {"points": [*order.points, Point(len(order.points), ["a"])]}


def _enough(order: Order) -> str:
    return "extend" if len(order.points) < 3 else END


typed = (
    StateGraph(Order).add_node("extend", _extend).add_edge(START, "extend").add_conditional_edges("extend", _enough)
).compile()


def by_config(config: RunnableConfig) -> Any:
    """A factory that is given the run's config."""
    name = (config.get("configurable") or {}).get("mode", "none")

    async def say(state: Numbers) -> Numbers:
        return {"seen": [len(name)]}

    return StateGraph(Numbers).add_node("say", say).add_edge(START, "say").compile()


@asynccontextmanager
async def in_context(config: RunnableConfig) -> Any:
    """A factory that opens something and closes it behind the run."""
    CALLS.append("opened")
    yield plain.compile()
    CALLS.append("closed")


class Both(TypedDict, total=False):
    total: Annotated[int, operator.add]


def _fan(name: str) -> Any:
    async def run(state: Both) -> Both:
        CALLS.append(name)
        return {"total": 1}

    return run


parallel = (
    StateGraph(Both)
    .add_node("left", _fan("left"))
    .add_node("right", _fan("right"))
    .add_node("join", _fan("join"))
    .add_edge(START, "left")
    .add_edge(START, "right")
    .add_edge(["left", "right"], "join")
).compile()


class Answers(TypedDict, total=False):
    given: Annotated[list[Any], operator.add]


def _ask_twice(state: Answers) -> Answers:
    first = interrupt("first?")
    return {"given": [first, interrupt(f"second, after {first}?")]}


def _ask_each(state: Any) -> Answers:
    return {"given": [f"{state['n']}={interrupt({'n': state['n']})}"]}


def _inside(inner: Any) -> Any:
    return StateGraph(Answers).add_node("child", inner).add_edge(START, "child").add_edge("child", END).compile()


twice = StateGraph(Answers).add_node("ask", _ask_twice).add_edge(START, "ask").add_edge("ask", END).compile()
twice_inside = _inside(twice)
each_inside = _inside(
    StateGraph(Answers)
    .add_node("ask", _ask_each)
    .add_conditional_edges(START, lambda _: [Send("ask", {"n": n}) for n in range(3)], ["ask"])
    .compile()
)


@task
def ask(what: str) -> Any:
    return interrupt(what)


@entrypoint()
def asking_task(given: Any) -> Any:
    return ask("well?").result()


class Silent(Exception):
    """Cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


def _break(state: Answers) -> Answers:
    raise Silent


breaking = StateGraph(Answers).add_node("break", _break).add_edge(START, "break").compile()


def _extended(known: list[Any], writes: list[list[Any]]) -> list[Any]:
    return [*known, *(item for items in writes for item in items)]


class Kept(TypedDict, total=False):
    seen: Annotated[list[Any], DeltaChannel(_extended, list, snapshot_frequency=3)]
    secret: Annotated[str, UntrackedValue]


kept = (
    StateGraph(Kept)
    .add_node("one", lambda state: {"seen": [len(state["seen"])], "secret": "hush"})
    .add_node("two", lambda state: {"seen": [state["secret"]]})
    .add_edge(START, "one")
    .add_edge("one", "two")
    .compile()
)


def _leave(state: Answers) -> Answers:
    sys.exit(3)


async def _leave_async(state: Answers) -> Answers:
    sys.exit(3)


leaving = StateGraph(Answers).add_node("leave", _leave).add_edge(START, "leave").compile()
leaving_async = StateGraph(Answers).add_node("leave", _leave_async).add_edge(START, "leave").compile()

whole = (
    StateGraph(Annotated[list[Any], operator.add])
    .add_node("one", lambda state: [len(state)])
    .add_edge(START, "one")
    .compile()
)
