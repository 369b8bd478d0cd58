"""The SDK's client with calls that always end: one timeout limits a whole answer instead of each read.

A socket's own timeout restarts with every read. An engine that answers byte by byte, or without end, would block its
thread for ever. The thread would then keep kickwatch from exiting, because the interpreter joins its threads at exit.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from errno import ECONNABORTED
from time import monotonic
from typing import Any

from docker.transport.unixconn import UnixHTTPAdapter, UnixHTTPConnection, UnixHTTPConnectionPool
from docker.utils import config as client_files

import docker


def _no_file(config_path: object = None) -> None:
    """The SDK's files for clients are not read.

    kickwatch asks no registry, a ~/.docker/config.json that the SDK cannot read would make the engine look absent, and
    proxies in it would change the environment of our containers.
    """


client_files.find_config_file = _no_file

_MIN_TIMEOUT_S = 0.001  # a timeout of 0 would make the socket non-blocking


class DockerClient(docker.APIClient):
    """An APIClient for a Unix socket. `timeout` limits every call, an image import included."""

    def __init__(self, socket_path: str, *, version: str, timeout_s: int) -> None:
        """`version` is the API version to use. It is not negotiated here, so the constructor sends nothing."""
        super().__init__(base_url=f"unix://{socket_path}", version=version, timeout=timeout_s)
        self._connections = _Connections()
        self.mount("http+docker://", _Adapter(f"http+unix://{socket_path}", timeout_s, self._connections))

    def request(self, *args: Any, **options: Any) -> Any:
        """Like requests.Session.request. The SDK sets no timeout for an image import; this one does."""
        if options.get("timeout") is None:
            options["timeout"] = self.timeout
        return super().request(*args, **options)

    def cut_off(self, longer_than_s: float) -> bool:
        """Shut down the sockets whose current read or write may last longer; True if there were any. Thread-safe."""
        long_lasting = [each for each in self._connections.sockets if each.remaining_s() > longer_than_s]
        for each in long_lasting:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        return bool(long_lasting)

    def shut(self) -> None:
        """Cut off what is in progress and refuse all further reads and writes. Thread-safe."""
        self._connections.shut = True
        self.cut_off(0.0)


@dataclass
class _Connections:
    """The sockets of one client, and whether they are shut."""

    sockets: "list[_Socket]" = field(default_factory=list)
    shut: bool = False


class _Socket(socket.socket):
    """All reads of a request share one timeout: urllib3 calls `settimeout` once per request."""

    _timeout_s: float | None = None
    _deadline = 0.0
    _busy = False

    def __init__(self, connections: _Connections) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connections = connections

    def remaining_s(self) -> float:
        """How long the current read or write may still take; 0 if there is none."""
        return max(0.0, self._deadline - monotonic()) if self._busy else 0.0

    def settimeout(self, value: float | None) -> None:
        super().settimeout(value)
        self._timeout_s = value
        self._deadline = monotonic() + (value or 0.0)

    def recv_into(self, *args: Any, **options: Any) -> int:
        """Like socket.recv_into. Raises TimeoutError at the request's deadline even if data keeps arriving."""
        with self._working():
            if self._timeout_s is None:
                return super().recv_into(*args, **options)
            left_s = self._deadline - monotonic()
            if left_s <= 0:
                raise TimeoutError("timed out")
            super().settimeout(max(left_s, _MIN_TIMEOUT_S))
            try:
                return super().recv_into(*args, **options)
            finally:
                super().settimeout(self._timeout_s)

    def sendall(self, *args: Any) -> None:
        """Like socket.sendall; it can block, because an image does not fit into the socket's buffer."""
        with self._working():
            super().sendall(*args)

    @contextmanager
    def _working(self) -> Iterator[None]:
        self._busy = True
        try:
            if self._connections.shut:
                raise ConnectionAbortedError(ECONNABORTED, "the connection was shut")
            yield
        finally:
            self._busy = False


class _Connection(UnixHTTPConnection):
    def __init__(self, pool: "_Pool") -> None:
        super().__init__(pool.base_url, pool.socket_path, pool.timeout)  # type: ignore[arg-type]  # the SDK's number
        self._connections = pool.connections

    def connect(self) -> None:
        """Like UnixHTTPConnection.connect, but closes a socket that could not connect."""
        connecting = _Socket(self._connections)
        try:
            connecting.settimeout(self.timeout)
            connecting.connect(self.unix_socket)
        except OSError:
            connecting.close()
            raise
        self.sock = connecting
        still_open = [each for each in self._connections.sockets if each.fileno() >= 0]
        self._connections.sockets = [*still_open, connecting]


class _Pool(UnixHTTPConnectionPool):
    def __init__(self, adapter: "_Adapter") -> None:
        super().__init__(adapter.socket_path, adapter.socket_path, adapter.timeout, maxsize=adapter.max_pool_size)
        self.connections = adapter.connections

    def _new_conn(self) -> Any:
        return _Connection(self)


class _Adapter(UnixHTTPAdapter):
    def __init__(self, socket_url: str, timeout_s: int, connections: _Connections) -> None:
        super().__init__(socket_url, timeout_s)
        self.connections = connections

    def get_connection(self, url: bytes | str, proxies: Any = None) -> UnixHTTPConnectionPool:  # noqa: ARG002 -- given by the SDK
        """One pool for all URLs. UnixHTTPAdapter has a pool per URL: a new connection for each call of a container."""
        with self.pools.lock:
            pool: UnixHTTPConnectionPool | None = self.pools.get(self.socket_path)
            if pool is None:
                pool = self.pools[self.socket_path] = _Pool(self)
            return pool
