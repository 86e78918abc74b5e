"""A real HTTP server on loopback that answers as the web does: completely, late, truncated, or not at all."""

from __future__ import annotations

import contextlib
import io
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

BODY = bytes(range(256)) * 40  # 10,240 bytes


def picture(colour: str | tuple[int, int, int], form: str = "jpeg", size: tuple[int, int] = (8, 6)) -> bytes:
    """An encoded picture of one colour."""
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, form)
    return out.getvalue()


class Web:
    """A site: its behaviour per path, and the requests that it received."""

    def __init__(self) -> None:
        self.routes: dict[str, Callable[[Handler], None]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()
        self.port = 0

    def __call__(self, path: str, host: str = "127.0.0.1") -> str:
        """The URL of a path."""
        return f"http://{host}:{self.port}{path}"

    def counts(self) -> Counter[str]:
        """The number of requests for each path."""
        return Counter(path for path, _ in self.asked)

    def serve(self, path: str, body: bytes = BODY, **headers: str) -> str:
        """Add a path with a complete answer."""
        self.routes[path] = lambda handler: handler.answer(200, body, **headers)
        return self(path)

    def refuse(self, path: str, status: int, **headers: str) -> str:
        """Add a path that is answered with an error or a redirect."""
        self.routes[path] = lambda handler: handler.answer(status, b"no", **headers)
        return self(path)

    def in_turn(self, path: str, *answers: Callable[[Handler], None]) -> str:
        """Add a path with a sequence of answers; the last one repeats."""
        left = list(answers)
        self.routes[path] = lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)
        return self(path)

    def tear(self, path: str, body: bytes = BODY, at: int = 5000, **headers: str) -> str:
        """Add a path that resets the connection in the middle of the first answer. Later answers support ranges."""
        return self.in_turn(path, lambda h: h.torn(body, at, **headers), lambda h: h.ranged(body, **headers))


class Handler(BaseHTTPRequestHandler):
    """Handler of one connection."""

    protocol_version = "HTTP/1.1"
    web: Web

    def do_GET(self) -> None:
        with self.web.lock:
            self.web.asked.append((self.path, dict(self.headers)))
            self.web.busy += 1
            self.web.most_busy = max(self.web.busy, self.web.most_busy)
        try:
            self.web.routes.get(self.path, lambda handler: handler.answer(404, b"gone"))(self)
        finally:
            with self.web.lock:
                self.web.busy -= 1

    def head(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.head(status, len(body), **headers)
        self.wfile.write(body)

    def ranged(self, body: bytes, **headers: str) -> None:
        """Send the requested range if the version (ETag) matches, else the whole body, as servers do."""
        asked = self.headers.get("Range", "")
        if asked and self.headers.get("If-Range") == headers.get("ETag"):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            self.answer(206, body[start:], Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}", **headers)
        else:
            self.answer(200, body, **headers)

    def torn(self, body: bytes, at: int, **headers: str) -> None:
        """Send the first `at` bytes of the body, then reset the connection."""
        self.head(200, len(body), **headers)
        self.wfile.write(body[:at])
        self.wfile.flush()
        time.sleep(0.1)  # otherwise the reset overtakes the bytes
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def short(self, body: bytes) -> None:
        """Send less than Content-Length states, and close normally."""
        self.head(200, len(body) + 100)
        self.wfile.write(body)
        self.close_connection = True

    def drip(self, seconds: float) -> None:
        """Send single bytes at intervals for some seconds, and never the whole body."""
        self.head(200, 10_000)
        until = time.monotonic() + seconds
        with contextlib.suppress(OSError):
            while time.monotonic() < until:
                self.wfile.write(b".")
                self.wfile.flush()
                time.sleep(0.05)
        self.close_connection = True

    def endless(self, chunks: int) -> None:
        """Send `chunks` chunks of 64 KiB, without a Content-Length."""
        self.head(200, None, Transfer_Encoding="chunked")
        with contextlib.suppress(OSError):
            for _ in range(chunks):
                self.wfile.write(b"10000\r\n" + bytes(65536) + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Print no log lines in tests."""


@contextlib.contextmanager
def serving() -> Iterator[Web]:
    """A site on a free port of loopback."""
    web = Web()
    handler = type("Bound", (Handler,), {"web": web})

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            """Ignore clients that disconnect: some tests disconnect on purpose."""

    server = Server(("127.0.0.1", 0), handler)
    web.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
