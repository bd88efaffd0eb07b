"""Crons over HTTP: their forms, their faults, and that the minute makes their runs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from duragraph import jobs
from duragraph.errors import Invalid
from duragraph.schedules import parse
from tests.api.conftest import Live, Serving
from tests.api.scripted import MISSING, Api
from tests.waiting import wait_for_async

YEARLY = "0 0 1 1 *"


@pytest.fixture(autouse=True)
async def _graph(api: Api) -> None:
    await api.worker()


async def create(api: Api, thread: str | None = None, status: int = 200, **body: object) -> dict[str, Any]:
    path = f"/threads/{thread}/runs/crons" if thread else "/runs/crons"
    made: dict[str, Any] = await api.call(
        "POST", path, {"assistant_id": api.graph_id, "schedule": YEARLY, "input": {"n": 1}, **body}, status
    )
    return made


# over HTTP


async def test_a_cron_is_made_read_changed_and_deleted(api: Api) -> None:
    made = await create(api, metadata={"tag": "x"}, end_time="2100-01-01")
    path = f"/runs/crons/{made['cron_id']}"
    assert (made["schedule"], made["thread_id"], made["enabled"], made["timezone"]) == (YEARLY, None, True, None)
    assert made["next_run_date"].endswith("-01-01T00:00:00+00:00")
    assert made["end_time"] == "2100-01-01T00:00:00.000000+00:00"
    assert made["payload"]["input"] == {"n": 1}
    assert made["payload"]["config"]["configurable"] == {"cron_id": made["cron_id"]}
    assert await api.call("GET", path) == made
    changed = await api.call("PATCH", path, {"schedule": "0 12 * * *", "enabled": False, "end_time": None})
    assert (changed["schedule"], changed["enabled"], changed["end_time"]) == ("0 12 * * *", False, None)
    assert "T12:00:00" in changed["next_run_date"]
    moved = await api.call("PATCH", f"/api/v1{path}", {"timezone": "Asia/Tokyo"})
    assert "T03:00:00" in moved["next_run_date"]
    assert "T12:00:00" in (await api.call("PATCH", path, {"timezone": None}))["next_run_date"]
    assert await api.call("DELETE", path, status=204) is None
    for method, body in (("GET", None), ("DELETE", None), ("PATCH", {"enabled": True})):
        assert await api.refused(method, path, body, 404) == ("cron_not_found", "cron_id")


async def test_the_published_sdk_gets_json_for_a_deletion(api: Api) -> None:
    made = await create(api)
    headers = {"Content-Type": "application/json"}
    assert await api.call("DELETE", f"/api/v1/runs/crons/{made['cron_id']}", headers=headers) == {}


async def test_crons_are_searched_in_pages_and_counted(api: Api) -> None:
    thread = await api.thread()
    first = await create(api, thread, multitask_strategy="interrupt", metadata={"of": thread})
    second = await create(api, thread, metadata={"of": thread}, enabled=False)
    assert (first["on_run_completed"], first["payload"]["multitask_strategy"]) == (None, "interrupt")
    page = await api.http.post("/runs/crons/search", json={"thread_id": thread, "limit": 1})
    assert [one["cron_id"] for one in page.json()] == [second["cron_id"]]
    assert (page.headers["x-pagination-total"], page.headers["x-pagination-next"]) == ("2", "1")
    found = {"metadata": {"of": thread}, "enabled": True, "select": ["cron_id"]}
    assert await api.call("POST", "/runs/crons/search", found) == [{"cron_id": first["cron_id"]}]
    assert await api.call("POST", "/runs/crons/count", {"thread_id": thread}) == 2
    by_assistant = await api.call("POST", "/api/v1/runs/crons/search", {"assistant_id": first["assistant_id"]})
    assert len(by_assistant) == 2
    await api.call("DELETE", f"/threads/{thread}", status=204)
    assert await api.call("POST", "/runs/crons/count", {"thread_id": thread}) == 0


BAD = [
    ({"schedule": "whenever"}, "schedule", "invalid_schedule"),
    ({"schedule": "* * * *"}, "schedule", "invalid_schedule"),
    ({"schedule": "1-99999999 * * * *"}, "schedule", "invalid_schedule"),
    ({"schedule": "* " * 5000}, "schedule", "invalid_schedule"),
    ({"schedule": "0 0 30 2 *"}, "schedule", "invalid_schedule"),
    ({"schedule": 5}, "schedule", "invalid_field"),
    ({"schedule": None}, "schedule", "invalid_field"),
    ({"timezone": "Mars/Olympus"}, "timezone", "invalid_timezone"),
    ({"timezone": "../../etc/passwd"}, "timezone", "invalid_timezone"),
    ({"timezone": ""}, "timezone", "invalid_timezone"),
    ({"end_time": "tomorrow"}, "end_time", "invalid_field"),
    ({"enabled": "yes"}, "enabled", "invalid_field"),
    ({"on_run_completed": "frame"}, "on_run_completed", "invalid_field"),
    ({"multitask_strategy": "queue"}, "multitask_strategy", "invalid_field"),
    ({"metadata": [1]}, "metadata", "invalid_field"),
    ({"input": {"a": "\u0000"}}, "input.a", "invalid_text"),
    ({"webhook": "not an address"}, "webhook", "invalid_webhook"),
]


@pytest.mark.parametrize(("wrong", "field", "code"), BAD, ids=lambda value: json.dumps(value)[:40])
async def test_what_is_wrong_is_named_and_leaves_nothing(api: Api, wrong: dict, field: str, code: str) -> None:
    thread = await api.thread()
    good = {"assistant_id": api.graph_id, "schedule": YEARLY}
    assert await api.refused("POST", f"/threads/{thread}/runs/crons", good | wrong) == (code, field)
    assert await api.call("POST", "/runs/crons/count", {"thread_id": thread}) == 0
    made = await create(api, thread)
    if wrong != {"schedule": None}:
        assert await api.refused("PATCH", f"/runs/crons/{made['cron_id']}", wrong) == (code, field)
    assert await api.call("GET", f"/runs/crons/{made['cron_id']}") == made


async def test_what_is_not_there_is_404_and_an_empty_patch_400(api: Api) -> None:
    body = {"assistant_id": "nope", "schedule": YEARLY}
    assert await api.refused("POST", "/runs/crons", body, 404) == ("assistant_not_found", "assistant_id")
    body["assistant_id"] = api.graph_id
    assert await api.refused("POST", f"/threads/{MISSING}/runs/crons", body, 404) == ("thread_not_found", "thread_id")
    made = await create(api)
    assert await api.refused("PATCH", f"/runs/crons/{made['cron_id']}", {}, 400) == ("empty_patch", None)
    both = {**body, "context": {"a": 1}, "config": {"configurable": {"b": 1}}}
    assert (await api.refused("POST", "/runs/crons", both, 400))[1] == "context"
    assert await api.refused("GET", "/runs/crons/no-id") == ("invalid_uuid", "cron_id")
    assert await api.refused("POST", "/runs/crons/search", {"sort_by": "payload"}) == ("invalid_field", "sort_by")
    assert await api.refused("POST", "/runs/crons/search", {"limit": 0}) == ("invalid_field", "limit")


async def test_changes_of_schedule_and_zone_that_meet_agree_on_the_next_tick(api: Api) -> None:
    made = await create(api, schedule="0 1 * * *")
    path = f"/runs/crons/{made['cron_id']}"
    await asyncio.gather(
        *(api.call("PATCH", path, {"schedule": f"0 {hour} * * *"}) for hour in (5, 12)),
        *(api.call("PATCH", path, {"timezone": zone}) for zone in ("Asia/Tokyo", "America/New_York")),
    )
    now = await api.call("GET", path)
    tick = datetime.fromisoformat(now["next_run_date"])
    assert tick == parse(now["schedule"], now["timezone"]).next_after(datetime.now(UTC))


# the minute


@asynccontextmanager
async def firing(live: Live) -> AsyncIterator[Api]:
    async with Api.of(live.url, live.dsn) as api:
        await api.worker()
        yield api


@pytest.mark.slow
async def test_the_minute_makes_the_run(serving: Serving) -> None:
    with serving() as live:
        async with firing(live) as api:
            made = await create(api, await api.thread(), schedule="* * * * *", metadata={"m": 1})
            tick = datetime.fromisoformat(made["next_run_date"])

            async def fired() -> list[dict[str, Any]]:
                runs: list[dict[str, Any]] = await api.call("GET", f"/threads/{made['thread_id']}/runs")
                return runs

            [run] = await wait_for_async(fired, timeout=75, what="the cron's run")
    assert datetime.fromisoformat(run["created_at"]) - tick < timedelta(seconds=5)
    assert (run["metadata"]["m"], run["metadata"]["cron_id"]) == (1, made["cron_id"])
    assert run["kwargs"]["config"]["configurable"]["cron_id"] == made["cron_id"]


async def test_ten_thousand_due_crons_are_fired_once_each_by_two_processes(serving: Serving) -> None:
    with serving() as live:
        async with firing(live) as api:
            made = await create(api, schedule="* * * * *", enabled=False)
            api.rows(
                "insert into duragraph.crons (tenant_id, cron_id, assistant_id, schedule, on_run_completed, payload,"
                " next_run_date) select 1, duragraph.make_id(), %s, '* * * * *', 'delete', '{}', now()"
                " from generate_series(1, 10000) returning 1",
                made["assistant_id"],
            )
            deps = live.deps
            done = [
                asyncio.run_coroutine_threadsafe(jobs.fire_crons(deps.store, deps.hub), live.app.loop) for _ in range(2)
            ]
            await asyncio.gather(*map(asyncio.wrap_future, done))
            await asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(jobs.fire_crons(deps.store, deps.hub), live.app.loop)
            )
            counted = "select count(*), count(distinct metadata ->> 'cron_id') from duragraph.runs"
            assert api.rows(counted) == [(10000, 10000)]


# schedules


def ticks(schedule: str, zone: str | None, start: str, count: int) -> list[str]:
    """The ticks after a time, in the zone's own clock."""
    parsed, moment, found = parse(schedule, zone), datetime.fromisoformat(start), []
    for _ in range(count):
        moment = parsed.next_after(moment)
        found.append(moment.astimezone(parsed.zone).strftime("%d %H:%M %z"))
    return found


def test_a_skipped_time_fires_so_much_later_once() -> None:
    found = ticks("30 2 * * *", "America/New_York", "2026-03-07T00:00+00:00", 3)
    assert found == ["07 02:30 -0500", "08 03:30 -0400", "09 02:30 -0400"]


def test_a_repeated_time_fires_the_first_time_only() -> None:
    found = ticks("30 1 * * *", "America/New_York", "2026-10-31T00:00+00:00", 3)
    assert found == ["31 01:30 -0400", "01 01:30 -0400", "02 01:30 -0500"]


def test_every_half_hour_goes_by_elapsed_time() -> None:
    assert ticks("*/30 * * * *", "America/New_York", "2026-03-08T06:00+00:00", 3) == [
        "08 01:30 -0500",
        "08 03:00 -0400",
        "08 03:30 -0400",
    ]
    assert ticks("*/30 * * * *", "America/New_York", "2026-11-01T05:00+00:00", 4) == [
        "01 01:30 -0400",
        "01 01:00 -0500",
        "01 01:30 -0500",
        "01 02:00 -0500",
    ]


def test_a_tick_that_begins_in_the_skipped_hour_is_not_lost_between() -> None:
    # Asked just after the clocks were set forward: the time of 02:30 is yet to come.
    assert ticks("30 2 * * *", "America/New_York", "2026-03-08T07:10+00:00", 1) == ["08 03:30 -0400"]


@pytest.mark.parametrize(
    ("zone", "month"),
    [("Europe/Berlin", 3), ("Europe/Berlin", 10), ("Australia/Lord_Howe", 4), ("America/Sao_Paulo", 1)],
)
@pytest.mark.parametrize("schedule", ["15 1 * * *", "30 2 * * *", "45 1 * * *", "0 0 * * *", "59 23 * * *"])
def test_a_daily_cron_fires_once_a_day_all_month(schedule: str, zone: str, month: int) -> None:
    days = [tick.split()[0] for tick in ticks(schedule, zone, f"2026-{month:02}-01T12:00+00:00", 28)]
    assert len(set(days)) == 28


def test_a_sixth_field_is_taken_and_fires_by_the_minute() -> None:
    assert ticks("* * * * * */10", None, "2026-03-08T06:00:30+00:00", 2) == ["08 06:01 +0000", "08 06:02 +0000"]
    assert ticks("@hourly", None, "2026-03-08T06:00:30+00:00", 1) == ["08 07:00 +0000"]
    assert ticks("0 9 * * mon-FRI", None, "2026-03-07T00:00+00:00", 1) == ["09 09:00 +0000"]


HOSTILE = [
    "0-99999999999 * * * *",
    "*/0 * * * *",
    "R * * * *",
    "H H * * *",
    "r(0-59) * * * *",
    "@reboot",
    "0 0 30 2 *",
    "0 0 31 4,6,9,11 *",
    "\u0661 * * * *",
    ",".join(["0-59"] * 40) + " * * * *",
    "-" * 200,
    "* * * * mon#9",
    "0 0 * * * * 2030",
    "1" * 100_000,
    "* " * 100_000,
    "",
]


@pytest.mark.parametrize("schedule", HOSTILE, ids=lambda value: value[:20])
def test_a_hostile_schedule_is_refused_cheaply(schedule: str) -> None:
    def read() -> None:
        with pytest.raises(Invalid, match="schedule"):
            parse(schedule, None).next_after(datetime.now(UTC))

    assert cpu_of(read) < 0.02


def test_an_ordinary_schedule_costs_a_millisecond_at_most() -> None:
    assert cpu_of(lambda: parse("*/5 9-17 * * mon-fri", "Europe/Berlin").next_after(datetime.now(UTC))) < 0.01


def cpu_of(act: Any) -> float:
    """The least processor time of a few tries, in seconds: others may be using the machine."""
    spent = []
    for _ in range(5):
        began = time.thread_time()
        act()
        spent.append(time.thread_time() - began)
    return min(spent)
