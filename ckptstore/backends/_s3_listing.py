"""Listings of a bucket in the order of the whole key, whichever order the server has."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from ckptstore.backends._s3_answers import Page, check_page
from ckptstore.backends.base import ObjectInfo
from ckptstore.errors import BackendProtocolError

__all__ = ["Listing"]

_MAX_EMPTY_PAGES = 100


class Listing:
    """One listing of ``prefix``. ``send`` asks for a page with the parameters it is given.

    Keys are those of the bucket. A server that sorts folder by folder
    (SeaweedFS) is asked for one folder after another, in our order: a request
    per folder where the listing has more than one page.
    """

    def __init__(
        self, send: Callable[[dict[str, Any]], Awaitable[Any]], bucket: str, prefix: str, what: str
    ) -> None:
        self._send = send
        self._bucket = bucket
        self._prefix = prefix
        self._what = what

    async def objects(self, after: str) -> AsyncGenerator[ObjectInfo, None]:
        """Yield the objects after ``after``, in ascending order. Raises BackendProtocolError."""
        params = {"Prefix": self._prefix, **({"StartAfter": after} if after else {})}
        page = await self._page(params, after)
        if page.by_folder and after:
            # Such a server starts elsewhere: behind ``after`` in its own order.
            page = await self._page({"Prefix": self._prefix}, "")
        if page.by_folder and page.token is None:
            page = replace(page, objects=sorted(page.objects, key=lambda info: info.key))
        if page.by_folder and page.token is not None:
            listed = self._walk(self._prefix, after)
        else:
            listed = self._onwards(page, {"Prefix": self._prefix})
        last = after
        async with aclosing(listed):
            async for info in listed:
                if page.by_folder and info.key <= after:
                    continue
                if info.key <= last:
                    raise BackendProtocolError(
                        f"{self._what}: the answer is not believed, the key {info.key[:120]!r} "
                        f"comes after {last[:120]!r}"
                    )
                last = info.key
                yield info

    async def _walk(self, prefix: str, after: str) -> AsyncGenerator[ObjectInfo, None]:
        """Yield what is under ``prefix`` in the order of the whole key, folders in the place of their contents."""
        params = {"Prefix": prefix, "Delimiter": "/"}
        page = await self._page(params, "")
        if not page.folders:  # all in one folder, as most of our keys: no need to read it to its end
            async with aclosing(self._onwards(page, params)) as listed:
                async for info in listed:
                    yield info
            return
        folders = list(page.folders)
        async with aclosing(self._onwards(page, params, folders)) as listed:
            found = {info.key: info async for info in listed}
        for name in sorted([*found, *folders]):
            if name in found:
                yield found[name]
            elif name > after or after.startswith(name):
                async with aclosing(self._walk(name, after)) as inside:
                    async for info in inside:
                        yield info

    async def _onwards(
        self, page: Page, params: dict[str, Any], folders: list[str] | None = None
    ) -> AsyncGenerator[ObjectInfo, None]:
        """Yield the objects of ``page`` and of all pages behind it; add what folders they name to ``folders``."""
        tokens: set[str] = set()
        n_empty = 0
        while True:
            for info in page.objects:
                yield info
            if page.token is None:
                return
            n_empty = 0 if page.objects or page.folders else n_empty + 1
            if page.token in tokens or n_empty > _MAX_EMPTY_PAGES:
                raise BackendProtocolError(f"{self._what}: the answer is not believed, it has no end")
            tokens.add(page.token)
            last = page.objects[-1].key if page.objects else ""
            page = await self._page({**params, "ContinuationToken": page.token}, last)
            if page.folders:
                if folders is None:
                    raise BackendProtocolError(
                        f"{self._what}: the answer is not believed, folders appear in it that were not there"
                    )
                folders.extend(page.folders)

    async def _page(self, params: dict[str, Any], after: str) -> Page:
        answer = await self._send(params)
        return check_page(answer, bucket=self._bucket, prefix=params["Prefix"], after=after, what=self._what)
