"""Threads: create, read, change, search, count, copy, prune, delete; what their state takes."""

from __future__ import annotations

from uuid import UUID

import orjson
from falcon import HTTP_204
from falcon.asgi import Request, Response

from duragraph.api.assistants import answer_page, page_request
from duragraph.api.http import answer_json, path_uuid, query_list, read_json
from duragraph.api.updates import update_by_worker
from duragraph.deps import Deps
from duragraph.errors import DuragraphError
from duragraph.resource_models import ThreadCount, ThreadCreate, ThreadPatch, ThreadPrune, ThreadSearch

Route = tuple[str, object, str | None]


def routes(deps: Deps) -> list[Route]:
    """The paths of this resource."""
    threads = Threads(deps)
    return [
        ("/threads", threads, None),
        ("/threads/search", threads, "search"),
        ("/threads/count", threads, "count"),
        ("/threads/prune", threads, "prune"),
        ("/threads/{thread_id}", threads, "one"),
        ("/threads/{thread_id}/copy", threads, "copy"),
        ("/threads/{thread_id}/storage", threads, "storage"),
    ]


class Threads:
    """Conversations: lines of runs over one state each."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._store = deps.store
        self._hub = deps.hub
        self._tenant = deps.tenant
        self._tell_ended = deps.tell_ended

    async def on_post(self, req: Request, resp: Response) -> None:
        """Create a thread."""
        _, raw = await read_json(req, ThreadCreate)
        try:
            answer_json(resp, await self._store.create_thread(self._tenant, raw))
        except DuragraphError as problem:
            if problem.code != "worker_needed":
                raise
            answer_json(resp, await self._create_by_worker(raw))

    async def _create_by_worker(self, raw: bytes) -> bytes:
        """A thread whose history only the graph's code can build: it is made empty, and goes if that fails."""
        asked = orjson.loads(raw)
        supersteps = asked.pop("supersteps")
        thread = UUID(orjson.loads(await self._store.create_thread(self._tenant, orjson.dumps(asked)))["thread_id"])
        try:
            await update_by_worker(self._deps, thread, supersteps, None)
        except BaseException:
            await self._store.delete_thread(self._tenant, thread)
            raise
        return await self._store.get_thread(self._tenant, thread, [])

    async def on_get(self, req: Request, resp: Response) -> None:
        """A page of threads, in the older form."""
        page = await self._store.search_threads(self._tenant, page_request(req))
        answer_json(resp, b'{"threads":%b,"total":%d}' % (page.items, page.total))

    async def on_post_search(self, req: Request, resp: Response) -> None:
        """Find threads."""
        _, raw = await read_json(req, ThreadSearch)
        answer_page(resp, await self._store.search_threads(self._tenant, raw))

    async def on_post_count(self, req: Request, resp: Response) -> None:
        """Count threads."""
        _, raw = await read_json(req, ThreadCount)
        answer_json(resp, await self._store.count_threads(self._tenant, raw))

    async def on_post_prune(self, req: Request, resp: Response) -> None:
        """Delete threads, or all of their history but the latest state. Busy ones are left alone."""
        asked, raw = await read_json(req, ThreadPrune)
        answer_json(resp, await self._store.prune_threads(self._tenant, raw))
        for thread in asked.thread_ids:
            self._hub.thread_changed(thread)

    async def on_get_storage(self, req: Request, resp: Response, thread_id: str) -> None:
        """Get how many bytes the state of a thread takes."""
        answer_json(resp, await self._store.thread_storage(self._tenant, _id(thread_id)))

    async def on_get_one(self, req: Request, resp: Response, thread_id: str) -> None:
        """Get a thread; `include=ttl` adds its time to live."""
        include = [word for word in query_list(req, "include") or () if word == "ttl"]
        answer_json(resp, await self._store.get_thread(self._tenant, _id(thread_id), include))

    async def on_patch_one(self, req: Request, resp: Response, thread_id: str) -> None:
        """Change a thread. `Prefer: return=minimal` answers nothing."""
        thread = _id(thread_id)
        _, raw = await read_json(req, ThreadPatch)
        changed = await self._store.update_thread(self._tenant, thread, raw)
        if "return=minimal" in (req.get_header("Prefer") or "").replace(" ", "").lower():
            resp.status = HTTP_204
            return
        answer_json(resp, changed)

    async def on_delete_one(self, req: Request, resp: Response, thread_id: str) -> None:
        """Delete a thread with its runs and its history, ending what runs."""
        thread = _id(thread_id)
        self._tell_ended(await self._store.delete_thread(self._tenant, thread))
        self._hub.thread_changed(thread)
        resp.status = HTTP_204

    async def on_post_copy(self, req: Request, resp: Response, thread_id: str) -> None:
        """Copy a thread with its history, without its runs."""
        answer_json(resp, await self._store.copy_thread(self._tenant, _id(thread_id)))


def _id(thread_id: str) -> UUID:
    return path_uuid(thread_id, "thread_id")
