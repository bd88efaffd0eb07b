"""Questions to people, breakpoints, and going on from where a thread stands."""

from __future__ import annotations

from typing import Any

import pytest

from duragraph_worker import (
    Context,
    Graph,
    SyncContext,
    entrypoint,
    human_node,
    interrupt,
    node,
)
from duragraph_worker.ids import ordered_id
from duragraph_worker.plan import again, task_from
from duragraph_worker.testing import crash_everywhere, play
from tests.worker import toy_graphs as toys
from tests.worker.scenarios import (
    Linear,
    Loop,
    Pay,
    Trail,
    done,
    step,
)


@pytest.fixture(autouse=True)
def _nothing_done_yet():
    done.clear()


async def test_breakpoints_before_and_after_stop_the_run_and_no_input_goes_on():
    graph = Linear()
    before = await graph.arun({}, thread_id="t", interrupt_before=["b"])
    assert (before.status, before.next, before.interrupts) == ("interrupted", ("b",), ())
    after = await graph.arun(thread_id="t", interrupt_after=["b"])
    assert (after.next, after.output["trail"]) == (("c",), ["a", "b"])
    last = await graph.arun(thread_id="t")
    assert last.output["trail"] == ["a", "b", "c"]
    everywhere = await graph.arun({}, thread_id="u", interrupt_before="*")
    assert everywhere.next == ("a",)


async def test_new_input_on_a_waiting_thread_starts_over():
    graph = Pay()
    await graph.arun({"amount": 5}, thread_id="t")
    again = await graph.arun({"amount": 7}, thread_id="t")
    assert again.interrupts[0]["value"] == {"prompt": "May I pay?", "amount": 7}
    paid = await graph.arun(thread_id="t", resume={"ok": True})
    assert paid.output["paid"] == "paid 7"


async def test_an_answer_when_nothing_was_asked_changes_nothing():
    assert (await Pay().arun(resume="yes")).status == "success"
    graph = Pay()
    await graph.arun({"amount": 5}, thread_id="t")
    await graph.arun(thread_id="t", resume={"ok": False})
    again = await graph.arun(thread_id="t", resume={"ok": True})
    assert (again.status, again.output["paid"]) == ("success", "no")


@pytest.mark.parametrize("answer", [False, 0, "", None, [], {}], ids=repr)
async def test_falsy_answers_count(answer: Any):
    @Graph(id="g")
    class Ask:
        @entrypoint
        @node
        async def ask(self, state):
            return {"answer": interrupt("?")}

    graph = Ask()
    asked = await graph.arun({}, thread_id="t")
    result = await graph.arun(thread_id="t", resume={asked.interrupts[0]["id"]: answer})
    assert result.output == {"answer": answer}


async def test_several_questions_of_one_node_are_answered_in_order():
    @Graph(id="g")
    class Ask:
        @entrypoint
        @node
        def ask(self, state, ctx: SyncContext):
            name = interrupt("name?")
            ctx.step("greet", lambda: done.update(["greeted"]))
            try:
                age = interrupt("age?")
            except Exception:
                raise AssertionError("interrupt must pass through a node's own except") from None
            return {"name": name, "age": age}

    played = await play(Ask(), [{"input": {}}, {"resume": "Ada"}, {"resume": 36}])
    assert [r.interrupts[0]["value"] for r in played.results[:2]] == ["name?", "age?"]
    assert played.output == {"name": "Ada", "age": 36}
    assert done["greeted"] == 1


async def test_a_waiting_sibling_is_not_run_again_for_another_ones_answer():
    @Graph(id="g", state=Trail)
    class Two:
        a = entrypoint(step("a"))

        @node
        async def one(self, state):
            done["one"] += 1
            return {"trail": [interrupt("one?")]}

        @node
        async def two(self, state):
            done["two"] += 1
            return {"trail": [interrupt("two?")]}

        a >> [one, two]

    graph = Two()
    asked = await graph.arun({}, thread_id="t")
    ids = {i["value"]: i["id"] for i in asked.interrupts}
    await graph.arun(thread_id="t", resume={ids["two?"]: "second"})
    assert (done["one"], done["two"]) == (1, 2)
    result = await graph.arun(thread_id="t", resume={ids["one?"]: "first"})
    assert result.output["trail"] == ["a", "first", "second"]
    assert (done["one"], done["two"]) == (2, 2)


async def test_a_command_with_answer_and_update_carries_the_question_and_its_steps_over():
    @Graph(id="g")
    class Ask:
        @entrypoint
        @node
        async def ask(self, state, ctx: Context):
            await ctx.step("once", lambda: done.update(["once"]))
            return {"answer": f"{interrupt('?')} {state['mood']}"}

    played = await play(Ask(), [{"input": {"mood": "sad"}}, {"command": {"resume": "yes", "update": {"mood": "glad"}}}])
    assert played.output["answer"] == "yes glad"
    assert done["once"] == 1
    report = await crash_everywhere(
        Ask, [{"input": {"mood": "sad"}}, {"command": {"resume": "yes", "update": {"mood": "glad"}}}]
    )
    assert report.final_states_differ == []


async def test_goto_beside_a_waiting_question_leaves_the_question_open():
    @Graph(id="g", state=Trail)
    class Ask:
        @entrypoint
        @node
        async def ask(self, state):
            return {"trail": [interrupt("?")]}

        b = step("b")
        ask >> b

    graph = Ask()
    await graph.arun({}, thread_id="t")
    aside = await graph.arun(thread_id="t", command={"goto": "b"})
    assert aside.status == "interrupted"
    assert [i["value"] for i in aside.interrupts] == ["?"]
    result = await graph.arun(thread_id="t", resume="answer")
    assert result.output["trail"] == ["answer", "b", "b"]


async def test_a_fork_runs_again_from_an_older_checkpoint():
    graph = Loop()
    await graph.arun({}, thread_id="t")
    thread = graph.local.thread("t")
    older = next(
        c for (ns, c), values in thread.values.items() if values.get("n") == 1 and thread.checkpoints[c]["next"]
    )
    forked = await graph.arun(thread_id="t", checkpoint_id=older)
    assert forked.output["trail"] == ["work1", "work2", "work3", "stop"]
    assert [c["source"] for c in thread.checkpoints.values()].count("fork") == 1


async def test_a_fork_at_an_answered_question_can_be_answered_otherwise():
    graph = Pay()
    await graph.arun({"amount": 5}, thread_id="t")
    asked = graph.local.thread("t").head
    await graph.arun(thread_id="t", resume={"ok": True})
    other = await graph.arun(thread_id="t", checkpoint_id=asked, resume={"ok": False})
    assert other.output["paid"] == "no"


async def test_durability_exit_keeps_only_the_last_checkpoint():
    graph = Linear()
    result = await graph.arun({}, thread_id="t", durability="exit")
    kept = list(graph.local.thread("t").checkpoints.values())
    assert [c["next"] for c in kept] == [[]]
    assert graph.local.thread("t").values["", kept[0]["checkpoint_id"]] == result.output
    assert graph.local.thread("t").steps == {}


async def test_durability_exit_keeps_a_question_and_goes_on_with_its_answer():
    graph = Pay()
    first = await graph.arun({"amount": 5}, thread_id="t", durability="exit")
    assert first.status == "interrupted"
    second = await graph.arun(thread_id="t", resume={"ok": True}, durability="exit")
    assert second.output["paid"] == "paid 5"


async def test_a_human_nodes_answer_goes_where_it_is_said():
    @Graph(id="g")
    class Open:
        @human_node("Which?")
        def choose(self, state): ...

    for answer, wanted in [("red", {"choose": "red"}), ({"colour": "red"}, {"colour": "red"})]:
        graph = Open()
        asked = await graph.arun({}, thread_id="t")
        assert asked.interrupts[0]["value"] == {"prompt": "Which?"}
        assert (await graph.arun(thread_id="t", resume=answer)).output == wanted

    @Graph(id="g")
    class Named:
        @human_node(output="picked")
        def choose(self, state):
            return "Pick one"

    graph = Named()
    asked = await graph.arun({}, thread_id="t")
    assert asked.interrupts[0]["value"] == {"prompt": "Pick one"}
    assert (await graph.arun(thread_id="t", resume={"a": 1})).output == {"picked": {"a": 1}}


async def test_an_answer_to_a_question_that_was_put_aside_is_taken_when_it_comes_again():
    graph = toys.Interrupting()
    await graph.arun({"request": "x", "times": 2}, thread_id="t")
    thread = graph.local.thread("t")
    assert thread.head is not None
    # An update from outside: a new checkpoint with the same node next, on which nobody asked anything yet.
    head, fresh = thread.checkpoints[thread.head], ordered_id(thread.head)
    [task] = again(fresh, [task_from(task) for task in head["tasks"]])
    changed = {"parent_checkpoint_id": thread.head, "checkpoint_id": fresh, "channels": {"request": {"set": "z"}}}
    thread.store({**head, **changed, "tasks": [task.item()], "step": head["step"] + 1})  # type: ignore[typeddict-item]  # a checkpoint's keys
    thread.head = fresh
    result = await graph.arun(thread_id="t", resume="yes")
    assert (result.output["answers"], result.output["request"]) == (["yes"], "z")
    assert [q["value"]["number"] for q in result.interrupts] == [2], "and only that one"
