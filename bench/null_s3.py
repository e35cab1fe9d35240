"""An S3 server that costs almost nothing: what is put is thrown away, a key's first digits are its size.

It isolates the cost of a client. ``python -m bench.null_s3`` prints its port and
serves until its input is closed.
"""

from __future__ import annotations

import socketserver
import sys
import threading
from email.utils import formatdate

__all__ = ["NullS3"]

_PAYLOAD = memoryview(bytes(64 << 20))
_STEP = 1 << 20
# Answers both what begins a multipart upload and what completes it.
_MULTIPART = (
    b"<R><UploadId>1</UploadId><Bucket>bench</Bucket><Key>key</Key>"
    b"<Location>here</Location><ETag>&quot;0&quot;</ETag></R>"
)


class _Connection(socketserver.StreamRequestHandler):
    rbufsize = 1 << 16
    disable_nagle_algorithm = True

    def handle(self) -> None:
        scratch = memoryview(bytearray(_STEP))
        try:
            while self._one_request(scratch):
                pass
        except (ConnectionError, OSError):
            return

    def _one_request(self, scratch: memoryview) -> bool:
        first = self.rfile.readline(65536)
        if not first:
            return False
        method, target, _ = first.decode("latin-1").split(" ", 2)
        headers: dict[str, str] = {}
        while (line := self.rfile.readline(65536)) not in (b"\r\n", b"\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("expect"):
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in headers.get("transfer-encoding", ""):
            self._skip_chunked(scratch)
        else:
            self._skip(int(headers.get("content-length", "0")), scratch)
        if method == "POST":
            self._answer(method, len(_MULTIPART), "")
            self.wfile.write(_MULTIPART)
            return True
        size = 0
        if method in ("GET", "HEAD"):
            digits = target.partition("?")[0].rpartition("/")[2].partition("_")[0]
            size = int(digits) if digits.isdecimal() else 0
        self._answer(method, size, headers.get("range", ""))
        return True

    def _answer(self, method: str, size: int, wanted: str) -> None:
        status, about_range = "200 OK", ""
        if wanted and method == "GET" and size:
            first, _, last = wanted.partition("=")[2].partition("-")
            end = min(int(last or size), size - 1)
            status = "206 Partial Content"
            about_range = f"Content-Range: bytes {first}-{end}/{size}\r\n"
            size = end + 1 - int(first)
        head = (
            f'HTTP/1.1 {status}\r\nDate: {formatdate(usegmt=True)}\r\nETag: "0"\r\n'
            f"Last-Modified: Wed, 01 Jan 2025 00:00:00 GMT\r\nContent-Length: {size}\r\n{about_range}"
        )
        self.wfile.write(head.encode() + b"\r\n")
        if method == "GET" and size:
            self.wfile.write(_PAYLOAD[:size])

    def _skip(self, nbytes: int, scratch: memoryview) -> None:
        while nbytes:
            got = self.rfile.readinto(scratch[: min(nbytes, _STEP)])
            if not got:
                raise ConnectionError("closed in the middle of a body")
            nbytes -= got

    def _skip_chunked(self, scratch: memoryview) -> None:
        while size := int(self.rfile.readline(1024).split(b";")[0], 16):
            self._skip(size + 2, scratch)
        while self.rfile.readline(65536) not in (b"\r\n", b"\n", b""):
            pass


class NullS3(socketserver.ThreadingTCPServer):
    """The server on a free loopback port; ``port`` tells which."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)

    @property
    def port(self) -> int:
        return int(self.server_address[1])


def main() -> None:
    server = NullS3()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.port, flush=True)
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    main()
