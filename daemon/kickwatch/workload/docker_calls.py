"""Calls to a Docker Engine that end: each in a worker thread with a client of its own, each with a deadline.

The SDK is synchronous and its clients must not be shared between threads (docker-py issue 3229), so each worker
thread of a bounded executor has a client of its own, with an explicit base URL: `from_env()` would follow whatever
context the command line was last pointed at. A socket timeout bounds every answer; a second deadline bounds the call.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent import futures
from errno import ECONNABORTED
from math import ceil
from typing import TypeVar

import docker.errors
import requests.exceptions
import urllib3.exceptions

import docker
from kickwatch.errors import EngineAnswerLostError, EngineError
from kickwatch.process.cancellation import timeout
from kickwatch.workload.docker_client import Client
from kickwatch.workload.engine import HURRIED_S, one_line

T = TypeVar("T")
OLDEST_API_VERSION = "1.41"  # Engine 20.10, the oldest supported
_GRACE_S = 1.0  # the socket's timeout comes first: it frees the thread
_FAILURES = (docker.errors.DockerException, requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError)
# What the SDK and we stumble over in an odd answer; RecursionError in deeply nested JSON.
_GARBAGE = (LookupError, TypeError, ValueError, AttributeError, RecursionError)


class Calls:
    """What is under way at one socket."""

    def __init__(self, socket: str, *, timeout_s: float, workers: int, alive: Callable[[], None]) -> None:
        """As DockerEngine."""
        self._socket = socket
        self._timeout_s = timeout_s
        self._alive = alive
        self._executor = futures.ThreadPoolExecutor(workers, thread_name_prefix="engine")
        self._local = threading.local()
        self._clients: list[Client] = []
        self._hurried: asyncio.TimerHandle | None = None
        self._mute = False
        self.api_version = OLDEST_API_VERSION

    @property
    def socket_timeout_s(self) -> int:
        """What bounds one answer."""
        return max(1, ceil(self._timeout_s))

    def submit(self, what: str, function: Callable[[docker.APIClient], T]) -> "futures.Future[T]":
        """Begin a call; `what` reads after "could not". Raises EngineAnswerLostError where none is answered now."""
        if self._mute:
            raise EngineAnswerLostError(f"could not {what}: the engine has stopped answering", self._remedy())
        return self._executor.submit(self._run, function)

    async def call(self, what: str, function: Callable[[docker.APIClient], T], deadline_s: float | None = None) -> T:
        """Run one SDK call in a worker thread."""
        return await self.answer(what, self.submit(what, function), deadline_s)

    async def answer(self, what: str, job: "futures.Future[T]", deadline_s: float | None = None) -> T:
        """What a submitted call returns; a call that has not begun by its deadline or cancellation never will."""
        limit_s = self._timeout_s + _GRACE_S if deadline_s is None else deadline_s
        try:
            # No asyncio.wait_for(): Python 3.11's forgets a cancellation that comes together with the answer.
            async with timeout(limit_s):
                return await asyncio.wrap_future(job)
        except TimeoutError as error:
            self._lost()
            raise EngineAnswerLostError(f"could not {what}: no answer within {limit_s:g} s", self._remedy()) from error
        except docker.errors.APIError as error:
            raise EngineError(f"could not {what}", one_line(error.explanation or str(error))) from error
        except _FAILURES as error:
            self._lost()
            raise EngineAnswerLostError(f"could not {what}: {root_cause(error)}", self._remedy()) from error
        except _GARBAGE as error:
            odd = f"{type(error).__name__} {one_line(str(error))}"
            raise EngineAnswerLostError(
                f"could not {what}: the answer is not understood ({odd})", self._remedy()
            ) from error
        finally:
            self._alive()

    async def ended(self, job: "futures.Future[T]") -> None:
        """Wait until a call has ended in its thread, whatever with; bounded as the call is."""
        if not job.done():  # futures.wait() would wait for a cancelled one until a thread came by
            await asyncio.to_thread(futures.wait, (job,), self.socket_timeout_s + _GRACE_S)

    def hurry(self) -> None:
        """No answer is waited for longer than `HURRIED_S` from now on, and none at all after one that did not come.

        What is under way already is cut off then: its thread would keep the interpreter from ending.
        """
        if self._hurried is None:
            self._timeout_s = min(self._timeout_s, HURRIED_S)
            for client in self._clients:
                client.timeout = self.socket_timeout_s
            self._hurried = asyncio.get_running_loop().call_later(self._timeout_s, self._cut_off)

    def close(self) -> None:
        """Close the clients; a thread that still hangs in a read is cut off."""
        if self._hurried is not None:
            self._hurried.cancel()
        self._executor.shutdown(wait=False, cancel_futures=True)
        for client in self._clients:
            client.shut()
            client.close()

    def _cut_off(self) -> None:
        for client in self._clients:
            self._mute |= client.cut_off(self._timeout_s)

    def _lost(self) -> None:
        self._mute = self._hurried is not None

    def _run(self, function: Callable[[docker.APIClient], T]) -> T:
        """In a worker thread."""
        if self._mute:  # it has waited for a thread meanwhile
            raise ConnectionAbortedError(ECONNABORTED, "the engine has stopped answering")
        return function(self._client())

    def _client(self) -> docker.APIClient:
        """This thread's client; a new one where another API version was agreed upon since."""
        client: Client | None = getattr(self._local, "client", None)
        if client is None or client.api_version != self.api_version:
            client = Client(self._socket, version=self.api_version, timeout_s=self.socket_timeout_s)
            self._local.client = client
            self._clients.append(client)
        return client

    def _remedy(self) -> str:
        return f"is the engine at {self._socket} alive? (`docker version`, `journalctl -u docker`)"


def root_cause(error: BaseException) -> str:
    """The innermost reason of the SDK's nested connection errors, in the operating system's words."""
    seen, following, known = error, _inner(error), {id(error)}
    while following is not None and id(following) not in known:
        seen, following = following, _inner(following)
        known.add(id(seen))
    if isinstance(seen, OSError) and seen.strerror:
        return seen.strerror
    return one_line(str(seen))


def _inner(error: BaseException) -> BaseException | None:
    """urllib3 and requests pass the reason on as an argument, others as the cause."""
    return next((arg for arg in reversed(error.args) if isinstance(arg, BaseException)), error.__cause__)
