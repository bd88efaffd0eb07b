"""What llm and tool nodes do: ask a model, run the tools it calls, hand back what they gave; every call journaled."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from duragraph_worker.chat import for_provider, normalise, text_of
from duragraph_worker.errors import NodeError
from duragraph_worker.interrupts import Interrupted, current
from duragraph_worker.llm import LLMRequest, LLMResponse, get_provider
from duragraph_worker.running import Asker, TaskRun
from duragraph_worker.state import MISSING, messages, to_json
from duragraph_worker.tools import Toolbox

if TYPE_CHECKING:
    from duragraph_worker.llm import LLMProvider

Message = dict[str, Any]


async def ask_model(run: TaskRun, prompt: Any) -> dict[str, Any]:
    """An llm node's update: its model asked, its tools called, until it answers without calling any."""
    config = run.node.config
    toolbox = Toolbox(config.get("tools") or ())
    asked = _prompt(run, prompt)
    made: list[Message] = []
    for _ in range(config["max_rounds"] + 1):
        answer = await _ask(run, [*asked, *made], toolbox)
        made.append(answer)
        if not answer["tool_calls"]:
            return _update(run, made)
        made += await _call_tools(run, toolbox, answer["tool_calls"])
    raise NodeError(
        f"llm node '{run.task.name}': still tools called after {config['max_rounds']} rounds; raise max_rounds, "
        "or tell it in the prompt when to stop"
    )


async def run_tools(run: TaskRun) -> dict[str, Any]:
    """A tool node's update: the calls of the last ai message, run."""
    key, history = _messages_of(run)
    last = history[-1] if history else {}
    calls = last.get("tool_calls") or []
    tools = run.node.config.get("tools")
    if tools is None:
        nodes = run.walk.topology.nodes.values()
        tools = list({id(t): t for n in nodes if n.kind == "llm" for t in n.config.get("tools", ())}.values())
    return {key: await _call_tools(run, Toolbox(tools), calls)} if calls else {}


def _prompt(run: TaskRun, prompt: Any) -> list[Message]:
    if prompt is None:
        return _messages_of(run)[1]
    if isinstance(prompt, str):
        return normalise(prompt)
    if isinstance(prompt, Mapping) and "messages" in prompt:
        return normalise(to_json(prompt["messages"]))
    if isinstance(prompt, list | tuple):
        return normalise(to_json(prompt))
    raise NodeError(
        f"llm node '{run.task.name}' returned {type(prompt).__name__}; return the prompt as a text, messages, "
        "a dict with messages, or None for the state's messages"
    )


def _messages_of(run: TaskRun) -> tuple[str, list[Message]]:
    """The state's messages, and the key they are under."""
    given = run.task.input if isinstance(run.task.input, dict) else run.values
    channels = run.walk.topology.schema.channels
    key = (
        "messages"
        if "messages" in given
        else next((n for n, c in channels.items() if c.reducer is messages), "messages")
    )
    return key, normalise(given.get(key))


def _update(run: TaskRun, made: Sequence[Message]) -> dict[str, Any]:
    text = text_of(made[-1])
    if output := run.node.config.get("output"):
        return {output: text}
    schema = run.walk.topology.schema
    keys = [name for name, channel in schema.channels.items() if channel.reducer is messages]
    if keys and (not schema.open or "messages" in run.values):
        return {keys[0]: list(made)}
    return {run.task.name: text}


async def _ask(run: TaskRun, asked: Sequence[Message], toolbox: Toolbox) -> Message:
    """One model call, or what the journal has of it, as an ai message."""
    config = run.node.config
    key = run.next_key("llm")
    record = run.recorded(key)
    if record is MISSING:
        provider, model = get_provider(config["model"], config.get("provider"))
        request = LLMRequest(
            messages=for_provider(asked),
            model=model,
            temperature=config.get("temperature"),
            max_tokens=config.get("max_tokens"),
            system=config.get("system_prompt"),
            tools=toolbox.specs(),
        )
        # New in each attempt: what a cut-off attempt streamed must not run together with what this one streams.
        message_id = f"run-{uuid.uuid4()}"
        started = time.perf_counter()
        given = normalise(asked)
        run.walk.shared.emit(run.streams.asked(run.task, run.step_number, provider.name, message_id, given))
        response = await _response(run, provider, request, message_id)
        record = _record(response, message_id, run.task.name)
        answer = _ai_message(record)
        run.walk.shared.emit(run.streams.answered(run.task, run.step_number, provider.name, given, answer))
        details = {"model": response.model, "provider": provider.name, **record["usage"]}
        # What follows the last answer is the node's own record: both go out together. Tools wait for this one.
        seconds = time.perf_counter() - started
        await run.record(key, "llm", response.model, record, seconds, details, commit=bool(response.tool_calls))
    run.walk.shared.tokens.update(record["usage"])
    return _ai_message(record)


async def _response(run: TaskRun, provider: LLMProvider, request: LLMRequest, message_id: str) -> LLMResponse:
    streams, shared = run.streams, run.walk.shared
    if not run.node.config["stream"] or not (streams.of_messages or streams.chains.wanted):
        return await provider.chat(request)
    async for chunk in provider.stream(request):
        if chunk.content:
            events = streams.token(run.task, run.step_number, provider.name, message_id, chunk.content)
            await shared.send({"events": events})
        if chunk.response is not None:
            if chunk.response.tool_calls:
                calls = [_call_json(call) for call in chunk.response.tool_calls]
                events = streams.token(run.task, run.step_number, provider.name, message_id, "", tool_calls=calls)
                await shared.send({"events": events})
            return chunk.response
    raise NodeError(f"llm node '{run.task.name}': provider '{provider.name}' ended its stream without a response")


def _call_json(call: Any) -> dict[str, Any]:
    return {"name": call.name, "args": call.arguments, "id": call.id, "type": "tool_call"}


def _record(response: LLMResponse, message_id: str, node: str) -> dict[str, Any]:
    usage = response.usage
    record = {
        "id": message_id,
        "content": response.content,
        "model": response.model,
        "finish_reason": response.finish_reason,
        "tool_calls": [_call_json(call) for call in response.tool_calls],
        "usage": {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        },
    }
    checked: dict[str, Any] = to_json(record, f"the answer of the model to node '{node}'")
    return checked


def _ai_message(record: Mapping[str, Any]) -> Message:
    message = {
        "type": "ai",
        "id": record["id"],
        "content": record["content"],
        "tool_calls": record["tool_calls"],
        "usage_metadata": record["usage"],
        "response_metadata": {"model_name": record["model"], "finish_reason": record["finish_reason"]},
    }
    return normalise(message)[0]


async def _call_tools(run: TaskRun, toolbox: Toolbox, calls: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Run the calls side by side; the tool messages in their order. Questions of several tools are asked together."""
    keys = [run.next_key(call["name"]) for call in calls]
    each = (_call_tool(run, toolbox, call, key) for call, key in zip(calls, keys, strict=True))
    results = await asyncio.gather(*each, return_exceptions=True)
    failures = [r for r in results if isinstance(r, BaseException)]
    asking = [question for r in failures if isinstance(r, Interrupted) for question in r.questions]
    if other := next((r for r in failures if not isinstance(r, Interrupted)), None):
        raise other
    if asking:
        raise Interrupted(asking)
    return [r for r in results if not isinstance(r, BaseException)]


async def _call_tool(run: TaskRun, toolbox: Toolbox, call: Mapping[str, Any], key: str) -> Message:
    current.set(Asker(run, key))  # gather gave this call a context of its own
    record = run.recorded(key)
    if record is MISSING:
        started = time.perf_counter()
        result = await toolbox.call(call["name"], call["args"])
        record = {"content": result.content, "is_error": result.is_error}
        to_json(record, f"the result of tool '{call['name']}'")
        await run.record(key, "tool", call["name"], record, time.perf_counter() - started)
    return normalise(
        {
            "type": "tool",
            "content": record["content"],
            "name": call["name"],
            "tool_call_id": call["id"],
            "status": "error" if record["is_error"] else "success",
        }
    )[0]
