"""The worker protocol over HTTP: registration, claims, fences, lost leases, drain."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

import pytest

from tests.api.conftest import Live
from tests.api.scripted import Api, Work, Worker, echo
from tests.waiting import wait_for_async


async def test_registration_tells_the_pace(api: Api) -> None:
    worker = await api.worker(lease_seconds=12)
    told = worker.registered
    assert (told["lease_seconds"], told["heartbeat_seconds"], told["poll_seconds"]) == (12, 4, 25)
    assert told["graph_ids"] == [api.graph_id]
    [seen] = [one for one in (await api.call("GET", "/workers"))["workers"] if one["worker_id"] == worker.worker_id]
    assert (seen["status"], seen["graphs"]) == ("active", [api.graph_id])
    assert await api.call("GET", worker.path) == seen
    graph = await api.call("GET", f"/workers/graphs/{api.graph_id}")
    assert graph["entry_point"] == "a"
    again = worker.registered["worker_key"]
    await worker.register()
    assert worker.registered["worker_key"] == again, "registering again is harmless"


async def test_a_claim_holds_until_a_run_comes(api: Api, live: Live) -> None:
    worker = await api.worker()
    held = asyncio.create_task(worker.claim(20))
    await live.holds(1)
    began = time.monotonic()
    run = await api.run(None)
    work = await asyncio.wait_for(held, 5)
    assert work.run_id == run["run_id"]
    assert time.monotonic() - began < 1, "by a notification, not by polling"


async def test_a_claim_answers_in_time_when_nothing_comes(api: Api) -> None:
    worker = await api.worker()
    began = time.monotonic()
    assert await worker.poll(1, 0.3) == {"runs": [], "lost": []}
    assert 0.25 < time.monotonic() - began < 3
    assert await worker.poll(0, 20) == {"runs": [], "lost": []}, "no room: nothing to wait for"


async def test_a_claim_gives_no_more_than_asked_and_none_twice(api: Api) -> None:
    workers = [await api.worker() for _ in range(3)]
    runs = {(await api.run(None))["run_id"] for _ in range(20)}
    got: list[str] = []
    while len(got) < 20:
        answers = await asyncio.gather(*[worker.poll(4, 5) for worker in workers])
        assert all(len(answer["runs"]) <= 4 for answer in answers)
        got += [claim["run_id"] for answer in answers for claim in answer["runs"]]
    assert len(got) == 20
    assert set(got) == runs


async def test_waiting_workers_share_what_is_there(api: Api, live: Live) -> None:
    workers = [await api.worker() for _ in range(2)]
    held = [asyncio.create_task(worker.poll(10, 20)) for worker in workers]
    await live.holds(2)
    body = [{"assistant_id": api.graph_id}] * 10
    await api.call("POST", "/runs/batch", body)
    answers = await asyncio.gather(*held)
    assert [len(answer["runs"]) for answer in answers] == [5, 5]


async def test_a_claim_names_what_to_run(api: Api) -> None:
    worker = await api.worker()
    thread = await api.thread()
    body = {"metadata": {"m": 1}, "config": {"tags": ["t"]}, "stream_mode": ["updates"], "stream_subgraphs": True}
    run = await api.run(thread, **body)
    claim = (await worker.claim()).claim
    assert (claim["run_id"], claim["thread_id"], claim["graph_id"]) == (run["run_id"], thread, api.graph_id)
    assert (claim["attempt"], claim["resumed"], claim["temporary"], claim["journal"]) == (1, False, False, [])
    kwargs = claim["kwargs"]
    assert (kwargs["input"], kwargs["stream_mode"], kwargs["subgraphs"]) == ({"n": 1}, ["updates"], True)
    assert kwargs["config"]["tags"] == ["t"]


async def test_a_repeated_write_is_answered_ok_and_changes_nothing(api: Api) -> None:
    worker = await api.worker()
    run = await api.run(await api.thread(), stream_resumable=True)
    work = await worker.claim()
    write = work.envelope(events=[{"event": "custom", "data": 1}])
    for _ in range(3):
        assert (await worker.write(write))[0]["ok"]
    end = work.envelope(end={"status": "success"})
    for _ in range(2):
        assert (await worker.write(end))[0]["ok"], "also after the end, whose answer may have been lost"
    frames = await api.frames("GET", f"/runs/{run['run_id']}/stream", headers={"Last-Event-ID": "-1"})
    assert [frame.event for frame in frames] == ["metadata", "custom", "end"]


async def test_two_writes_of_one_run_are_refused_however_its_id_is_spelt(api: Api) -> None:
    worker = await api.worker()
    run = await api.run(None)
    work = await worker.claim()
    write = {"token": work.token, "write_no": 1, "events": [{"event": "custom", "data": 1}]}
    writes = [{"run_id": spelt, **write} for spelt in (run["run_id"], run["run_id"].upper())]
    refused = await api.refused("POST", f"/workers/{worker.worker_id}/writes", {"writes": writes})
    assert refused == ("invalid_field", "writes")


@pytest.mark.parametrize(
    "tasks",
    [
        1,
        "x",
        {},
        [1],
        [None],
        [{"name": "n"}],
        [{"id": "urn:uuid:" + str(UUID(int=1)), "name": "n"}],
        [{"id": str(UUID(int=1))}],
    ],
)
async def test_tasks_that_the_next_claim_could_not_read_are_refused(api: Api, tasks: object) -> None:
    worker = await api.worker()
    run = await api.run(None)
    work = await worker.claim()
    checkpoint = {"checkpoint_id": str(UUID(int=5)), "step": 1, "source": "loop", "channels": {}, "tasks": tasks}
    write = {"run_id": run["run_id"], "token": work.token, "write_no": 1, "checkpoints": [checkpoint]}
    refused = await api.refused("POST", f"/workers/{worker.worker_id}/writes", {"writes": [write]})
    assert refused == ("invalid_field", "writes.0")


async def test_a_superseded_attempt_can_write_nothing(api: Api) -> None:
    worker = await api.worker()
    run = await api.run(await api.thread())
    old = await worker.claim()
    await forget(worker, old)
    new = await worker.claim()
    assert (new.run_id, new.claim["attempt"]) == (old.run_id, 2)
    assert new.token != old.token
    late = [
        old.envelope(events=[{"event": "custom", "data": 1}]),
        old.envelope(checkpoints=[old.checkpoint({"x": 1}, [])], checkpoint_id=old.head),
        old.envelope(end={"status": "success"}),
    ]
    for write in late:
        assert (await worker.write(write))[0] == {
            "run_id": old.run_id,
            "token": old.token,
            "ok": False,
            "reason": "lease_lost",
        }
    assert api.rows("select 1 from duragraph.checkpoints where thread_id = %s", run["thread_id"]) == []
    assert (await new.step({"x": 2}, end={"status": "success"}))["ok"]
    assert await api.call("GET", f"/runs/{run['run_id']}/join") == {"x": 2}


async def forget(worker: Worker, work: Work) -> None:
    """The worker says that it does not hold the run, long after it was given it."""
    query = "update duragraph.leases set claimed_at = claimed_at - interval '11 s' where run_id = %s returning 1"
    assert worker.api.rows(query, work.run_id)
    await worker.beat()


async def test_handing_back_spends_no_attempt(api: Api) -> None:
    worker = await api.worker()
    await api.run(None)
    work = await worker.claim()
    await work.end("release")
    again = await worker.claim()
    assert (again.run_id, again.claim["attempt"]) == (work.run_id, 1)


async def test_many_writes_at_once_each_get_their_own_result(api: Api) -> None:
    worker = await api.worker()
    for _ in range(30):
        await api.run(None)
    works = [Work(worker, claim) for claim in (await worker.poll(30, 5))["runs"]]
    assert len(works) == 30

    async def one(n: int, work: Work) -> str:
        if n % 3 == 0:
            return str((await work.write(events=[{"event": "custom", "data": {"bad": "\x00"}}])).get("reason"))
        if n % 3 == 1:
            work.token += 1_000_000
        return str((await work.step({"n": n}, end={"status": "success"})).get("reason"))

    answers = await asyncio.gather(*[one(n, work) for n, work in enumerate(works)])
    assert answers == [("invalid", "lease_lost", "None")[n % 3] for n in range(30)]


async def test_a_bad_write_spoils_no_other_of_its_request(api: Api) -> None:
    worker = await api.worker()
    for _ in range(3):
        await api.run(None)
    works = [Work(worker, claim) for claim in (await worker.poll(3, 5))["runs"]]
    bad = works[1].envelope(checkpoints=[{"checkpoint_id": "no uuid", "channels": {}}])
    results = await worker.write(
        works[0].envelope(end={"status": "success", "output": 1}), bad, works[2].envelope(end={"status": "odd"})
    )
    assert [(result["ok"], result.get("reason")) for result in results] == [
        (True, None),
        (False, "invalid"),
        (False, "invalid"),
    ]
    assert all(result["message"] for result in results[1:])
    assert (await works[1].end())["ok"], "a refused write spent nothing"


async def test_an_expired_lease_goes_to_another_worker_from_the_last_checkpoint(api: Api) -> None:
    worker = await api.worker(lease_seconds=1)
    run = await api.run(await api.thread())
    first = await worker.claim()
    await first.step({"n": 1}, "a")
    api.rows(
        "update duragraph.leases set expires_at = now() - interval '1 s' where run_id = %s returning 1", run["run_id"]
    )
    other = await api.worker()

    async def again() -> Work | None:
        await other.beat()
        runs = (await other.poll(1, 0.2))["runs"]
        return Work(other, runs[0]) if runs else None

    second = await wait_for_async(again, what="the run's second attempt")
    assert (second.run_id, second.claim["attempt"], second.claim["resumed"]) == (run["run_id"], 2, True)
    assert second.claim["checkpoint"]["values"] == {"n": 1}
    assert (await first.step({"n": 9}))["reason"] == "lease_lost"
    assert (await worker.beat(first.token))["lost"] == [first.token]


async def test_a_lease_that_its_worker_does_not_know_is_given_out_again(api: Api) -> None:
    worker = await api.worker()
    await api.run(None)
    work = await worker.claim()
    assert (await worker.beat())["lost"] == []
    api.rows(
        "update duragraph.leases set claimed_at = claimed_at - interval '11 s' where run_id = %s returning 1",
        work.run_id,
    )
    assert (await worker.beat(work.token))["lost"] == []
    await worker.beat()
    assert (await worker.claim()).run_id == work.run_id


async def test_a_run_claimed_for_a_client_that_hung_up_goes_on_to_another(api: Api, live: Live) -> None:
    gone = await api.worker()
    held = asyncio.create_task(gone.poll(1, 20))
    await live.holds(1)
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)
    await live.holds(0)
    await api.run(None)
    other = await api.worker()
    assert (await other.claim(5)).claim["attempt"] == 1


async def test_a_draining_worker_gets_no_more_but_finishes_what_it_has(api: Api) -> None:
    worker = await api.worker()
    await api.run(None)
    work = await worker.claim()
    assert (await api.call("POST", f"{worker.path}/drain"))["status"] == "draining"
    await api.run(None)
    assert (await worker.poll(1, 0.2))["runs"] == []
    assert (await worker.beat(work.token))["status"] == "draining"
    assert (await work.end())["ok"]
    other = await api.worker()
    await other.claim()


async def test_a_worker_that_leaves_hands_back_at_once(api: Api) -> None:
    worker, other = await api.worker(), await api.worker()
    run = await api.run(None)
    await worker.claim()
    held = asyncio.create_task(other.claim(20))
    left = await api.call("DELETE", worker.path)
    assert (left["deregistered"], left["handed_back"]) == (True, 1)
    assert (await asyncio.wait_for(held, 5)).run_id == run["run_id"]
    assert await api.refused("POST", f"{worker.path}/claim", {}, 404) == ("worker_not_found", None)
    await worker.register()
    assert await worker.poll(1, 0) == {"runs": [], "lost": []}


@pytest.mark.parametrize(
    ("ending", "body"),
    [("claim", {"max_runs": 1}), ("writes", {"writes": []}), ("heartbeat", {"held": []}), ("drain", None)],
)
async def test_a_stranger_is_told_to_register(api: Api, ending: str, body: object) -> None:
    code, _ = await api.refused("POST", f"/workers/nobody/{ending}", body, 404)
    assert code == "worker_not_found"


async def test_a_workers_graph_that_another_serves_too_is_served_by_either(api: Api) -> None:
    async with api.working(echo), api.working(echo):
        outputs = await asyncio.gather(
            *[api.call("POST", "/runs/wait", {"assistant_id": api.graph_id, "input": n}) for n in range(20)]
        )
        assert outputs == [{"seen": n} for n in range(20)]
