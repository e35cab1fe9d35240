"""What is sent and what is read: bodies of requests and answers, without needless copies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from ckptstore.backends.base import Buffer
from ckptstore.errors import UnavailableError

__all__ = ["SlicedBody", "raw_response", "read_body", "read_body_into"]

_SLICE_BYTES = 1 << 20


class SlicedBody(Payload):
    """The body of a put, sent in slices of the caller's memory.

    botocore asks for ``read``, ``seek``, ``tell`` and a length; aiohttp takes a
    payload as it is, where it would refuse a memoryview, and read a file in a
    thread.
    """

    def __init__(self, data: Buffer) -> None:
        super().__init__(None)
        self._view = memoryview(data)
        self._position = 0
        self._transport: asyncio.WriteTransport | None = None
        self._sent = False

    def __len__(self) -> int:
        return len(self._view)

    def read(self, n: int | None = -1) -> bytes:
        """Read as a file does."""
        end = len(self._view) if n is None or n < 0 else self._position + n
        data = bytes(self._view[self._position : end])
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move as a file does."""
        base = (0, self._position, len(self._view))[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Return the position of the next ``read``."""
        return self._position

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Refuse: it is not text. aiohttp asks for this only to show it."""
        raise TypeError("the body of a put is not text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send all of it."""
        self._sent = False
        self._transport = getattr(writer, "transport", None)
        for start in range(0, len(self._view), _SLICE_BYTES):
            await writer.write(self._view[start : start + _SLICE_BYTES])
        self._sent = True

    def release(self) -> None:
        """Let go of the caller's memory: what has not been sent by now never is.

        A connection that is closed would go on sending what it has, for as long
        as the server takes; it is cut instead.
        """
        self._view.release()
        transport, self._transport = self._transport, None
        if transport is not None and (not self._sent or transport.is_closing()):
            transport.abort()


def raw_response(body: Any) -> Any:
    """Return the HTTP client's response behind an answer's ``Body``."""
    # Before 2.24 aiobotocore's body was a proxy of it, without a name for it.
    return body.raw_stream if hasattr(body, "raw_stream") else body.__wrapped__


async def read_body(response: Any, *, skip: int, take: int | None, what: str) -> bytes:
    """Return ``take`` bytes (None: all) of an answer's body after the first ``skip``.

    ``response`` is the HTTP client's; it is closed unless its body was read to
    the end: what is longer than asked for is cut off, not read.

    Raises UnavailableError if the body ends early.
    """
    parts: list[bytes] = []
    async with aclosing(_parts(response, skip, take)) as body:
        async for part in body:
            parts.append(part)
    # One join of large parts costs less than room that has to be cleared first.
    data = b"".join(parts)
    if take is not None and len(data) < take:
        raise _ended_early(what, len(data), take)
    return data


async def read_body_into(response: Any, into: memoryview, *, skip: int, what: str) -> None:
    """Fill ``into`` as ``read_body`` would return its bytes."""
    filled = 0
    async with aclosing(_parts(response, skip, len(into))) as body:
        async for part in body:
            into[filled : filled + len(part)] = part
            filled += len(part)
    if filled < len(into):
        raise _ended_early(what, filled, len(into))


async def _parts(response: Any, skip: int, take: int | None) -> AsyncGenerator[bytes, None]:
    """Yield the bytes that are wanted as they come."""
    ended = False
    try:
        async for part in response.content.iter_any():
            if skip:
                skip, part = max(0, skip - len(part)), part[skip:]
            if take is not None and len(part) > take:
                yield part[:take]
                break
            yield part
            if take is not None:
                take -= len(part)
        else:
            ended = True
    finally:
        if not ended:
            response.close()


def _ended_early(what: str, got: int, wanted: int) -> UnavailableError:
    return UnavailableError(f"{what}: the answer ended after {got} of {wanted} bytes")
