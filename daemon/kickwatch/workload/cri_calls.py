"""Calls through a unix socket that speaks gRPC, each with a deadline: the CRI, and containerd's own interface.

grpclib instead of grpcio: it is asyncio alone, so a call needs no thread and can be cancelled, and it takes a third of
the memory (3.3 MB against 9.8 MB when loaded).
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from kickwatch.errors import EngineAnswerLostError, EngineError
from kickwatch.process import without_openssl
from kickwatch.workload.engine import SHUTDOWN_CALL_TIMEOUT_S, one_line

without_openssl.load_grpclib()

from grpclib.client import Channel, StreamStreamMethod, UnaryUnaryMethod  # noqa: E402 -- without ssl, so after the above
from grpclib.const import Status  # noqa: E402
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError  # noqa: E402

M = TypeVar("M", bound=Message)
T = TypeVar("T")
_CANCEL_S = 1.0
# The call may have had an effect: the server gave up, or the connection broke.
_LOST = {Status.DEADLINE_EXCEEDED, Status.CANCELLED, Status.UNAVAILABLE}
# What grpclib raises where the connection breaks, and for answers that are no gRPC.
_BROKEN = (StreamTerminatedError, ProtocolError, DecodeError, OSError, AssertionError, LookupError, ValueError)


class CallRefusedError(EngineError):
    """The engine answered a call with an error."""

    def __init__(self, what: str, message: str, status: Status) -> None:
        """`message`: the engine's; `status`: gRPC's."""
        super().__init__(what, message)
        self.status = status


class CriCalls:
    """The connection to one socket, and the deadlines of the calls in progress. Used in one event loop."""

    def __init__(self, socket: str, *, timeout_s: float, on_call_end: Callable[[], None]) -> None:
        """See CriEngine."""
        self.socket = socket
        self._timeout_s = timeout_s
        self._on_call_end = on_call_end
        self._channel: Channel | None = None
        self._cut_off = asyncio.Event()  # during shutdown: calls that began before it have had their time
        self._cut_off_timer: asyncio.TimerHandle | None = None  # set once shutdown has begun
        self._unresponsive = False  # during shutdown: a call got no answer

    async def call(
        self, what: str, path: str, request: Message, answer: type[M], *, metadata: Mapping[str, str] | None = None
    ) -> M:
        """Send `request` to the method `path` ("/package.Service/Method"). `what` completes "could not ...".

        Raises CallRefusedError if the engine answers with an error, EngineAnswerLostError if it does not answer.
        """

        async def send() -> M:
            method: UnaryUnaryMethod[Message, M] = UnaryUnaryMethod(self._connection(), path, type(request), answer)
            return await method(request, metadata=dict(metadata or {}))

        return await self._limited(what, send())

    async def stream(
        self, what: str, path: str, requests: Sequence[Message], answer: type[M], *, metadata: Mapping[str, str]
    ) -> None:
        """Send `requests` in one stream, each after the answer to the one before. Raises as `call` does."""

        async def send() -> bool:
            method: StreamStreamMethod[Message, M] = StreamStreamMethod(self._connection(), path, Message, answer)
            async with method.open(metadata=dict(metadata)) as stream:
                for number, request in enumerate(requests, 1):
                    await stream.send_message(request, end=number == len(requests))
                    await stream.recv_message()
            return True

        await self._limited(what, send())

    def shorten_timeouts(self) -> None:
        """From now on wait at most `SHUTDOWN_CALL_TIMEOUT_S` for an answer, and for none after the first lost one."""
        if self._cut_off_timer is None:
            self._timeout_s = min(self._timeout_s, SHUTDOWN_CALL_TIMEOUT_S)
            loop = asyncio.get_running_loop()
            self._cut_off_timer = loop.call_later(self._timeout_s, self._cut_off.set)

    @property
    def shutting_down(self) -> bool:
        """Whether a shutdown has begun."""
        return self._cut_off_timer is not None

    def close(self) -> None:
        """Close the connection; a call in progress fails."""
        if self._cut_off_timer is not None:
            self._cut_off_timer.cancel()
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    async def _limited(self, what: str, send: Coroutine[Any, Any, T]) -> T:
        """The result of a call that is limited in time.

        It runs in a task of its own: grpclib cancels the tasks of a broken connection, and a task keeps count of its
        cancellations.
        """
        if self._unresponsive:
            send.close()
            raise EngineAnswerLostError(f"could not {what}: the engine has stopped answering", self._remedy())
        task = asyncio.ensure_future(send)
        try:
            return await self._answer(what, task)
        except GRPCError as error:
            message = one_line(error.message or str(error.status))
            if error.status in _LOST:
                raise self._lost(what, message) from error
            raise CallRefusedError(f"could not {what}", message, error.status) from error
        except _BROKEN as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(str(error))
            raise self._lost(what, reason or type(error).__name__) from error
        finally:
            self._on_call_end()

    async def _answer(self, what: str, task: "asyncio.Task[T]") -> T:
        """Wait for the call's end, its deadline, or the cut-off of calls that began before the shutdown."""
        waiters: set[asyncio.Task[Any]] = {task}
        if self._cut_off_timer is None:
            waiters.add(asyncio.ensure_future(self._cut_off.wait()))
        limit_s = self._timeout_s
        try:
            await asyncio.wait(waiters, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise self._lost(what, f"no answer within {limit_s:g} s")
        finally:
            pending = {waiter for waiter in waiters if waiter.cancel()}
            if pending:
                await asyncio.wait(pending, timeout=_CANCEL_S)

    def _lost(self, what: str, reason: str) -> EngineAnswerLostError:
        self._unresponsive = self._cut_off_timer is not None
        return EngineAnswerLostError(f"could not {what}: {reason}", self._remedy())

    def _connection(self) -> Channel:
        if self._channel is None:
            self._channel = Channel(path=self.socket)
        return self._channel

    def _remedy(self) -> str:
        return f"is the engine at {self.socket} alive? (`crictl info`, `journalctl -u containerd`)"
