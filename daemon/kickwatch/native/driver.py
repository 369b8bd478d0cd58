"""Runs kw-helper as a child process: a command goes out, `progress` lines and one final line come back.

helper.h describes the protocol. When its standard input is closed or its parent dies, the child removes what it has
created, and ends. Every wait has a deadline; a child that misses it is killed.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from kickwatch.errors import KickwatchError
from kickwatch.native import binary
from kickwatch.native.piped import PipedChild
from kickwatch.process.cancellation import run_shielded, timeout

START_S = 10.0
STOP_S = 60.0  # the child may have to remove ten thousand cgroups first


@dataclass(frozen=True)
class Answer:
    """A line of the child: its first word, the number after it, if there is one, and its `key=value` pairs."""

    word: str
    value: int | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    text: str = ""


class HelperError(KickwatchError):
    """The child refused a command, ended, or did not answer in time. `errno` is the kernel's, 0 if it is not known."""

    def __init__(self, what: str, remedy: str = "", errno: int = 0) -> None:
        """As KickwatchError."""
        super().__init__(what, remedy)
        self.errno = errno


def parse_answer(line: str) -> Answer:
    """Pure: `done 12345 policy=fifo` is word, value, fields; `text` is everything after word and value."""
    word, _, rest = line.strip().partition(" ")
    first, _, after = rest.partition(" ")
    value = int(first) if first.isascii() and first.isdecimal() else None
    text = rest if value is None else after
    pairs = (part.partition("=") for part in text.split() if "=" in part)
    return Answer(word, value, {key: content for key, _, content in pairs}, text)


class Helper:
    """A running child of one mode (`canary`, `reproduce`, `barriers`). Use as `async with Helper([...]) as helper`."""

    def __init__(
        self,
        arguments: Sequence[str | Path],
        *,
        program: Path | None = None,
        start_s: float = START_S,
        stop_s: float = STOP_S,
    ) -> None:
        """`arguments` begin with the mode. `stop_s` is the limit for the child's clean-up when it is to end."""
        self._arguments = [str(argument) for argument in arguments]
        self._program = program
        self._start_s = start_s
        self._stop_s = stop_s
        self._child: PipedChild | None = None
        self._answer_pending = False
        self.ready = Answer("")

    @property
    def pid(self) -> int:
        """The child's process id; its name (`comm`) is `kw-helper`."""
        return self._running().pid

    @property
    def lives(self) -> bool:
        """True if the child was started, has not ended, and has answered every command."""
        return self._child is not None and self._child.runs and not self._answer_pending

    async def __aenter__(self) -> Self:
        """Start the child and wait for its `ready`. Raises HelperError."""
        program = self._program if self._program is not None else await asyncio.to_thread(binary, "kw-helper")
        self._child = PipedChild([program, *self._arguments])
        try:
            await _start(self._child, program)
            self.ready = await self._final(self._start_s, "start", None)
        except BaseException:
            await self._close_shielded()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close its standard input and wait for its clean-up; kill it at the deadline."""
        await self._close_shielded()

    async def ask(self, command: str, timeout_s: float, progress: Callable[[int], None] | None = None) -> Answer:
        """Send one command and return its `done` line; `progress` is called with the number of each progress line.

        Raises HelperError on an `error` line, if the child has ended, and after `timeout_s`.
        """
        child = self._running()
        if self._answer_pending:
            raise HelperError(f"{self._title} lost a command before `{command}`", "start a new one")
        self._answer_pending = True  # a late answer must not be taken for that of the next command
        with suppress(BrokenPipeError, BlockingIOError):  # it has ended or hangs: the read below finds out
            child.write(f"{command}\n".encode("ascii"))
        answer = await self._final(timeout_s, command, progress)
        self._answer_pending = False
        return answer

    @property
    def _title(self) -> str:
        """The program and its mode, for errors."""
        return f"kw-helper {self._arguments[0]}"

    async def _final(self, timeout_s: float, command: str, progress: Callable[[int], None] | None) -> Answer:
        try:
            async with timeout(timeout_s):
                answer = await self._read(progress)
        except TimeoutError as error:
            what = f"{self._title} gave no answer to `{command}` in {timeout_s:g} s"
            raise HelperError(what, "is the node busy?") from error
        if answer is None:
            complaint = await self._close_shielded()
            status = self._running().status
            raise HelperError(f"{self._title} ended during `{command}` (status {status}) {complaint}".strip())
        if answer.word == "error":
            self._answer_pending = False
            raise HelperError(f"{self._title}: `{command}`: {answer.text}", errno=answer.value or 0)
        return answer

    async def _read(self, progress: Callable[[int], None] | None) -> Answer | None:
        """The next line that is not a progress line; None at the end of the output."""
        child = self._running()
        while line := await child.read_line():
            answer = parse_answer(line.decode("utf-8", errors="replace"))
            if answer.word != "progress":
                return answer
            if progress is not None and answer.value is not None:
                progress(answer.value)
        return None

    def _running(self) -> PipedChild:
        if self._child is None:
            raise HelperError(f"{self._title} was not started", "enter it with `async with`")
        return self._child

    async def _close_shielded(self) -> str:
        """Cancellations wait for it, at most `stop_s`: no child outlives this process. Returns its standard error."""
        return await run_shielded(self._running().end(self._stop_s))


async def _start(child: PipedChild, program: Path) -> None:
    """Raises HelperError."""
    try:
        await child.start()
    except OSError as error:
        raise HelperError(f"{program} cannot be started ({error.strerror})", "rebuild it: `make native`") from error
