"""Functions that a model may call: `@tool` makes one, its schema comes from the signature and the docstring.

@tool
def weather(city: str, days: int = 1) -> str:
    \"\"\"The forecast for a city.

    Args:
        city: Its name, in English.
        days: How many days ahead.
    \"\"\"

weather.spec()                                  # for LLMRequest.tools
await weather.call({"city": "Oslo"})            # ToolResult(content="...", value="...", is_error=False)
weather("Oslo")                                 # still a plain function
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, overload

from duragraph_worker.errors import LeaseLost, ToolError

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["Tool", "ToolResult", "Toolbox", "tool"]

_ARGS_HEADING = re.compile(r"^\s*(args|arguments|parameters|params)\s*:?\s*$", re.IGNORECASE)
_OTHER_HEADING = re.compile(r"^\s*(returns?|yields?|raises|examples?|notes?)\s*:?\s*$", re.IGNORECASE)
_ARG_LINE = re.compile(r"^\s+\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_SPHINX_ARG = re.compile(r"^\s*:param\s+(?:[^:]*\s)?(\w+)\s*:\s*(.*)$")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class ToolResult:
    """What came of a call: `content` is text for the model, `value` what was returned (None after an error)."""

    content: str
    value: Any = None
    is_error: bool = False


class Tool:
    """A function with a name, a description and a JSON Schema of its arguments. Made by `@tool`."""

    def __init__(
        self, function: Callable[..., Any], *, name: str | None = None, description: str | None = None
    ) -> None:
        self.function = function
        self.name = name or function.__name__
        documented, self._argument_docs = _read_docstring(inspect.getdoc(function) or "")
        self.description = description or documented
        self._signature = _checked_signature(function, self.name)
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tool {self.name}>"

    @property
    def parameters(self) -> dict[str, Any]:
        """The JSON Schema of the arguments object."""
        return self._schema

    def spec(self) -> dict[str, Any]:
        """The OpenAI form: {"type": "function", "function": {"name", "description", "parameters"}}."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as the function's annotations say, defaults filled in. Raises `ToolError` naming each fault."""
        from pydantic import ValidationError

        try:
            checked = self._model.model_validate(dict(arguments))
        except ValidationError as problem:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc'])) or 'arguments'}: {fault['msg']}" for fault in problem.errors()
            )
            raise ToolError(f"the arguments do not fit the tool {self.name}: {faults}") from problem
        return {name: getattr(checked, f"argument_{i}") for i, name in enumerate(self._signature.parameters)}

    async def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Validate and call; a plain function runs in a thread. A fault becomes text for the model, no exception."""
        try:
            value = await self._invoke(self.validate(arguments))
            return ToolResult(_as_text(value), value)
        except LeaseLost:
            raise  # the run is not ours any more; there is no model left to tell
        except ToolError as problem:
            return ToolResult(f"Error: {problem}", is_error=True)
        except Exception as problem:
            return ToolResult(f"Error: {self.name} failed with {type(problem).__name__}: {problem}", is_error=True)

    async def _invoke(self, arguments: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(self.function):
            return await self.function(**arguments)
        value = await asyncio.to_thread(self.function, **arguments)
        return await value if inspect.isawaitable(value) else value

    # Built when first needed: pydantic takes longer to import than everything else here together.
    @functools.cached_property
    def _model(self) -> type[BaseModel]:
        from pydantic import ConfigDict, Field, create_model

        hints = _hints(self.function, self.name)
        fields: dict[str, Any] = {}
        # Neutral field names: an argument may be called "schema" or "_x", which a model's own names forbid.
        for index, (name, parameter) in enumerate(self._signature.parameters.items()):
            default = ... if parameter.default is parameter.empty else parameter.default
            documented: dict[str, Any] = (
                {"description": self._argument_docs[name]} if name in self._argument_docs else {}
            )
            field = Field(default, alias=name, **documented)
            fields[f"argument_{index}"] = (hints.get(name, Any), field)
        return create_model(self.name, __config__=ConfigDict(extra="forbid"), **fields)

    @functools.cached_property
    def _schema(self) -> dict[str, Any]:
        schema = self._model.model_json_schema(by_alias=True)
        schema.setdefault("properties", {})
        untitled: dict[str, Any] = _without_titles(schema)
        return untitled


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...


@overload
def tool(*, name: str | None = None, description: str | None = None) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(
    function: Callable[..., Any] | None = None, /, *, name: str | None = None, description: str | None = None
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a function a `Tool`; `@tool`, `@tool()` and `@tool(name=..., description=...)` all do.

    The name is the function's, the description its docstring's first part. Raises `ToolError` for a signature that a
    model cannot call (`*args`, `**kwargs`, positional-only arguments) and for a name outside [A-Za-z0-9_-]{1,64}.
    """
    if function is None:
        return functools.partial(Tool, name=name, description=description)
    return Tool(function, name=name, description=description)


class _Call(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def arguments(self) -> dict[str, Any]: ...


class Toolbox:
    """Tools by name. Plain functions are taken too, and become tools."""

    def __init__(self, tools: Iterable[Tool | Callable[..., Any]] = ()) -> None:
        self._tools: dict[str, Tool] = {}
        for one in tools:
            made = one if isinstance(one, Tool) else Tool(one)
            if made.name in self._tools:
                raise ToolError(f'two tools are called "{made.name}"; give one another name with @tool(name=...)')
            self._tools[made.name] = made

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __len__(self) -> int:
        return len(self._tools)

    def __contains__(self, name: str) -> bool:
        return name in self._tools

    def __getitem__(self, name: str) -> Tool:
        try:
            return self._tools[name]
        except KeyError:
            raise ToolError(f'there is no tool "{name}"; there are: {", ".join(self._tools) or "none"}') from None

    def specs(self) -> list[dict[str, Any]]:
        """Every tool's spec, for LLMRequest.tools."""
        return [one.spec() for one in self]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Call one tool; an unknown name is an error for the model, which can then choose another."""
        try:
            found = self[name]
        except ToolError as problem:
            return ToolResult(f"Error: {problem}", is_error=True)
        return await found.call(arguments)

    async def answer(self, calls: Sequence[_Call]) -> list[dict[str, Any]]:
        """Make all the calls of a model's answer side by side; the tool messages that answer them, in order."""
        results = await asyncio.gather(*(self.call(call.name, call.arguments) for call in calls))
        return [
            {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": result.content}
            for call, result in zip(calls, results, strict=True)
        ]


def _checked_signature(function: Callable[..., Any], name: str) -> inspect.Signature:
    if not _NAME.fullmatch(name):
        raise ToolError(f'a tool cannot be called "{name}"; use letters, digits, _ and -, up to 64')
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ToolError(
                f"the tool {name} has the argument {str(parameter).split(':')[0]}, which a model cannot give; "
                "name every argument"
            )
    return signature


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as problem:
        raise ToolError(
            f"the annotations of the tool {name} cannot be read: {problem}; declare its types at the top of the module"
        ) from problem


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The description, and each argument's from a Google-style "Args:" section or from ":param name:" lines."""
    description: list[str] = []
    arguments: dict[str, str] = {}
    section, current = "description", ""
    for line in text.splitlines():
        if sphinx := _SPHINX_ARG.match(line):
            section, current = "sphinx", sphinx[1]
            arguments[current] = sphinx[2]
        elif _ARGS_HEADING.match(line):
            section, current = "args", ""
        elif _OTHER_HEADING.match(line) or line.lstrip().startswith((":return", ":raise", ":rtype")):
            section = "other"
        elif section == "description":
            description.append(line)
        elif section == "args" and (named := _ARG_LINE.match(line)):
            current = named[1]
            arguments[current] = named[2]
        elif section in ("args", "sphinx") and current and line.strip():
            arguments[current] = f"{arguments[current]} {line.strip()}".strip()
    return "\n".join(description).strip(), arguments


def _without_titles(schema: Any, *, names: bool = False) -> Any:
    """The schema without pydantic's generated titles; under "properties" and "$defs" a title is a name and stays."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_titles(value, names=key in ("properties", "$defs"))
        for key, value in schema.items()
        if names or key != "title" or not isinstance(value, str)
    }


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    from pydantic_core import to_jsonable_python

    return json.dumps(to_jsonable_python(value), ensure_ascii=False)
