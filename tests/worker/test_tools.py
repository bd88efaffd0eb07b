"""Tools: the schema a model sees, what it may send, and that a fault becomes text for it."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from duragraph_worker.errors import LeaseLost, ToolError
from duragraph_worker.llm import ToolCall
from duragraph_worker.tools import Tool, Toolbox, ToolResult, tool


class Place(BaseModel):
    title: str
    lat: float = 0.0


@dataclass
class Found:
    name: str
    score: float


@tool
def weather(city: str, days: int = 1, unit: Literal["c", "f"] = "c") -> str:
    """The forecast for a city.

    Looks at most a week ahead.

    Args:
        city: Its name,
            in English.
        days (int): How many days ahead.

    Returns:
        A sentence.
    """
    return f"{city}: {days} days in {unit}"


def test_the_schema_comes_from_the_signature_and_the_docstring() -> None:
    assert weather.spec() == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The forecast for a city.\n\nLooks at most a week ahead.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Its name, in English."},
                    "days": {"type": "integer", "default": 1, "description": "How many days ahead."},
                    "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
                },
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }


def test_a_tool_is_still_the_function_it_was() -> None:
    assert weather("Oslo", days=2) == "Oslo: 2 days in c"
    assert (weather.__name__, weather.__doc__[:12]) == ("weather", "The forecast")


@pytest.mark.parametrize("decorate", [tool, tool(), tool(name=None)])
def test_the_decorator_works_with_and_without_parentheses(decorate: Any) -> None:
    @decorate
    def add(a: int, b: int) -> int:
        return a + b

    assert isinstance(add, Tool)
    assert add.name == "add"


def test_name_and_description_can_be_given() -> None:
    @tool(name="sum-up", description="Adds.")
    def add(a: int) -> int:
        """Something else."""
        return a

    assert add.spec()["function"]["name"] == "sum-up"
    assert add.spec()["function"]["description"] == "Adds."


def test_nested_types_annotated_descriptions_and_awkward_names_all_work() -> None:
    @tool
    def save(
        places: list[Place],
        schema: Annotated[str, Field(description="Any.", min_length=2)],
        _hidden: int = 3,
        json: dict[str, int] | None = None,
    ) -> None:
        """Saves.

        :param places: Where to.
            All of them.
        """

    schema = save.parameters
    assert list(schema["properties"]) == ["places", "schema", "_hidden", "json"]
    assert schema["properties"]["places"]["description"] == "Where to. All of them."
    assert schema["properties"]["schema"] == {"type": "string", "description": "Any.", "minLength": 2}
    assert schema["$defs"]["Place"]["properties"] == {
        "title": {"type": "string"},
        "lat": {"type": "number", "default": 0.0},
    }
    given = save.validate({"places": [{"title": "Oslo"}], "schema": "ab"})
    assert given == {"places": [Place(title="Oslo")], "schema": "ab", "_hidden": 3, "json": None}


def test_a_tool_without_arguments_has_an_empty_object_as_its_schema() -> None:
    @tool
    def now() -> str:
        """The time."""
        return "noon"

    assert now.parameters == {"type": "object", "properties": {}, "additionalProperties": False}


async def test_a_call_converts_what_the_model_sent_and_gives_text_and_value() -> None:
    @tool
    async def find(query: str, limit: int = 2) -> list[Found]:
        return [Found(query, n / 2) for n in range(limit)]

    result = await find.call({"query": "ø", "limit": "1"})

    assert result == ToolResult('[{"name": "ø", "score": 0.0}]', [Found("ø", 0.0)])


async def test_plain_functions_run_beside_the_loop_and_beside_each_other() -> None:
    together = threading.Barrier(2)

    @tool
    def meet(n: int) -> int:
        together.wait(10)
        return n

    results = await asyncio.gather(meet.call({"n": 1}), meet.call({"n": 2}))

    assert [result.value for result in results] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({}, "city: Field required"),
        ({"city": 3, "days": "many"}, "city: Input should be a valid string; days: Input should be a valid integer"),
        ({"city": "Oslo", "country": "no"}, "country: Extra inputs are not permitted"),
        ({"city": "Oslo", "unit": "k"}, "unit: Input should be 'c' or 'f'"),
    ],
)
async def test_arguments_that_do_not_fit_are_told_to_the_model(arguments: dict[str, Any], fault: str) -> None:
    result = await weather.call(arguments)

    assert result.is_error
    assert result.content.startswith("Error: the arguments do not fit the tool weather: ")
    assert fault in result.content


async def test_a_failing_tool_is_told_to_the_model() -> None:
    @tool
    def burst() -> None:
        raise RuntimeError("no network")

    assert await burst.call({}) == ToolResult("Error: burst failed with RuntimeError: no network", is_error=True)


async def test_a_lost_lease_and_a_cancellation_are_not_told_but_raised() -> None:
    @tool
    async def lose() -> None:
        raise LeaseLost("gone")

    @tool
    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(LeaseLost):
        await lose.call({})
    waiting = asyncio.create_task(wait.call({}))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize(
    ("declare", "fault"),
    [
        (lambda: tool(lambda *args: None), "a tool cannot be called"),
        (lambda: tool(name="f")(lambda *args: None), r"argument \*args, which a model cannot give"),
        (lambda: tool(name="f")(lambda **rest: None), r"argument \*\*rest"),
        (lambda: tool(name="with space")(lambda: None), "with space"),
        (lambda: tool(name="f")(eval("lambda a, /: None")), "argument a, which"),
    ],
)
def test_what_no_model_could_call_is_refused_when_it_is_declared(declare: Any, fault: str) -> None:
    with pytest.raises(ToolError, match=fault):
        declare()


def test_an_annotation_that_cannot_be_read_is_named() -> None:
    class Local: ...

    @tool
    def use(thing: Local) -> None: ...

    with pytest.raises(ToolError, match=r"tool use cannot be read: name 'Local'"):
        use.spec()


async def test_a_toolbox_answers_all_calls_of_a_model_in_order() -> None:
    def twice(n: int) -> int:
        """Doubles."""
        return 2 * n

    box = Toolbox([weather, twice])
    messages = await box.answer(
        [ToolCall("1", "twice", {"n": 4}), ToolCall("2", "missing", {}), ToolCall("3", "weather", {"city": "Oslo"})]
    )

    assert messages == [
        {"role": "tool", "tool_call_id": "1", "name": "twice", "content": "8"},
        {
            "role": "tool",
            "tool_call_id": "2",
            "name": "missing",
            "content": 'Error: there is no tool "missing"; there are: weather, twice',
        },
        {"role": "tool", "tool_call_id": "3", "name": "weather", "content": "Oslo: 1 days in c"},
    ]
    assert [spec["function"]["name"] for spec in box.specs()] == ["weather", "twice"]
    assert len(box) == 2
    assert "twice" in box


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ToolError, match='two tools are called "weather"'):
        Toolbox([weather, weather])
