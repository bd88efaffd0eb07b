"""The key-value store of clients and graphs: put, get, delete and search items, list their namespaces."""

from __future__ import annotations

import orjson
from falcon import HTTP_204, HTTP_400
from falcon.asgi import Request, Response

from duragraph.api.embedding import embed_queries
from duragraph.api.http import answer, answer_json, check_text, query_bool, read_json
from duragraph.deps import Deps
from duragraph.resource_models import ItemDelete, ItemPut, ItemSearch, NamespaceSearch

Route = tuple[str, object, str | None]


def routes(deps: Deps) -> list[Route]:
    """The paths of this resource."""
    items = Items(deps)
    return [
        ("/store/items", items, None),
        ("/store/items/search", items, "search"),
        ("/store/namespaces", items, "namespaces"),
    ]


class Items:
    """What is remembered across threads: JSON objects by namespace and key."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._store = deps.store
        self._tenant = deps.tenant

    async def on_put(self, req: Request, resp: Response) -> None:
        """Store an item; one that is there is replaced."""
        _, raw = await read_json(req, ItemPut)
        await self._store.put_item(self._tenant, raw)
        resp.status = HTTP_204

    async def on_get(self, req: Request, resp: Response) -> None:
        """Get an item, or null. `namespace` is one text with periods between the labels, or repeated."""
        key = req.get_param("key")
        if not key:
            said = "Key is required"
            answer(resp, {"error": said, "detail": said, "code": "invalid_parameter", "field": "key"}, HTTP_400)
            return
        given: list[str] = req.get_param_as_list("namespace") or []
        op = {
            "namespace": [label for part in given for label in part.split(".")],
            "key": key,
            "refresh_ttl": query_bool(req, "refresh_ttl", True),
        }
        raw = orjson.dumps(op)
        check_text(raw)
        answer_json(resp, await self._store.get_item(self._tenant, raw))

    async def on_delete(self, req: Request, resp: Response) -> None:
        """Delete an item, if it is there."""
        _, raw = await read_json(req, ItemDelete)
        await self._store.delete_item(self._tenant, raw)
        resp.status = HTTP_204

    async def on_post_search(self, req: Request, resp: Response) -> None:
        """Find items under a prefix: those that fit the query best first, else last updated first."""
        asked, raw = await read_json(req, ItemSearch)
        vector = (await embed_queries(self._deps, [asked.query]))[0] if asked.query else None
        answer_json(resp, b'{"items":%b}' % await self._store.search_items(self._tenant, raw, vector or b"null"))

    async def on_post_namespaces(self, req: Request, resp: Response) -> None:
        """List the namespaces that hold items."""
        _, raw = await read_json(req, NamespaceSearch)
        answer_json(resp, b'{"namespaces":%b}' % await self._store.list_namespaces(self._tenant, raw))
