"""An HTTP proxy before an S3 server that does to requests and answers what networks and servers do.

    with ChaosProxy(server.port) as proxy:
        proxy.add(Rule("lost_ack", verb="PUT", key="manifests/"))
        proxy.add(Rule("cut", verb="GET", key="chunks/", at=0.3, nth=2, times=3))
        ...  # the client uses proxy.endpoint_url
        assert proxy.hits == [("PUT", "manifests/…", "lost_ack"), …]

Whole messages are read before they are passed on, so what happens depends on
the rules alone and never on how the bytes arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from urllib.parse import unquote

_RESET = struct.pack("ii", 1, 0)
_MAX_HEAD_BYTES = 1 << 20

HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Welcome!</body></html>"

KINDS = (
    "answer",  # not passed on: ``status``, ``code`` in XML or ``body``, ``headers``
    "replace",  # passed on, and another answer given, as for "answer"
    "edit",  # passed on, and the answer's body changed by ``edit``
    "length",  # the answer's Content-Length says ``length``
    "delay",  # the answer comes ``delay_s`` later
    "trickle",  # the answer's body comes at ``bytes_per_s``
    "stall",  # the answer stops after the share ``at`` of its body, and the connection stays
    "cut",  # it ends there
    "reset",  # it is reset there
    "flip",  # a bit of the answer's body is flipped there
    "refuse",  # reset before the request was read
    "cut_request",  # reset after the share ``at`` of the request's body
    "stall_request",  # no longer read after that share
    "flip_request",  # a bit of the request's body is flipped there
    "lost_ack",  # passed on; reset in the place of the answer
    "cut_head",  # reset in the middle of the answer's head
)


def error_body(code: str) -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>chaos</Message></Error>'
    ).encode()


@dataclass
class Rule:
    """One fault, and which of the requests that match it strikes: ``times`` (None: all) from the ``nth`` on.

    ``verb`` is GET, PUT, HEAD, DELETE or LIST (None: any), ``key`` a pattern
    that is searched in the key, or in the prefix of a LIST.
    """

    kind: str
    _: KW_ONLY
    verb: str | None = None
    key: str = ""
    nth: int = 1
    times: int | None = 1
    at: float = 0.5
    status: int = 503
    code: str = "SlowDown"
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    edit: Callable[[bytes], bytes] = bytes
    length: int = 0
    delay_s: float = 0.0
    bytes_per_s: float = 1000.0
    seen: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no such fault: {self.kind}")

    def strikes(self, verb: str, key: str) -> bool:
        """Count the request if it matches, and tell whether it is one of those to strike."""
        if self.verb not in (None, verb) or not re.search(self.key, key):
            return False
        self.seen += 1
        return self.nth <= self.seen and (self.times is None or self.seen < self.nth + self.times)


@dataclass
class RandomFaults:
    """Strikes a ``share`` of all requests with one of the ``rules``, at places drawn from ``seed``."""

    seed: int
    share: float
    rules: Sequence[Rule]

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def draw(self, verb: str, key: str) -> Rule | None:
        if self._random.random() >= self.share:
            return None
        rule = self._random.choice(
            [rule for rule in self.rules if rule.verb in (None, verb) and re.search(rule.key, key)]
        )
        rule.at = self._random.random()
        return rule


FAULTS = [
    Rule("refuse"),
    Rule("cut_request", verb="PUT"),
    Rule("lost_ack"),
    Rule("cut_head"),
    Rule("cut", verb="GET"),
    Rule("reset", verb="GET"),
    Rule("cut", verb="LIST"),
    Rule("flip", verb="GET", key="chunks/"),
    Rule("delay", delay_s=0.05),
    Rule("answer", status=503, code="SlowDown"),
    Rule("answer", status=500, code="InternalError"),
    Rule("answer", status=409, code="OperationAborted"),
    Rule("replace", status=200, body=b""),
    Rule("replace", status=200, body=HTML, headers={"Content-Type": "text/html"}),
]
"""What goes wrong on a bad network and takes no time."""


@dataclass
class _Message:
    start: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    def head(self, *, length: int | None = None) -> bytes:
        lines = [self.start]
        for name, value in self.headers:
            if name.lower() == "transfer-encoding" or (
                name.lower() == "content-length" and length is not None
            ):
                continue
            lines.append(f"{name}: {value}")
        if length is not None:
            lines.append(f"Content-Length: {length}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


class ChaosProxy:
    """The proxy, on a thread of its own. Rules may be added and read from any thread."""

    def __init__(self, port: int, *, bucket: str = "test") -> None:
        self._upstream = port
        self._bucket = bucket
        self._rules: list[Rule] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-proxy", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = threading.Condition()
        self._stalled = 0
        self._server: asyncio.AbstractServer | None = None
        self.random: RandomFaults | None = None
        self.requests: list[tuple[str, str, str]] = []
        """Verb, key and fault (or ``""``) of every request, in the order of their coming."""
        self.port = 0

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def hits(self) -> list[tuple[str, str, str]]:
        """The requests that a fault has struck."""
        return [one for one in self.requests if one[2]]

    def count(self, verb: str, key: str = "") -> int:
        """How many requests of ``verb`` have come for keys that ``key`` is found in."""
        return sum(1 for one, name, _ in self.requests if one == verb and re.search(key, name))

    def add(self, rule: Rule) -> Rule:
        self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """No faults from now on, and none noted."""
        self._rules.clear()
        self.random = None
        self.requests.clear()

    def wait_idle(self, timeout_s: float = 10.0) -> None:
        """Wait until no client is connected, but for those whose request is not read. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._tasks) <= self._stalled, timeout_s):
                raise TimeoutError(f"{len(self._tasks)} connections are still open")

    def __enter__(self) -> ChaosProxy:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_MAX_HEAD_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        with self._changed:
            self._tasks.discard(task)
            self._changed.notify_all()
        if not task.cancelled():
            task.exception()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(0)  # so that drained is sent
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while True:
                request = await _read_head(reader)
                verb, key = self._named(request.start)
                rule = self._choose(verb, key)
                kind = rule.kind if rule else ""
                self.requests.append((verb, key, kind))
                if rule and kind == "refuse":
                    _reset(writer)
                    return
                if rule and kind in ("cut_request", "stall_request"):
                    length = int(request.header("content-length") or 0)
                    await reader.readexactly(int(length * rule.at))
                    if kind == "cut_request":
                        _reset(writer)
                    else:
                        # The client may be gone long before its system can tell us so.
                        self._stalled += 1
                        writer.transport.pause_reading()  # type: ignore[attr-defined]
                        await asyncio.sleep(3600)
                    return
                await _read_body(reader, request)
                if rule and kind == "flip_request":
                    request.body = _flipped(request.body, rule.at)
                if rule and kind == "answer":
                    answer = _made(rule)
                else:
                    if upstream is None:
                        upstream = await asyncio.open_connection(
                            "127.0.0.1", self._upstream, limit=_MAX_HEAD_BYTES
                        )
                    upstream[1].write(request.head(length=len(request.body)) + request.body)
                    await upstream[1].drain()
                    answer = await _read_head(upstream[0])
                    if verb != "HEAD":
                        await _read_body(upstream[0], answer)
                    if rule and kind == "replace":
                        answer = _made(rule)
                    elif rule and kind == "edit":
                        answer.body = rule.edit(answer.body)
                if not await _respond(writer, reader, answer, rule, verb):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()
            if upstream is not None:
                upstream[1].close()

    def _named(self, start: str) -> tuple[str, str]:
        verb, target, _ = start.split(" ", 2)
        path, _, query = target.partition("?")
        key = unquote(path).removeprefix(f"/{self._bucket}").removeprefix("/")
        if verb == "GET" and not key:
            found = re.search(r"(?:^|&)prefix=([^&]*)", query)
            return "LIST", unquote(found[1]) if found else ""
        return verb, key

    def _choose(self, verb: str, key: str) -> Rule | None:
        struck = [rule for rule in list(self._rules) if rule.strikes(verb, key)]
        if struck:
            return struck[0]
        return self.random.draw(verb, key) if self.random else None


async def _read_head(reader: asyncio.StreamReader) -> _Message:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    start, *lines = head.rstrip("\r\n").split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return _Message(start, headers, b"")


async def _read_body(reader: asyncio.StreamReader, message: _Message) -> None:
    if (message.header("transfer-encoding") or "").lower() == "chunked":
        parts = []
        while size := int((await reader.readline()).split(b";")[0], 16):
            parts.append(await reader.readexactly(size))
            await reader.readline()
        await reader.readline()
        message.body = b"".join(parts)
    else:
        message.body = await reader.readexactly(int(message.header("content-length") or 0))


async def _respond(
    writer: asyncio.StreamWriter,
    reader: asyncio.StreamReader,
    answer: _Message,
    rule: Rule | None,
    verb: str,
) -> bool:
    """Give the answer as the rule says; tell whether the connection goes on."""
    kind = rule.kind if rule else ""
    if rule is None or kind in ("answer", "replace", "edit", "delay", "flip", "length", "flip_request"):
        if rule and kind == "delay":
            await asyncio.sleep(rule.delay_s)
        if rule and kind == "flip":
            answer.body = _flipped(answer.body, rule.at)
        length = None if verb == "HEAD" else len(answer.body)
        if rule and kind == "length":
            length = rule.length
        writer.write(answer.head(length=length) + (b"" if verb == "HEAD" else answer.body))
        await writer.drain()
        if kind == "length":
            await reader.read(1)  # the client waits for more, or goes
        return kind != "length"
    if kind == "lost_ack":
        _reset(writer)
        return False
    head = answer.head(length=None if verb == "HEAD" else len(answer.body))
    if kind == "cut_head":
        writer.write(head[: len(head) // 2])
        await writer.drain()
        _reset(writer)
        return False
    writer.write(head)
    if kind == "trickle":
        for n in range(len(answer.body)):
            writer.write(answer.body[n : n + 1])
            await writer.drain()
            await asyncio.sleep(1 / rule.bytes_per_s)
        return True
    writer.write(answer.body[: int(len(answer.body) * rule.at)])
    await writer.drain()
    if kind == "reset":
        _reset(writer)
    elif kind == "stall":
        with contextlib.suppress(ConnectionError):
            await reader.read(1)  # until the client has had enough
    return False


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


def _flipped(body: bytes, at: float) -> bytes:
    if not body:
        return body
    n = min(int(len(body) * at), len(body) - 1)
    return body[:n] + bytes([body[n] ^ 1]) + body[n + 1 :]


def _made(rule: Rule) -> _Message:
    body = error_body(rule.code) if rule.body is None else rule.body
    headers = {"Content-Type": "application/xml", **rule.headers}
    return _Message(f"HTTP/1.1 {rule.status} Chaos", list(headers.items()), body)
