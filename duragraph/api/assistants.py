"""Assistants: create, read, change, versions, search, count, delete; the drawing and the schemas of their graphs."""

from __future__ import annotations

from uuid import UUID

import orjson
from falcon import HTTP_204
from falcon.asgi import Request, Response

from duragraph.api.http import answer_json, check_text, path_uuid, query_bool, query_int, read_json
from duragraph.deps import Deps
from duragraph.errors import Invalid
from duragraph.resource_models import (
    AssistantCount,
    AssistantCreate,
    AssistantLatest,
    AssistantPatch,
    AssistantSearch,
    AssistantVersions,
)
from duragraph.store import Page

Route = tuple[str, object, str | None]

_MAX_LIMIT = 1000
_MAX_DEPTH = 100


def routes(deps: Deps) -> list[Route]:
    """The paths of this resource."""
    assistants = Assistants(deps)
    one = "/assistants/{assistant_id}"
    return [
        ("/assistants", assistants, None),
        ("/assistants/search", assistants, "search"),
        ("/assistants/count", assistants, "count"),
        (one, assistants, "one"),
        (f"{one}/graph", assistants, "graph"),
        (f"{one}/schemas", assistants, "schemas"),
        (f"{one}/subgraphs", assistants, "subgraphs"),
        (f"{one}/subgraphs/{{namespace}}", assistants, "subgraphs"),
        (f"{one}/versions", assistants, "versions"),
        (f"{one}/latest", assistants, "latest"),
    ]


class Assistants:
    """Graphs with a configuration."""

    def __init__(self, deps: Deps) -> None:
        self._store = deps.store
        self._tenant = deps.tenant
        self._tell_ended = deps.tell_ended

    async def on_post(self, req: Request, resp: Response) -> None:
        """Create an assistant."""
        _, raw = await read_json(req, AssistantCreate)
        answer_json(resp, await self._store.create_assistant(self._tenant, raw))

    async def on_get(self, req: Request, resp: Response) -> None:
        """A page of assistants, in the older form."""
        page = await self._store.search_assistants(self._tenant, page_request(req))
        answer_json(resp, b'{"assistants":%b,"total":%d}' % (page.items, page.total))

    async def on_post_search(self, req: Request, resp: Response) -> None:
        """Find assistants."""
        _, raw = await read_json(req, AssistantSearch)
        answer_page(resp, await self._store.search_assistants(self._tenant, raw))

    async def on_post_count(self, req: Request, resp: Response) -> None:
        """Count assistants."""
        _, raw = await read_json(req, AssistantCount)
        answer_json(resp, await self._store.count_assistants(self._tenant, raw))

    async def on_get_one(self, req: Request, resp: Response, assistant_id: str) -> None:
        """Get an assistant."""
        answer_json(resp, await self._store.get_assistant(self._tenant, _id(assistant_id)))

    async def on_patch_one(self, req: Request, resp: Response, assistant_id: str) -> None:
        """Change an assistant, which makes a new version of it."""
        assistant = _id(assistant_id)
        _, raw = await read_json(req, AssistantPatch)
        answer_json(resp, await self._store.update_assistant(self._tenant, assistant, raw))

    async def on_delete_one(self, req: Request, resp: Response, assistant_id: str) -> None:
        """Delete an assistant, with `delete_threads` also the threads whose metadata names it."""
        with_threads = query_bool(req, "delete_threads")
        self._tell_ended(await self._store.delete_assistant(self._tenant, _id(assistant_id), with_threads))
        resp.status = HTTP_204

    async def on_get_graph(self, req: Request, resp: Response, assistant_id: str) -> None:
        """Get the drawing of an assistant's graph, with `xray` opened. A graph's name names its assistant."""
        depth = _depth(req)
        check_text(orjson.dumps(assistant_id))
        answer_json(resp, await self._store.assistant_graph(self._tenant, assistant_id, depth))

    async def on_get_schemas(self, req: Request, resp: Response, assistant_id: str) -> None:
        """Get the JSON Schemas of an assistant's graph."""
        answer_json(resp, await self._store.assistant_schemas(self._tenant, _id(assistant_id)))

    async def on_get_subgraphs(
        self, req: Request, resp: Response, assistant_id: str, namespace: str | None = None
    ) -> None:
        """Get the JSON Schemas of the subgraphs, by namespace."""
        recurse = query_bool(req, "recurse")
        assistant = _id(assistant_id)
        check_text(orjson.dumps(namespace))
        answer_json(resp, await self._store.assistant_subgraphs(self._tenant, assistant, namespace, recurse))

    async def on_post_versions(self, req: Request, resp: Response, assistant_id: str) -> None:
        """List the versions of an assistant, newest first."""
        assistant = _id(assistant_id)
        _, raw = await read_json(req, AssistantVersions)
        answer_json(resp, await self._store.list_assistant_versions(self._tenant, assistant, raw))

    async def on_get_versions(self, req: Request, resp: Response, assistant_id: str) -> None:
        """List the versions of an assistant, newest first."""
        assistant = _id(assistant_id)
        answer_json(resp, await self._store.list_assistant_versions(self._tenant, assistant, page_request(req)))

    async def on_post_latest(self, req: Request, resp: Response, assistant_id: str) -> None:
        """Point an assistant at one of its versions."""
        assistant = _id(assistant_id)
        asked, _ = await read_json(req, AssistantLatest)
        version = asked.version or query_int(req, "version", 0, 1)
        if not version:
            raise Invalid("version: Field required", code="invalid_field", field="version")
        answer_json(resp, await self._store.set_latest_assistant(self._tenant, assistant, version))


def page_request(req: Request) -> bytes:
    """`limit` and `offset` of the query as the body of a search."""
    return orjson.dumps({"limit": query_int(req, "limit", 10, 1, _MAX_LIMIT), "offset": query_int(req, "offset", 0)})


def answer_page(resp: Response, page: Page) -> None:
    """An array, with where it stands in the headers."""
    resp.set_header("X-Pagination-Total", str(page.total))
    if page.next_offset is not None:
        resp.set_header("X-Pagination-Next", str(page.next_offset))
    answer_json(resp, page.items)


def _id(assistant_id: str) -> UUID:
    return path_uuid(assistant_id, "assistant_id")


def _depth(req: Request) -> int:
    """How deep `xray` looks into subgraphs: a number, or true for all."""
    xray = req.get_param("xray")
    if xray is not None and xray.isascii() and xray.isdigit():
        return query_int(req, "xray", 1, 1, _MAX_DEPTH)
    return _MAX_DEPTH if query_bool(req, "xray") else 0
