"""What is sent and what is read: bodies of requests and answers, without needless copies."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from typing import Any

from ckptstore.backends.base import Buffer
from ckptstore.errors import UnavailableError

__all__ = ["SlicedBody", "raw_response", "read_body"]

_SLICE_BYTES = 1 << 20


class SlicedBody:
    """The body of a put, sent in slices of the caller's memory.

    botocore asks for ``read``, ``seek``, ``tell`` and a length; aiohttp refuses
    a memoryview but takes an asynchronous iterator of them. It must not be an
    ``io.IOBase``, which aiohttp would read in a thread.
    """

    def __init__(self, data: Buffer) -> None:
        self._view = memoryview(data)
        self._position = 0

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

    def release(self) -> None:
        """Let go of the caller's memory: what has not been sent by now never is."""
        self._view.release()

    async def __aiter__(self) -> AsyncIterator[memoryview]:
        for start in range(0, len(self._view), _SLICE_BYTES):
            yield self._view[start : start + _SLICE_BYTES]


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
