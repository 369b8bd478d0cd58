"""A proxy in front of a real engine that injects faults into chosen requests.

Each request and each answer is read whole, since both are small here. A `Fault` is a function that handles a request;
without a fault the request is passed to the engine and the answer is passed back.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socket import AF_UNIX, SHUT_RDWR, socket
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Self

_UPSTREAM_S = 60.0
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "upgrade"}


@dataclass
class Request:
    """One request; its answer is sent as raw bytes."""

    handler: "_Handler"
    body: bytes

    @property
    def line(self) -> str:
        """`POST /v1.41/containers/create?name=...`."""
        return f"{self.handler.command} {self.handler.path}"

    def pass_on(self) -> bytes:
        """The real engine's answer, as bytes to send. Raises OSError if there is none."""
        upstream = _Upstream(self.handler.server.proxy.upstream)
        try:
            headers = {key: value for key, value in self.handler.headers.items() if key.lower() not in _HOP_BY_HOP}
            upstream.request(self.handler.command, self.handler.path, self.body or None, headers)
            response = upstream.getresponse()
            kept = [(key, value) for key, value in response.getheaders() if key.lower() not in _HOP_BY_HOP]
            return answer(response.status, response.read(), kept)
        finally:
            upstream.close()

    def send(self, data: bytes) -> None:
        """Send bytes. Raises BrokenPipeError if the client has closed the connection."""
        self.handler.wfile.write(data)


Fault = Callable[[Request], None]


def answer(status: int, body: bytes, headers: list[tuple[str, str]] | None = None) -> bytes:
    """An HTTP answer."""
    lines = [f"HTTP/1.1 {status} proxied", *(f"{key}: {value}" for key, value in headers or [])]
    if status != 204:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def refused(status: int, message: str) -> Fault:
    """Answer with an error; nothing is passed on."""
    return lambda request: request.send(answer(status, json.dumps({"message": message}).encode()))


def garbage(data: bytes) -> Fault:
    """Send these bytes instead of an answer, then close the connection."""

    def act(request: Request) -> None:
        request.send(data)
        request.handler.close_connection = True

    return act


def late(seconds: float) -> Fault:
    """Pass the request on after `seconds`, and its answer back if the client still waits."""

    def act(request: Request) -> None:
        time.sleep(seconds)
        request.send(request.pass_on())

    return act


def byte_by_byte(pause_s: float) -> Fault:
    """Send the real engine's answer with a pause after each byte."""

    def act(request: Request) -> None:
        for byte in request.pass_on():
            request.send(bytes([byte]))
            time.sleep(pause_s)

    return act


@dataclass
class Proxy:
    """Use as a context manager. `seen`: the first line of every request."""

    path: Path
    upstream: Path
    seen: list[str] = field(default_factory=list)
    _faults: list[tuple[re.Pattern[str], Fault]] = field(default_factory=list)
    _server: "_Server | None" = None

    def __enter__(self) -> Self:
        """Start to listen."""
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop to listen and remove the socket's file."""
        self.refuse()
        self.path.unlink(missing_ok=True)

    @contextmanager
    def fault(self, act: Fault, lines: str = "") -> Iterator[None]:
        """Apply `act` to requests whose first line matches the regular expression `lines`; the newest fault wins."""
        entry = (re.compile(lines), act)
        self._faults.insert(0, entry)
        try:
            yield
        finally:
            self._faults.remove(entry)

    def listen(self) -> None:
        """Make a new socket and listen on it."""
        self.path.unlink(missing_ok=True)
        self._server = _Server(self)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def refuse(self) -> None:
        """Close the listening socket and all connections; the file stays, so that connecting is refused."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.hang_up()

    def serve(self, request: Request) -> None:
        """Handle one request with the first fault that matches it."""
        self.seen.append(request.line)
        for lines, act in self._faults:
            if lines.search(request.line):
                return act(request)
        return request.send(request.pass_on())


class _Upstream(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_UPSTREAM_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket(AF_UNIX)
        self.sock.settimeout(_UPSTREAM_S)
        self.sock.connect(str(self._path))


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.open: set[socket] = set()
        super().__init__(str(proxy.path), _Handler)

    def hang_up(self) -> None:
        for connection in list(self.open):
            try:
                connection.shutdown(SHUT_RDWR)
            except OSError:
                continue  # the client has closed it

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that gave up and an engine that is gone: tests cause both."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    connection: socket

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        self.server.proxy.serve(Request(self, self.rfile.read(int(self.headers.get("Content-Length", 0)))))

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _serve  # noqa: N815 -- the names that BaseHTTPRequestHandler calls
