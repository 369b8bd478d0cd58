"""Calls to a Docker Engine that always end: each runs in a worker thread with its own client and has a deadline.

The SDK is synchronous and a client must not be shared between threads (docker-py issue 3229). So each worker thread of
a bounded executor has its own client, with an explicit base URL: `from_env()` would follow the context that the docker
command line used last. A socket timeout limits each answer; a second deadline limits the call.
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
from kickwatch.workload.docker_client import DockerClient
from kickwatch.workload.engine import SHUTDOWN_CALL_TIMEOUT_S, one_line

T = TypeVar("T")
OLDEST_API_VERSION = "1.41"  # Engine 20.10, the oldest supported
_GRACE_S = 1.0  # the socket's timeout expires first, because it frees the thread
_FAILURES = (docker.errors.DockerException, requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError)
# What the SDK and our code raise on a malformed answer; RecursionError comes from deeply nested JSON.
_MALFORMED_ANSWER = (LookupError, TypeError, ValueError, AttributeError, RecursionError)


class DockerCalls:
    """The calls in progress at one socket."""

    def __init__(self, socket: str, *, timeout_s: float, workers: int, on_call_end: Callable[[], None]) -> None:
        """See DockerEngine."""
        self._socket = socket
        self._timeout_s = timeout_s
        self._on_call_end = on_call_end
        self._executor = futures.ThreadPoolExecutor(workers, thread_name_prefix="engine")
        self._thread = threading.local()
        self._clients: list[DockerClient] = []
        self._cut_off_timer: asyncio.TimerHandle | None = None  # set once shutdown has begun
        self._unresponsive = False  # during shutdown: a call got no answer
        self._closed = False
        self.api_version = OLDEST_API_VERSION

    @property
    def socket_timeout_s(self) -> int:
        """Time limit of one answer."""
        return max(1, ceil(self._timeout_s))

    def submit(self, what: str, function: Callable[[docker.APIClient], T]) -> "futures.Future[T]":
        """Queue a call. `what` completes the sentence "could not ...".

        Raises EngineAnswerLostError if the engine has stopped answering.
        """
        if self._unresponsive:
            raise EngineAnswerLostError(f"could not {what}: the engine has stopped answering", self._remedy())
        return self._executor.submit(self._run, function)

    async def call(self, what: str, function: Callable[[docker.APIClient], T], deadline_s: float | None = None) -> T:
        """Run one SDK call in a worker thread."""
        return await self.result_of(what, self.submit(what, function), deadline_s)

    async def result_of(self, what: str, job: "futures.Future[T]", deadline_s: float | None = None) -> T:
        """The result of a submitted call. A call still queued at its deadline or cancellation is never sent."""
        limit_s = self._timeout_s + _GRACE_S if deadline_s is None else deadline_s
        try:
            # asyncio.wait_for() of Python 3.11 loses a cancellation that arrives together with the answer.
            async with timeout(limit_s):
                return await asyncio.wrap_future(job)
        except TimeoutError as error:
            self._note_lost_answer()
            raise EngineAnswerLostError(f"could not {what}: no answer within {limit_s:g} s", self._remedy()) from error
        except docker.errors.APIError as error:
            raise EngineError(f"could not {what}", one_line(error.explanation or str(error))) from error
        except _FAILURES as error:
            self._note_lost_answer()
            raise EngineAnswerLostError(f"could not {what}: {root_cause(error)}", self._remedy()) from error
        except _MALFORMED_ANSWER as error:
            reason = f"malformed answer ({type(error).__name__} {one_line(str(error))})"
            raise EngineAnswerLostError(f"could not {what}: {reason}", self._remedy()) from error
        finally:
            self._on_call_end()

    async def wait_until_done(self, job: "futures.Future[T]") -> None:
        """Wait until a call has ended in its thread, successfully or not; the wait is as limited as the call."""
        if not job.done():  # futures.wait() would wait for a cancelled job until a thread takes it from the queue
            await asyncio.to_thread(futures.wait, (job,), self.socket_timeout_s + _GRACE_S)

    def shorten_timeouts(self) -> None:
        """From now on wait at most `SHUTDOWN_CALL_TIMEOUT_S` for an answer, and for none after the first lost one.

        Calls in progress are cut off after the same time: their threads would keep the interpreter from exiting.
        """
        if self._cut_off_timer is None:
            self._timeout_s = min(self._timeout_s, SHUTDOWN_CALL_TIMEOUT_S)
            for client in self._clients:
                client.timeout = self.socket_timeout_s
            self._cut_off_timer = asyncio.get_running_loop().call_later(self._timeout_s, self._cut_off)

    def close(self) -> None:
        """Close the clients; a thread that still blocks in a read is cut off."""
        if self._cut_off_timer is not None:
            self._cut_off_timer.cancel()
        self._closed = True  # before the clients are gone through: see _client()
        self._executor.shutdown(wait=False, cancel_futures=True)
        for client in self._clients:
            client.shut()
            client.close()

    def _cut_off(self) -> None:
        for client in self._clients:
            self._unresponsive |= client.cut_off(self._timeout_s)

    def _note_lost_answer(self) -> None:
        self._unresponsive = self._cut_off_timer is not None

    def _run(self, function: Callable[[docker.APIClient], T]) -> T:
        """Runs in a worker thread."""
        if self._unresponsive:  # it became so while this call was queued
            raise ConnectionAbortedError(ECONNABORTED, "the engine has stopped answering")
        return function(self._client())

    def _client(self) -> docker.APIClient:
        """The client of the current thread, replaced if another API version was negotiated since."""
        client: DockerClient | None = getattr(self._thread, "client", None)
        if client is None or client.api_version != self.api_version:
            client = DockerClient(self._socket, version=self.api_version, timeout_s=self.socket_timeout_s)
            self._thread.client = client
            self._clients.append(client)
            if self._closed:  # close() has not seen this one
                client.shut()
        return client

    def _remedy(self) -> str:
        return f"is the engine at {self._socket} alive? (`docker version`, `journalctl -u docker`)"


def root_cause(error: BaseException) -> str:
    """The innermost reason of the SDK's nested connection errors, in the operating system's words."""
    current, following, seen = error, _inner_error(error), {id(error)}
    while following is not None and id(following) not in seen:
        current, following = following, _inner_error(following)
        seen.add(id(current))
    if isinstance(current, OSError) and current.strerror:
        return current.strerror
    return one_line(str(current))


def _inner_error(error: BaseException) -> BaseException | None:
    """urllib3 and requests pass the reason as an argument, other libraries as the cause."""
    return next((arg for arg in reversed(error.args) if isinstance(arg, BaseException)), error.__cause__)
