"""Crons: create, on a thread and without one, read, change, search, count, delete."""

from __future__ import annotations

from datetime import UTC, datetime, time
from uuid import UUID

import orjson
from falcon import HTTP_204
from falcon.asgi import Request, Response

from duragraph.api.assistants import answer_page
from duragraph.api.http import answer_json, path_uuid, read_json
from duragraph.api.runs import check_context
from duragraph.deps import Deps
from duragraph.errors import Conflict, Malformed
from duragraph.resource_models import CronBase, CronCount, CronCreate, CronPatch, CronSearch
from duragraph.schedules import parse

Route = tuple[str, object, str | None]

_TRIES = 10


def routes(deps: Deps) -> list[Route]:
    """The paths of this resource."""
    crons = Crons(deps)
    return [
        ("/runs/crons", crons, None),
        ("/threads/{thread_id}/runs/crons", crons, "thread"),
        ("/runs/crons/search", crons, "search"),
        ("/runs/crons/count", crons, "count"),
        ("/runs/crons/{cron_id}", crons, "one"),
    ]


class Crons:
    """Schedules that make runs."""

    def __init__(self, deps: Deps) -> None:
        self._store = deps.store
        self._tenant = deps.tenant
        self._check_webhook = deps.check_webhook

    async def on_post(self, req: Request, resp: Response) -> None:
        """Create a cron that makes a new thread each time."""
        asked, raw = await read_json(req, CronCreate)
        await self._create(resp, None, asked, raw)

    async def on_post_thread(self, req: Request, resp: Response, thread_id: str) -> None:
        """Create a cron of a thread."""
        thread = path_uuid(thread_id, "thread_id")
        asked, raw = await read_json(req, CronCreate)
        await self._create(resp, thread, asked, raw)

    async def on_get_one(self, req: Request, resp: Response, cron_id: str) -> None:
        """Get a cron."""
        answer_json(resp, await self._store.get_cron(self._tenant, _id(cron_id)))

    async def on_patch_one(self, req: Request, resp: Response, cron_id: str) -> None:
        """Change a cron; its next tick is computed anew."""
        cron = _id(cron_id)
        asked, raw = await read_json(req, CronPatch)
        if not asked.model_fields_set:
            raise Malformed(
                "There is nothing to change.", code="empty_patch", hint="Send at least one field of a cron."
            )
        check_context(asked)
        self._check_webhook(asked.webhook)
        for _ in range(_TRIES):
            known = await self._store.cron_timing(self._tenant, cron)
            timezone = asked.timezone if "timezone" in asked.model_fields_set else known["timezone"]
            now = datetime.fromisoformat(known["now"])
            timing = _timing(asked, asked.schedule or known["schedule"], timezone, now)
            if (changed := await self._store.update_cron(self._tenant, cron, raw, timing)) is not None:
                return answer_json(resp, changed)
        raise Conflict("The cron keeps being changed by others.", code="cron_busy", hint="Send it again.")

    async def on_delete_one(self, req: Request, resp: Response, cron_id: str) -> None:
        """Delete a cron; the runs it made stay."""
        await self._store.delete_cron(self._tenant, _id(cron_id))
        resp.status = HTTP_204

    async def on_post_search(self, req: Request, resp: Response) -> None:
        """Find crons."""
        _, raw = await read_json(req, CronSearch)
        answer_page(resp, await self._store.search_crons(self._tenant, raw))

    async def on_post_count(self, req: Request, resp: Response) -> None:
        """Count crons."""
        _, raw = await read_json(req, CronCount)
        answer_json(resp, await self._store.count_crons(self._tenant, raw))

    async def _create(self, resp: Response, thread: UUID | None, asked: CronCreate, raw: bytes) -> None:
        check_context(asked)
        self._check_webhook(asked.webhook)
        parse(asked.schedule, asked.timezone)
        timing = _timing(asked, asked.schedule, asked.timezone, await self._store.now())
        answer_json(resp, await self._store.create_cron(self._tenant, thread, raw, timing))


def _timing(asked: CronBase, schedule: str, timezone: str | None, now: datetime) -> bytes:
    """What SQL is told of a cron's times: it does not read schedules, nor all the forms of a date."""
    end = asked.end_time
    if end is not None and not isinstance(end, datetime):
        end = datetime.combine(end, time())
    return orjson.dumps(
        {
            "schedule": schedule,
            "timezone": timezone,
            "end_time": end and (end if end.tzinfo else end.replace(tzinfo=UTC)),
            "next_run_date": parse(schedule, timezone).next_after(now),
        }
    )


def _id(cron_id: str) -> UUID:
    return path_uuid(cron_id, "cron_id")
