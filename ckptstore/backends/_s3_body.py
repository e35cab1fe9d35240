"""What is sent and what is read: bodies of requests and answers, without needless copies."""

from __future__ import annotations

import asyncio
import io
from typing import Any

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from ckptstore.backends.base import Buffer
from ckptstore.errors import UnavailableError

__all__ = ["SlicedBody", "raw_response", "read_body"]

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
    # Room for all of it at once, which becomes the bytes without another copy.
    memory = io.BytesIO()
    if take:
        memory.seek(take - 1)
        memory.write(b"\0")
        memory.seek(0)
    ended = False
    try:
        async for part in response.content.iter_any():
            if skip:
                skip, part = max(0, skip - len(part)), part[skip:]
            if take is not None and memory.tell() + len(part) > take:
                memory.write(part[: take - memory.tell()])
                break
            memory.write(part)
        else:
            ended = True
    finally:
        if not ended:
            response.close()
    if take is not None and memory.tell() < take:
        raise UnavailableError(f"{what}: the answer ended after {memory.tell()} of {take} bytes")
    return memory.getvalue()
