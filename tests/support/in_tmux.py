"""Commands in a real terminal emulator: what a person would see, in any size, with and without colours."""

import re
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from slowness import SLOWNESS

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Tmux:
    """A tmux server of the test. Each command has a session with a name; all are killed at the end."""

    def __init__(self, directory: Path) -> None:
        """`directory` gets the server's socket, and the exit status of each command."""
        self._directory = directory
        self._tmux = ["tmux", "-S", str(directory / "tmux"), "-f", "/dev/null"]

    def start(self, name: str, command: Sequence[str], columns: int, rows: int, *, colour: bool = True) -> None:
        """Start a command in a terminal of this size; without colours as NO_COLOR asks for it."""
        setting = "unset NO_COLOR" if colour else "export NO_COLOR=1"
        # the shell stays, so that what the command leaves on the terminal can be seen
        script = f"{setting}; {shlex.join(command)}; echo ended with $?; exec sleep 600"
        self._run("new-session", "-d", "-s", name, "-x", str(columns), "-y", str(rows), script)

    def screen(self, name: str, *, colour: bool = False) -> str:
        """What the terminal shows now, row by row; with its colours as escape codes."""
        return self._run("capture-pane", "-p", "-t", name, *(["-e"] if colour else []))

    def rows(self, name: str) -> list[str]:
        """The rows of the terminal, from the first to the last."""
        return self.screen(name).split("\n")[:-1]

    def resize(self, name: str, columns: int, rows: int) -> None:
        """Give the terminal another size."""
        self._run("resize-window", "-t", name, "-x", str(columns), "-y", str(rows))

    def press(self, name: str, keys: str) -> None:
        """Type keys, as tmux names them: `q`, `C-c`."""
        self._run("send-keys", "-t", name, keys)

    def until(self, name: str, true: Callable[[str], bool], what: str, timeout_s: float = 30.0) -> str:
        """Wait until that is true of the screen, and return the screen."""
        deadline = time.monotonic() + timeout_s * SLOWNESS
        while not true(screen := self.screen(name)):
            assert time.monotonic() < deadline, f"waited for {what}:\n{screen}"
            time.sleep(0.1)
        return screen

    def shows(self, name: str, *parts: str, timeout_s: float = 30.0) -> str:
        """Wait until the screen contains all parts."""
        return self.until(name, lambda screen: all(part in screen for part in parts), f"{parts}", timeout_s)

    def __enter__(self) -> Self:
        """The server starts with the first command."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill the server, and with it every command."""
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)

    def _run(self, *arguments: str) -> str:
        return subprocess.run([*self._tmux, *arguments], check=True, capture_output=True, text=True).stdout
