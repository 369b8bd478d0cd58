"""Publishes the metrics over HTTP.

The server runs in the daemon's event loop and starts no thread. The number of connections, the size of a request and
the time of an exchange are limited, so slow, silent or many clients cost only a few kilobytes. The server of
prometheus_client has a thread for each client and no such limits.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from kickwatch.configuration.listen import parse_listen
from kickwatch.errors import AddressUnusableError, ConfigError, KickwatchError, ObserveError
from kickwatch.outlets.metrics import wire
from kickwatch.outlets.metrics.registry import Metrics
from kickwatch.process.cancellation import timeout

MOST_CONNECTIONS = 16
MOST_HEAD_BYTES = 8192
REFRESH_S = 2.0
_REQUEST_S = 5.0
_EXCHANGE_S = 15.0
_CLOSE_S = 1.0

_NO_MEMORY = "the kernel has no memory for a socket now: free some"
_REMEDIES = {
    errno.EADDRINUSE: "another process listens there: find it with `ss -ltnp`, or choose another port",
    errno.EADDRNOTAVAIL: "this node has no such address now: `ip address` lists those it has",
    errno.ENODEV: "this node has no such interface now: `ip link` lists those it has",
    errno.EAFNOSUPPORT: "this kernel has no IPv6 now: choose an IPv4 address, or enable it",
    errno.EACCES: "a port below 1024 needs CAP_NET_BIND_SERVICE: choose a higher one",
    errno.EMFILE: "kickwatch has no descriptor left: raise its limit (LimitNOFILE= of the unit, `ulimit -n`)",
    errno.ENFILE: "this node has no descriptor left: raise fs.file-max, or find what holds so many with `lsof`",
    errno.ENOMEM: _NO_MEMORY,
    errno.ENOBUFS: _NO_MEMORY,
}
_LASTS = {errno.EACCES, errno.EPERM, errno.EINVAL}  # all else may change: an interface, IPv6, descriptors, memory


class Server:
    """Answers GET /metrics at `listen`. `start` and `close` once each."""

    def __init__(self, metrics: Metrics, listen: str, refresh: Callable[[], Awaitable[None]]) -> None:
        """`listen` is like `127.0.0.1:9893` or `[::1]:9893`; port 0 means any free port.

        `refresh` updates the observers' figures. It is awaited in the event loop, once for all scrapes that arrive
        meanwhile. After REFRESH_S, or if it raises KickwatchError or OSError, the previous figures are shown.
        """
        self._metrics = metrics
        self._listen = listen
        self._refresh = refresh
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._refreshing: asyncio.Task[None] | None = None
        self._scraping: asyncio.Task[bytes] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, after `start`."""
        if self._server is None:
            raise KickwatchError("the metrics server does not listen", "start it first")
        host, port, *_ = self._server.sockets[0].getsockname()
        return host, port

    @property
    def has_interface(self) -> bool:
        """True if the address is one of an interface (link-local)."""
        return bool(_interface_of(self._listen))

    def interface_changed(self) -> bool:
        """True if the interface is gone, or was made again: the socket is bound to the old one by its number."""
        if self._server is None or not self.has_interface:
            return False
        bound = int(self._server.sockets[0].getsockname()[3])
        try:
            return _index_of(_interface_of(self._listen)) != bound
        except OSError:
            return True

    async def start(self) -> None:
        """Listen. Raises a ConfigError that names metrics.listen, an AddressUnusableError if it may work later."""
        host, port = parse_listen(self._listen)
        try:
            bound = _bound(host, port)
            self._server = await asyncio.start_server(self._serve, sock=bound, limit=MOST_HEAD_BYTES)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            what = f"metrics.listen: cannot listen on {self._listen} ({reason})"
            kind = ConfigError if error.errno in _LASTS else AddressUnusableError
            raise kind(what, _REMEDIES.get(error.errno or 0, "choose another address")) from error

    async def close(self) -> None:
        """Stop listening and drop all connections, within a second. The port is free when this returns."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        tasks = {*self._connections, *filter(None, (self._refreshing, self._scraping))}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection. asyncio starts a task for each."""
        task = asyncio.current_task()
        if task is None or self._server is None:  # the connection came while the server was closing
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            async with timeout(_EXCHANGE_S):
                writer.write(await self._answer(reader))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError):
            pass  # the client went away or is too slow: it will try again
        finally:
            writer.transport.abort()  # everything is sent, or the client does not read it
            self._connections.discard(task)

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        if len(self._connections) > MOST_CONNECTIONS:
            return wire.refused(HTTPStatus.SERVICE_UNAVAILABLE)
        try:
            async with timeout(_REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return wire.refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        except TimeoutError:
            return wire.refused(HTTPStatus.REQUEST_TIMEOUT)
        except asyncio.IncompleteReadError:
            return b""  # the client closed the connection, such as a check that the port is open
        request = wire.parse(head)
        if request.refusal is not None:
            return wire.refused(request.refusal, head_only=request.head_only)
        return await asyncio.to_thread(wire.metrics, request, await self._scrape())

    async def _scrape(self) -> bytes:
        """The text with fresh figures. Scrapes that arrive at the same time share one."""
        if self._scraping is None or self._scraping.done():
            self._scraping = asyncio.create_task(self._text())
        return await asyncio.shield(self._scraping)

    async def _text(self) -> bytes:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refreshed())
        await asyncio.wait({self._refreshing}, timeout=REFRESH_S)
        if not self._refreshing.done():
            self._metrics.stale()  # it goes on; the next scrape waits for it too
        elif error := self._refreshing.exception():
            raise error
        return await asyncio.to_thread(self._metrics.text)

    async def _refreshed(self) -> None:
        try:
            await self._refresh()
        except (KickwatchError, OSError) as error:
            self._metrics.stale(refused=isinstance(error, ObserveError))


def _bound(host: str, port: int) -> socket.socket:
    """A socket bound to the address. asyncio would bind one as well, but gives no errno since Python 3.13.

    Raises OSError.
    """
    host, _, interface = host.partition("%")
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((host, port, 0, _index_of(interface)))
        else:
            bound.bind((host, port))
    except BaseException:
        bound.close()
        raise
    return bound


def _interface_of(listen: str) -> str:
    """The name or number of the interface in an address; empty if it has none."""
    host, _ = parse_listen(listen)
    return host.partition("%")[2]


def _index_of(interface: str) -> int:
    """The number of an interface, which a name or a number stands for; 0 for none. Raises OSError."""
    if not interface or interface.isdecimal():
        return int(interface or 0)
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:  # has no errno
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from error
