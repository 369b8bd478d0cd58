"""The SDK's client with calls that end: one timeout bounds a whole answer, not each of its bytes.

A socket's own timeout begins anew with every read. Whatever answers byte by byte, or without end, would keep its thread
for ever, and the thread would keep kickwatch from ending, since the interpreter waits for threads at its exit.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from errno import ECONNABORTED
from time import monotonic
from typing import Any

from docker.transport.unixconn import UnixHTTPAdapter, UnixHTTPConnection, UnixHTTPConnectionPool

import docker

_LEAST_S = 0.001  # a timeout of 0 would make the socket non-blocking


class Client(docker.APIClient):
    """An APIClient for a unix socket whose every call is bounded by `timeout`, an import of an image included."""

    def __init__(self, socket_path: str, *, version: str, timeout_s: int) -> None:
        """`version` is the API version to speak: none is asked for, so nothing is sent yet."""
        super().__init__(base_url=f"unix://{socket_path}", version=version, timeout=timeout_s)
        self._open = _Open()
        self.mount("http+docker://", _Adapter(f"http+unix://{socket_path}", timeout_s, self._open))

    def request(self, *args: Any, **options: Any) -> Any:
        """As requests.Session.request; the SDK asks for no timeout where it imports an image."""
        if options.get("timeout") is None:
            options["timeout"] = self.timeout
        return super().request(*args, **options)

    def cut_off(self, longer_than_s: float) -> bool:
        """End what may go on for longer than that; True where something may. For another thread's use."""
        long = [each for each in self._open.sockets if each.left_s() > longer_than_s]
        for each in long:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        return bool(long)

    def shut(self) -> None:
        """End what is under way, and let nothing begin that has not yet. For another thread's use."""
        self._open.shut = True
        self.cut_off(0.0)


@dataclass
class _Open:
    """The connections of one client, and whether they may still be used."""

    sockets: "list[_Socket]" = field(default_factory=list)
    shut: bool = False


class _Socket(socket.socket):
    """Reads share the time that was given them by `settimeout`, which urllib3 calls once for each request."""

    _timeout_s: float | None = None
    _until = 0.0
    _busy = False

    def __init__(self, opened: _Open) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self._opened = opened

    def left_s(self) -> float:
        """How long the read or write that is under way may still take; 0 where none is."""
        return max(0.0, self._until - monotonic()) if self._busy else 0.0

    def settimeout(self, value: float | None) -> None:
        super().settimeout(value)
        self._timeout_s = value
        self._until = monotonic() + (value or 0.0)

    def recv_into(self, *args: Any, **options: Any) -> int:
        """As socket.recv_into; TimeoutError also when data has come all the time and is not all there yet."""
        with self._working():
            if self._timeout_s is None:
                return super().recv_into(*args, **options)
            left_s = self._until - monotonic()
            if left_s <= 0:
                raise TimeoutError("timed out")
            super().settimeout(max(left_s, _LEAST_S))
            try:
                return super().recv_into(*args, **options)
            finally:
                super().settimeout(self._timeout_s)

    def sendall(self, *args: Any) -> None:
        """As socket.sendall; an image does not fit into a socket's buffer."""
        with self._working():
            super().sendall(*args)

    @contextmanager
    def _working(self) -> Iterator[None]:
        self._busy = True
        try:
            if self._opened.shut:
                raise ConnectionAbortedError(ECONNABORTED, "given up")
            yield
        finally:
            self._busy = False


class _Connection(UnixHTTPConnection):
    def __init__(self, pool: "_Pool") -> None:
        super().__init__(pool.base_url, pool.socket_path, pool.timeout)  # type: ignore[arg-type]  # the SDK's number
        self._opened = pool.opened

    def connect(self) -> None:
        """As UnixHTTPConnection, which leaves a socket that could not connect to the garbage collector."""
        connecting = _Socket(self._opened)
        try:
            connecting.settimeout(self.timeout)
            connecting.connect(self.unix_socket)
        except OSError:
            connecting.close()
            raise
        self.sock = connecting
        self._opened.sockets = [each for each in self._opened.sockets if each.fileno() >= 0] + [connecting]


class _Pool(UnixHTTPConnectionPool):
    def __init__(self, adapter: "_Adapter") -> None:
        super().__init__(adapter.socket_path, adapter.socket_path, adapter.timeout, maxsize=adapter.max_pool_size)
        self.opened = adapter.opened

    def _new_conn(self) -> Any:
        return _Connection(self)


class _Adapter(UnixHTTPAdapter):
    def __init__(self, socket_url: str, timeout_s: int, opened: _Open) -> None:
        super().__init__(socket_url, timeout_s)
        self.opened = opened

    def get_connection(self, url: bytes | str, proxies: Any = None) -> UnixHTTPConnectionPool:  # noqa: ARG002 -- given by the SDK
        """One pool for all. UnixHTTPAdapter has one per URL: a connection for each call of a container."""
        with self.pools.lock:
            pool: UnixHTTPConnectionPool | None = self.pools.get(self.socket_path)
            if pool is None:
                pool = self.pools[self.socket_path] = _Pool(self)
            return pool
