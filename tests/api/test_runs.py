"""Runs over HTTP: create, wait, join, list, get, delete, batch, cancel."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID, uuid4

import pytest

from duragraph.models import RUN_FIELDS
from tests.api.conftest import Live
from tests.api.scripted import MISSING, Api, Work, echo
from tests.waiting import wait_for_async


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
async def test_a_created_run_is_joined_for_its_values(api: Api, prefix: str) -> None:
    async with api.working(echo):
        thread = await api.thread()
        response = await api.http.post(
            f"{prefix}/threads/{thread}/runs",
            json={"assistant_id": api.graph_id, "input": {"n": 2}, "metadata": {"m": 1}},
        )
        run = response.json()
        assert response.headers["content-location"] == f"/threads/{thread}/runs/{run['run_id']}"
        assert (run["status"], run["thread_id"], run["metadata"]["m"]) == ("pending", thread, 1)
        path = f"{prefix}/threads/{thread}/runs/{run['run_id']}"
        assert await api.call("GET", f"{path}/join") == {"seen": {"n": 2}}
        assert (await api.call("GET", path))["status"] == "success"
        assert await api.call("GET", f"{path}/wait") == {"seen": {"n": 2}}, "and again when done"


async def test_wait_names_where_to_go_on(api: Api) -> None:
    async with api.working(echo):
        thread = await api.thread()
        response = await api.http.post(f"/threads/{thread}/runs/wait", json={"assistant_id": api.graph_id})
        assert response.json() == {"seen": None}
        place = response.headers["content-location"]
        assert place.startswith(f"/threads/{thread}/runs/")
        assert response.headers["location"] == f"{place}/join"


async def test_a_stateless_run_gives_its_output_and_leaves_no_thread(api: Api) -> None:
    async with api.working(echo):
        response = await api.http.post("/runs/wait", json={"assistant_id": api.graph_id, "input": 7})
        assert response.json() == {"seen": 7}
        place = response.headers["content-location"]
        assert await api.call("GET", f"{place}/join") == {"seen": 7}
        assert await api.call("GET", f"/runs/{place.rsplit('/', 1)[1]}/join") == {"seen": 7}
        await api.refused("GET", place.split("/runs/")[0], status=404)


async def test_wait_returns_at_once_when_the_run_ends(api: Api) -> None:
    ended = 0.0

    async def slowly(work: Work) -> None:
        nonlocal ended
        await work.end()
        ended = time.perf_counter()

    async with api.working(slowly):
        took = []
        for _ in range(10):
            await api.call("POST", "/runs/wait", {"assistant_id": api.graph_id})
            took.append(time.perf_counter() - ended)
        assert min(took) < 0.05


async def test_a_failed_run_is_told_in_the_answer_of_wait(api: Api) -> None:
    async def fail(work: Work) -> None:
        error = {"error": "ValueError", "message": "kaboom"}
        await work.write(events=[{"event": "error", "data": error}], end={"status": "error", "error": error})

    async with api.working(fail):
        thread = await api.thread()
        answer = await api.call("POST", f"/threads/{thread}/runs/wait", {"assistant_id": api.graph_id})
        assert answer == {"__error__": {"error": "ValueError", "message": "kaboom"}}
        assert (await api.call("GET", f"/threads/{thread}"))["status"] == "error"


async def test_runs_of_a_thread_newest_first(api: Api) -> None:
    await api.worker()
    thread = await api.thread()
    made = [(await api.run(thread))["run_id"] for _ in range(3)]
    path = f"/threads/{thread}/runs"
    assert [run["run_id"] for run in await api.call("GET", path)] == made[::-1]
    assert [run["run_id"] for run in await api.call("GET", f"{path}?limit=1&offset=1")] == [made[1]]
    assert await api.call("GET", f"{path}?status=success") == []
    assert len(await api.call("GET", f"{path}?status=pending")) == 3
    assert set((await api.call("GET", f"{path}?select=run_id&select=status"))[0]) == {"run_id", "status"}
    assert await api.call("GET", f"{path}?select=") == [{}] * len(await api.call("GET", path))
    assert set((await api.call("GET", path))[0]) == set(RUN_FIELDS)
    assert (await api.call("GET", "/runs?limit=1"))["total"] == 1


async def test_deleting_a_run_removes_it_and_frees_its_thread(api: Api) -> None:
    worker = await api.worker()
    thread = await api.thread()
    first, second = await api.run(thread), await api.run(thread)
    work = await worker.claim()
    assert work.run_id == first["run_id"]
    await api.call("DELETE", f"/threads/{thread}/runs/{first['run_id']}", status=204)
    await api.refused("GET", f"/threads/{thread}/runs/{first['run_id']}", status=404)
    assert (await work.end())["reason"] == "lease_lost"
    assert (await worker.claim()).run_id == second["run_id"]


async def test_a_batch_is_made_whole_in_order(api: Api) -> None:
    await api.worker()
    runs = await api.call("POST", "/runs/batch", [{"assistant_id": api.graph_id, "input": {"n": n}} for n in range(5)])
    assert [run["kwargs"]["input"]["n"] for run in runs] == list(range(5))
    assert len({run["run_id"] for run in runs}) == 5


async def test_a_batch_with_a_bad_one_makes_none(api: Api) -> None:
    await api.worker()
    before = api.rows("select count(*) from duragraph.runs")
    good, bad = {"assistant_id": api.graph_id}, {"assistant_id": MISSING}
    assert await api.refused("POST", "/runs/batch", [good, bad], 404) == ("assistant_not_found", "assistant_id")
    assert await api.refused("POST", "/runs/batch", []) == ("invalid_field", None)
    assert await api.refused("POST", "/runs/batch", [good, {"assistant_id": 3}]) == ("invalid_field", "1.assistant_id")
    assert api.rows("select count(*) from duragraph.runs") == before


async def test_many_creates_at_once_each_get_their_own_answer(api: Api) -> None:
    await api.worker()
    thread = await api.thread()

    async def one(n: int) -> object:
        if n % 5 == 0:
            return await api.refused("POST", "/runs", {"assistant_id": f"no-such-{n}"})
        return (await api.run(thread if n % 2 else None, input={"n": n}))["kwargs"]["input"]["n"]

    answers = await asyncio.gather(*map(one, range(60)))
    assert answers == [("graph_not_found", "assistant_id") if n % 5 == 0 else n for n in range(60)]


async def test_numbers_come_back_as_they_went(api: Api) -> None:
    exact = '{"n":12345678901234567890123456789,"f":1.0000000000000000000001}'
    await api.worker()

    async def one(_: int) -> str:
        body = f'{{"assistant_id":"{api.graph_id}","input":{exact}}}'
        return (await api.http.post("/runs", content=body)).text

    assert all(exact in text for text in await asyncio.gather(*map(one, range(8))))


async def test_an_idempotency_key_gives_the_same_run_again(api: Api) -> None:
    await api.worker()
    thread = await api.thread()
    key = {"Idempotency-Key": uuid4().hex}
    body = {"assistant_id": api.graph_id, "input": {"n": 1}}
    path = f"/threads/{thread}/runs"
    first = await api.call("POST", path, body, headers=key)
    assert (await api.call("POST", path, body, headers=key))["run_id"] == first["run_id"]
    other = {**body, "input": {"n": 2}}
    assert await api.refused("POST", path, other, headers=key) == ("idempotency_key_reused", "Idempotency-Key")
    assert await api.refused("POST", path, body, headers={"Idempotency-Key": "x" * 256}) == (
        "invalid_field",
        "Idempotency-Key",
    )


async def test_a_repeated_key_does_not_stop_the_run_that_it_made(api: Api) -> None:
    worker = await api.worker()
    thread = await api.thread()
    path, headers = f"/threads/{thread}/runs", {"Idempotency-Key": uuid4().hex}
    body = {"assistant_id": api.graph_id, "multitask_strategy": "interrupt"}
    made = await api.call("POST", path, body, headers=headers)
    work = await worker.claim()
    again = await api.call("POST", path, body, headers=headers)
    assert (again["run_id"], again["status"]) == (made["run_id"], "running")
    assert (await worker.poll(1, 0.2, (work.token,)))["lost"] == []
    await work.step({"n": 1}, end={"status": "success"})


async def test_the_request_id_reaches_the_graph(api: Api) -> None:
    worker = await api.worker()
    response = await api.http.post("/runs", json={"assistant_id": api.graph_id}, headers={"X-Request-ID": "abc-1"})
    assert response.headers["x-request-id"] == "abc-1"
    work = await worker.claim()
    assert work.claim["kwargs"]["config"]["configurable"]["langgraph_request_id"] == "abc-1"


async def test_if_not_exists_makes_the_thread(api: Api) -> None:
    async with api.working(echo):
        thread = str(uuid4())
        body = {"assistant_id": api.graph_id, "input": 1, "if_not_exists": "create"}
        assert await api.call("POST", f"/threads/{thread}/runs/wait", body) == {"seen": 1}
        assert (await api.call("GET", f"/threads/{thread}"))["status"] == "idle"


async def test_reject_refuses_a_second_run(api: Api) -> None:
    await api.worker()
    thread = await api.thread()
    await api.run(thread)
    body = {"assistant_id": api.graph_id, "multitask_strategy": "reject"}
    assert await api.refused("POST", f"/threads/{thread}/runs", body, 409) == ("thread_busy", "multitask_strategy")
    assert len(await api.call("GET", f"/threads/{thread}/runs")) == 1


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
async def test_a_superseding_run_stops_the_first_and_its_worker(api: Api, live: Live, strategy: str) -> None:
    worker = await api.worker()
    thread = await api.thread()
    first = await api.run(thread)
    work = await worker.claim()
    held = asyncio.create_task(worker.poll(1, 20, (work.token,)))
    waiting = asyncio.create_task(api.http.get(f"/threads/{thread}/runs/{first['run_id']}/join"))
    await live.holds(1)
    await live.reads(1)
    second = await api.run(thread, multitask_strategy=strategy)
    answer = await asyncio.wait_for(held, 5)
    told = answer["lost"] or [work.token] * (answer["runs"][0]["run_id"] == second["run_id"])
    assert told == [work.token]
    assert (await asyncio.wait_for(waiting, 5)).json() == {}
    assert (await work.step({"late": 1}))["reason"] == "lease_lost"
    if strategy == "rollback":
        await api.refused("GET", f"/threads/{thread}/runs/{first['run_id']}", status=404)
    else:
        assert await api.run_status(first) == "interrupted"


async def test_a_delayed_run_starts_when_it_is_due(api: Api) -> None:
    async with api.working(echo):
        thread = await api.thread()
        began = time.monotonic()
        run = await api.run(thread, after_seconds=1)
        assert await api.run_status(run) == "pending"
        await api.call("GET", f"/threads/{thread}/runs/{run['run_id']}/join")
        assert 0.9 <= time.monotonic() - began < 4


async def test_cancel_ends_a_running_run_at_once(api: Api, live: Live) -> None:
    worker = await api.worker()
    thread = await api.thread()
    run = await api.run(thread)
    work = await worker.claim()
    await work.step({"done": 1}, "a")
    held = asyncio.create_task(worker.poll(1, 20, (work.token,)))
    await live.holds(1)
    path = f"/threads/{thread}/runs/{run['run_id']}"
    response = await api.http.post(f"{path}/cancel")
    assert (response.status_code, response.text) == (202, "")
    assert (await asyncio.wait_for(held, 2)) == {"runs": [], "lost": [work.token]}, "the held poll says so at once"
    assert await api.run_status(run) == "interrupted"
    assert (await work.step({"late": 1})) == {
        "run_id": work.run_id,
        "token": work.token,
        "ok": False,
        "reason": "lease_lost",
    }
    assert await api.call("GET", f"{path}/join") == {"done": 1}
    assert await api.refused("POST", f"{path}/cancel", status=404) == ("run_not_found", "run_id")


async def test_cancel_with_wait_answers_the_output(api: Api) -> None:
    worker = await api.worker()
    thread = await api.thread()
    run = await api.run(thread)
    work = await worker.claim()
    await work.step({"done": 1}, "a")
    path = f"/threads/{thread}/runs/{run['run_id']}"
    response = await api.http.post(f"{path}/cancel?wait=1&action=interrupt")
    assert response.json() == {"done": 1}
    assert (response.headers["content-location"], response.headers["location"]) == (path, f"{path}/join")
    run = await api.run(thread)
    await (await worker.claim()).step({"done": 2}, "a")
    path = f"/threads/{thread}/runs/{run['run_id']}"
    assert await api.call("POST", f"{path}/cancel?wait=true&action=rollback") == {}
    await api.refused("GET", path, status=404)
    assert (await api.call("GET", f"/threads/{thread}/state"))["values"] == {"done": 1}


async def test_cancel_many(api: Api) -> None:
    await api.worker()
    thread = await api.thread()
    runs = [await api.run(thread) for _ in range(3)]
    ids = [run["run_id"] for run in runs]
    await api.call("POST", "/runs/cancel", {"thread_id": thread, "run_ids": ids[:2]}, 204)
    assert [await api.run_status(run) for run in runs] == ["interrupted", "interrupted", "pending"]
    assert await api.refused("POST", "/runs/cancel", {"run_ids": ids[:2]}, 404) == ("run_not_found", None)
    both = {"run_ids": ids, "status": "all"}
    assert await api.refused("POST", "/runs/cancel", both) == ("invalid_field", "run_ids")
    assert await api.refused("POST", "/runs/cancel", {}) == ("invalid_field", "run_ids")
    assert await api.refused("POST", "/runs/cancel?action=kill", {"run_ids": ids}) == ("invalid_parameter", "action")


async def test_wait_with_on_disconnect_cancel_cancels_when_the_client_goes(api: Api) -> None:
    worker = await api.worker()
    thread = await api.thread()
    body = {"assistant_id": api.graph_id, "on_disconnect": "cancel"}
    async with api.http.stream("POST", f"/threads/{thread}/runs/wait", json=body) as response:
        assert response.status_code == 200
        await worker.claim()
    [run] = await api.call("GET", f"/threads/{thread}/runs")

    async def interrupted() -> bool:
        return await api.run_status(run) == "interrupted"

    await wait_for_async(interrupted, what="the run's cancellation")


async def test_run_ids_sort_by_time(api: Api) -> None:
    await api.worker()
    ids = [(await api.run(None))["run_id"] for _ in range(5)]
    assert sorted(ids, key=lambda run: UUID(run).int >> 80) == ids


async def test_a_run_without_a_thread_has_nothing_to_resume(api: Api) -> None:
    body = {"assistant_id": api.graph_id, "command": {"resume": False}}
    for path, sent in (("/runs", body), ("/runs/wait", body), ("/runs/stream", body), ("/runs/batch", [body])):
        assert await api.refused("POST", path, sent, 400) == ("resume_without_thread", "command.resume")


async def test_a_run_has_context_or_configurable(api: Api) -> None:
    both = {"assistant_id": api.graph_id, "context": {"a": 1}, "config": {"configurable": {"a": 1}}}
    for path in (f"/threads/{await api.thread()}/runs", "/runs"):
        assert await api.refused("POST", path, both, 400) == ("context_and_configurable", "context")


async def test_a_kept_run_without_a_thread_can_be_read_afterwards(api: Api) -> None:
    async with api.working(echo):
        body = {"assistant_id": api.graph_id, "input": {"n": 1}, "on_completion": "keep"}
        response = await api.http.post("/runs/wait", json=body)
        thread = response.headers["content-location"].split("/runs/")[0]
        assert response.json() == {"seen": {"n": 1}}
        assert (await api.call("GET", thread))["values"] == {"seen": {"n": 1}}


async def test_a_stateless_run_is_named_without_its_thread(api: Api) -> None:
    await api.worker()
    response = await api.http.post("/runs", json={"assistant_id": api.graph_id})
    run = response.json()
    assert response.headers["content-location"] == f"/runs/{run['run_id']}"
    assert run["langsmith_session_name"] is None
