"""Publishes the metrics as a file for node_exporter's textfile collector."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from kickwatch.errors import KickwatchError
from kickwatch.journal.trouble import TroubleLog
from kickwatch.outlets.metrics.registry import Metrics
from kickwatch.process.cancellation import run_shielded

EVERY_S = 15.0


class Textfile:
    """A file of metrics that is always complete: a new file is written and renamed over the old one."""

    def __init__(self, metrics: Metrics, path: str) -> None:
        """`path` should end in `.prom`: node_exporter's textfile collector ignores other files."""
        self._metrics = metrics
        self._path = Path(path)

    async def write(self) -> None:
        """Replace the file; everybody can read it. Raises KickwatchError if that fails, and the old file stays.

        If the caller is cancelled, this ends with the write: the thread cannot be stopped.
        """
        await run_shielded(asyncio.to_thread(self._write))

    def _write(self) -> None:
        text = self._metrics.textfile()
        new = self._path.with_name(f".{self._path.name}.new")  # one writer per node: a fixed name leaves no litter
        try:
            new.unlink(missing_ok=True)
            with new.open("xb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(text)
            new.replace(self._path)
        except OSError as error:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            what = f"metrics.textfile: cannot write {self._path} ({error.strerror})"
            raise KickwatchError(what, "check that its directory exists and has free space") from error

    async def remove(self) -> None:
        """Remove the file, or what it says would look current for ever. One that cannot be removed stays."""
        with suppress(OSError):
            await asyncio.to_thread(self._path.unlink, missing_ok=True)


class TextfileWriter:
    """Writes the file at once and then every EVERY_S seconds, trials or not, until it is closed."""

    def __init__(self, textfile: Textfile, refresh: Callable[[], Awaitable[None]], trouble: TroubleLog) -> None:
        """`refresh` brings the figures up to date, and raises nothing that ends the writing.

        A failure is logged to `trouble` once. Call it in the event loop.
        """
        self._textfile = textfile
        self._refresh = refresh
        self._trouble = trouble
        self._task = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Stop writing, and remove the file, also if the caller is cancelled meanwhile."""
        await run_shielded(self._close())

    async def _close(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})  # a write under way would put its file back after the removal
        await self._textfile.remove()

    async def _keep(self) -> None:
        while True:
            await self._write()
            await asyncio.sleep(EVERY_S)

    async def _write(self) -> None:
        try:
            await self._refresh()
            await self._textfile.write()
        except KickwatchError as error:
            self._trouble.failed(error.what, error.remedy)
        except OSError as error:
            self._trouble.failed(f"metrics.textfile cannot be written ({error})", "kickwatch tries again")
        else:
            self._trouble.works()
