"""Protocol v2: what each frame of a run becomes, without a server."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from duragraph.hub import Frame
from duragraph.protocol_v2 import Event, Filter, Translator, tree, unknown_channels

RUN = UUID("01a21e05-5a81-72b5-b38f-6fb881a4efc4")
MS = RUN.int >> 80
CHILD = "child:3f7f4ef0"


def frames(*given: tuple[str, object]) -> list[Frame]:
    return [Frame(n, name.encode(), json.dumps(data).encode()) for n, (name, data) in enumerate(given, 1)]


def translated(*given: tuple[str, object], status: str = "success", error: str | None = None) -> list[Event]:
    translator = Translator(RUN, "graph")
    events = translator.begin()
    for frame in frames(*given):
        events += translator.take(frame)
    return events + translator.end(status, error)


def wire(event: Event) -> Any:
    return json.loads(event.render(5, 7))


def shown(events: list[Event], method: str) -> list[Any]:
    return [wire(event)["params"]["data"] for event in events if event.method == method]


def lifecycle(events: list[Event]) -> list[tuple[tuple[str, ...], str]]:
    return [(event.namespace, event.data["event"]) for event in events if event.method == "lifecycle"]


def chunk(text: str, message: str = "m", node: str = "model", task: str = "t", **more: object) -> tuple[str, object]:
    metadata = {"langgraph_node": node, "langgraph_checkpoint_ns": f"{node}:{task}"}
    return "messages", [{"type": "AIMessageChunk", "id": message, "content": text, **more}, metadata]


def task_result(task: str = "t", **outcome: object) -> tuple[str, object]:
    return "tasks", {"id": task, "name": "model", "error": None, "result": {}, "interrupts": [], **outcome}


def test_the_wire_form_of_an_event() -> None:
    [_, values, _] = translated(("values", {"n": 1}))
    assert wire(values) == {
        "type": "event",
        "event_id": f"{MS}-00000001",
        "seq": 5,
        "method": "values",
        "params": {"namespace": [], "timestamp": 7, "data": {"n": 1}},
    }


def test_a_run_is_running_then_completed() -> None:
    events = translated(("values", {}))
    assert lifecycle(events) == [((), "running"), ((), "completed")]
    assert [event.event_id for event in events if event.method == "lifecycle"] == [
        f"synth:{RUN}:lc||running",
        f"synth:{RUN}:lc||completed",
    ]
    assert shown(events, "lifecycle")[0] == {"event": "running", "graph_name": "graph"}


@pytest.mark.parametrize(
    ("status", "given", "word", "error"),
    [
        ("error", [("error", {"error": "ValueError", "message": "kaboom"})], "failed", "kaboom"),
        ("error", [], "failed", "from the run"),
        ("timeout", [], "failed", "from the run"),
        ("interrupted", [], "interrupted", None),
        ("gone", [], "interrupted", None),
        ("success", [("updates", {"__interrupt__": []})], "interrupted", None),
    ],
)
def test_how_a_run_ends(status: str, given: list[tuple[str, object]], word: str, error: str | None) -> None:
    last = translated(*given, status=status, error="from the run")[-1]
    assert last.data == {"event": word, "graph_name": "graph", **({"error": error} if error else {})}


def test_events_are_numbered_alike_at_every_reading_and_have_ids_of_their_own() -> None:
    given = [
        *(("values", {"a": 1}), chunk("x"), chunk("y"), ("custom", 1), ("updates", {"a": None, "b": {"c": 1}})),
        *((f"values|{CHILD}", {}), ("updates", {"__interrupt__": [{"id": "i", "value": 1}]})),
    ]
    once, again = translated(*given), translated(*given)
    assert [(event.n, event.event_id) for event in once] == [(event.n, event.event_id) for event in again]
    assert [event.n for event in once] == list(range(1, len(once) + 1))
    assert len({event.event_id for event in once}) == len(once)


def test_tokens_become_one_message_that_its_task_finishes() -> None:
    whole = {"type": "ai", "id": "m", "content": "you said", "usage_metadata": {"total_tokens": 2}}
    events = translated(chunk("you"), chunk(" said"), task_result(result={"messages": [whole]}))
    known = {"id": "m", "run_id": "m"}
    assert shown(events, "messages") == [
        {"event": "message-start", **known, "role": "ai", "metadata": {"langgraph_node": "model"}},
        {"event": "content-block-start", **known, "index": 0, "content": {"type": "text", "text": ""}},
        {"event": "content-block-delta", **known, "index": 0, "delta": {"type": "text-delta", "text": "you"}},
        {"event": "content-block-delta", **known, "index": 0, "delta": {"type": "text-delta", "text": " said"}},
        {"event": "content-block-finish", **known, "index": 0, "content": {"type": "text", "text": "you said"}},
        {"event": "message-finish", **known, "usage": {"total_tokens": 2}},
    ]


@pytest.mark.parametrize(
    "finisher",
    [
        task_result(),
        ("updates", {"model": {"messages": [{"type": "ai", "id": "m", "content": "hi"}]}}),
        ("values", {"messages": [{"type": "ai", "id": "m", "content": "hi"}]}),
    ],
)
def test_a_message_is_finished_by_whatever_the_modes_of_the_run_show(finisher: tuple[str, object]) -> None:
    events = translated(chunk("hi"), finisher, ("custom", "later"))
    assert [event.method for event in events].index("custom") > max(
        n for n, event in enumerate(events) if event.method == "messages"
    )
    assert shown(events, "messages")[-1]["event"] == "message-finish"


def test_a_message_that_nothing_finished_is_finished_with_the_run_and_fails_with_it() -> None:
    assert shown(translated(chunk("hi")), "messages")[-1]["event"] == "message-finish"
    assert shown(translated(chunk("hi"), status="interrupted"), "messages")[-1]["event"] == "error"
    failed = shown(translated(chunk("hi"), task_result(error="ValueError('x')")), "messages")[-1]
    assert (failed["event"], failed["message"]) == ("error", "ValueError('x')")


def test_what_a_lost_attempt_was_writing_is_cut_off_and_the_next_writes_anew() -> None:
    events = translated(chunk("you", "m1"), ("metadata", {"attempt": 2}), chunk("you", "m2"), task_result())
    said = [(data["event"], data["id"]) for data in shown(events, "messages")]
    assert said[3] == ("error", "m1")
    assert said[-1] == ("message-finish", "m2")


def test_a_whole_message_is_given_at_once_and_only_once() -> None:
    message = {"type": "ai", "id": "m", "content": "echo: hi"}
    events = translated(("messages", [message, {}]), ("messages", [message, {}]), ("values", {"messages": [message]}))
    assert [data["event"] for data in shown(events, "messages")] == [
        *("message-start", "content-block-start", "content-block-delta", "content-block-finish", "message-finish")
    ]


def test_messages_that_tell_all_so_far_become_what_is_new() -> None:
    events = translated(
        *(("messages/partial", [{"type": "ai", "id": "m", "content": text}]) for text in ("a", "ab", "abc")),
        ("messages/complete", [{"type": "ai", "id": "m", "content": "abc"}]),
    )
    deltas = [data["delta"]["text"] for data in shown(events, "messages") if "delta" in data]
    assert deltas == ["a", "b", "c"]
    assert shown(events, "messages")[-1]["event"] == "message-finish"


def test_reasoning_and_text_are_blocks_of_their_own() -> None:
    thinking = [{"type": "reasoning", "reasoning": "hm", "index": 0}]
    answer = [{"type": "text", "text": "yes", "index": 1}]
    events = translated(chunk(thinking), chunk(answer))  # type: ignore[arg-type]  # content may be blocks
    finished = [data["content"] for data in shown(events, "messages") if data["event"] == "content-block-finish"]
    assert finished == [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "yes"}]


def test_a_tool_call_in_pieces_is_put_together_and_starts_its_tool() -> None:
    pieces = [
        {"index": 0, "id": "c1", "name": "add", "args": '{"a":'},
        {"index": 0, "id": None, "name": None, "args": " 1}"},
    ]
    events = translated(
        *(chunk("", tool_call_chunks=[piece]) for piece in pieces),
        task_result(),
        ("messages", [{"type": "tool", "id": "r", "tool_call_id": "c1", "content": "2", "status": "success"}, {}]),
        ("messages", [{"type": "tool", "id": "q", "tool_call_id": "c2", "content": "bad", "status": "error"}, {}]),
    )
    said = shown(events, "messages")
    assert [data["delta"]["args"] for data in said if "delta" in data] == ['{"a":', " 1}"]
    call = {"type": "tool_call", "id": "c1", "name": "add", "args": {"a": 1}}
    assert [data["content"] for data in said if data["event"] == "content-block-finish"] == [call]
    tools = shown(events, "tools")
    assert tools[0] == {"event": "tool-started", "tool_call_id": "c1", "tool_name": "add", "input": {"a": 1}}
    assert (tools[1]["event"], tools[1]["tool_call_id"], tools[1]["output"]["content"]) == ("tool-finished", "c1", "2")
    assert tools[2] == {"event": "tool-error", "tool_call_id": "c2", "message": "bad"}


def test_a_tool_call_whose_arguments_are_no_json_says_so() -> None:
    events = translated(chunk("", tool_call_chunks=[{"index": 0, "id": "c", "name": "add", "args": "{"}]))
    [content] = [data["content"] for data in shown(events, "messages") if data["event"] == "content-block-finish"]
    assert content["type"] == "invalid_tool_call"
    assert shown(events, "tools") == []


def test_messages_of_parallel_tasks_are_told_apart() -> None:
    events = translated(chunk("a", "m1", task="1"), chunk("b", "m2", task="2"), task_result("2"), task_result("1"))
    finished = [data["id"] for data in shown(events, "messages") if data["event"] == "message-finish"]
    assert finished == ["m2", "m1"]
    assert all(data["id"] in ("m1", "m2") for data in shown(events, "messages"))


def test_updates_name_their_node_and_custom_events_their_channel() -> None:
    events = translated(
        ("updates", {"a": {"n": 1}, "b": None}),
        *(("custom", data) for data in ({"stage": 1}, "text", {"name": "x", "payload": 2}, {"name": "y", "more": 3})),
    )
    assert shown(events, "updates") == [{"node": "a", "values": {"n": 1}}, {"node": "b", "values": {}}]
    assert shown(events, "custom") == [
        *({"payload": {"stage": 1}}, {"payload": "text"}, {"name": "x", "payload": 2}),
        {"name": "y", "payload": {"name": "y", "more": 3}},
    ]


def test_a_question_is_asked_once_where_it_was_asked_first() -> None:
    question = {"id": "i1", "value": {"question": "sure?"}}
    events = translated(
        (f"updates|{CHILD}", {"__interrupt__": [question]}),
        ("updates", {"__interrupt__": [question]}),
        ("values", {"n": 1, "__interrupt__": [question]}),
    )
    [asked] = [event for event in events if event.method == "input.requested"]
    assert (asked.namespace, asked.channel) == ((CHILD,), "input")
    assert asked.data["interrupt_id"] == "i1"
    assert asked.data["payload"] == asked.data["value"] == {"question": "sure?"}
    assert shown(events, "values") == [{"n": 1}]
    assert lifecycle(events)[-1] == ((), "interrupted")


def test_a_subgraph_starts_with_its_first_frame_and_ends_with_its_task() -> None:
    events = translated(
        (f"values|{CHILD}", {}), (f"values|{CHILD}|deep:9", {}), task_result("3f7f4ef0"), ("values", {"n": 1})
    )
    deep = (CHILD, "deep:9")
    assert lifecycle(events) == [
        *(((), "running"), ((CHILD,), "started"), (deep, "started"), ((CHILD,), "completed")),
        *((deep, "completed"), ((), "completed")),
    ]
    assert shown(events, "lifecycle")[1]["trigger_call_id"] == "3f7f4ef0"
    seen = tree(events, "graph")
    assert (seen["status"], seen["children"][0]["graph_name"]) == ("completed", "child")
    assert seen["children"][0]["children"][0]["namespace"] == list(deep)


def test_checkpoints_are_points_in_the_tree() -> None:
    payload = {
        "checkpoint": {"checkpoint_id": "b"},
        "parent_checkpoint": {"checkpoint_id": "a"},
        "metadata": {"step": 1, "source": "loop"},
        "values": {"secret": 1},
    }
    events = translated(("checkpoints", payload))
    assert shown(events, "checkpoints") == [{"id": "b", "parent_id": "a", "step": 1, "source": "loop"}]


@pytest.mark.parametrize("odd", [None, 1, "x", [], [1], {}, {"__interrupt__": 1}, [[], []], [{"type": "ai"}, 1]])
@pytest.mark.parametrize(
    "name", ["values", "updates", "messages", "messages/partial", "tasks", "checkpoints", "custom"]
)
def test_a_frame_of_any_form_does_no_harm(name: str, odd: object) -> None:
    events = translated(chunk("x"), (name, odd), ("error", odd), (f"{name}|{CHILD}", odd))
    assert lifecycle(events)[-1] in [((), "completed"), ((), "interrupted")]
    assert all(wire(event) for event in events)


@pytest.mark.parametrize(
    ("channels", "namespaces", "depth", "expected"),
    [
        (["values"], [], None, ["values", f"values {CHILD}", f"values {CHILD}|deep:9"]),
        (["values"], [[]], 0, ["values"]),
        (["values"], [["child"]], None, [f"values {CHILD}", f"values {CHILD}|deep:9"]),
        (["values"], [["child"]], 0, [f"values {CHILD}"]),
        (["values"], [["child:other"]], None, []),
        (["custom"], [], None, ["custom", "custom"]),
        (["custom:x"], [], None, ["custom"]),
        (["custom:y"], [], None, []),
        (["input"], [], None, ["input.requested"]),
    ],
)
def test_a_filter_lets_through_what_was_asked_for(
    channels: list[str], namespaces: list[list[str]], depth: int | None, expected: list[str]
) -> None:
    events = translated(
        *(("values", {}), (f"values|{CHILD}", {}), (f"values|{CHILD}|deep:9", {}), ("custom", 1)),
        *(("custom", {"name": "x", "payload": 1}), ("updates", {"__interrupt__": [{"id": "i", "value": 1}]})),
    )
    wanted = Filter(frozenset(channels), tuple(tuple(one) for one in namespaces), depth)
    assert [" ".join([e.method, "|".join(e.namespace)]).strip() for e in events if e in wanted] == expected


def test_channels_that_there_are_not_are_named() -> None:
    assert unknown_channels(["values", "nope", "custom:x", "custom:", "debug"]) == ["nope", "custom:"]
