"""`kickwatch watch` at a pseudo-terminal, with a daemon that is made up: keys, signals, sizes, and how it leaves it."""

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from at_a_terminal import INTERRUPT, KICKWATCH, AtATerminal
from kickwatch.node.lock import NodeLock
from kickwatch.node.processes import start_ticks
from kickwatch.outlets.status import Status, write
from slowness import SLOWNESS
from watched_status import FAULTY, STATUS, STREAMS

# `kickwatch` with the files of the test.
SCRIPT = """
import sys
from pathlib import Path
from kickwatch.outlets import status
directory = Path(sys.argv[1])
status.look.__defaults__ = (directory / "status.json", directory / "lock", *status.look.__defaults__[2:])
if sys.argv[2] == "break":
    from kickwatch.terminal import watch
    draw, drawn = watch.screen, []
    def broken(*arguments, **keywords):
        drawn.append(1)
        if len(drawn) > 1:
            raise ZeroDivisionError
        return draw(*arguments, **keywords)
    watch.screen = broken
sys.argv = ["kickwatch", *sys.argv[3:]]
from kickwatch.cli import main
main()
"""
ALTERNATE, NORMAL, NO_CURSOR, CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25l", "\x1b[?25h"


class Node:
    """A directory with the files of a daemon. This process is the daemon while it holds the lock."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lock = NodeLock(directory / "lock")

    def publish(self, status: Status = STATUS, **changed: object) -> None:
        now_s = time.time()
        ours = {"pid": os.getpid(), "start_ticks": start_ticks("self"), "updated_unix_s": now_s}
        write(replace(status, **(ours | changed)), self.directory / "status.json")

    def command(self, *arguments: str, way: str = "run") -> list[str]:
        return [sys.executable, "-c", SCRIPT, str(self.directory), way, "watch", "--interval", "0.2", *arguments]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    one = Node(tmp_path)
    with one.lock:
        one.publish()
        yield one


CLEARED = "\x1b[2J"


def raw(command: AtATerminal) -> str:
    return bytes(command._shown).decode("utf-8", "replace")


def last_row(command: AtATerminal) -> int:
    """The lowest row that was written to since the screen was cleared."""
    _, _, last = raw(command).rpartition(CLEARED)
    return max((int(row) for row in re.findall(r"\x1b\[(\d+);1H", last)), default=0)


def settings(command: AtATerminal) -> list[object]:
    assert command._master is not None
    return termios.tcgetattr(command._master)


def resize(command: AtATerminal, columns: int, rows: int) -> None:
    assert command._master is not None
    fcntl.ioctl(command._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@pytest.mark.parametrize(
    "end", ["q", "Q", INTERRUPT, signal.SIGTERM, signal.SIGHUP], ids=["q", "Q", "ctrl-c", "term", "hup"]
)
def test_every_end_restores_the_terminal_and_is_no_failure(node: Node, end: str | signal.Signals) -> None:
    with AtATerminal(node.command()) as command:
        before = command.settings_before
        command.shows("EVIDENCE")
        assert settings(command) != before
        if isinstance(end, str):
            command.press(end)
        else:
            command.send(end)
        command.until(lambda: raw(command).endswith(NORMAL), "the other screen")
        assert command.ended() == 0
        assert settings(command) == before
    assert raw(command).count(ALTERNATE) == raw(command).count(NORMAL) == 1
    assert raw(command).rindex(CURSOR) > raw(command).rindex(NO_CURSOR)


def test_a_bug_restores_it_as_well(node: Node) -> None:
    with AtATerminal(node.command(way="break")) as command:
        before = command.settings_before
        command.shows("ZeroDivisionError")
        assert command.ended() == 1
        assert settings(command) == before
    _, _, after = raw(command).rpartition(NORMAL)
    assert "ZeroDivisionError" in after, "the traceback must be on the screen that stays"


def test_ctrl_z_gives_the_shell_its_screen_and_fg_draws_again(node: Node) -> None:
    with AtATerminal(["bash", "--norc", "--noprofile", "-i"]) as shell:
        command = " ".join(f"'{word}'" for word in node.command())
        shell.press(f"{command.replace(chr(10), chr(10))}\n")
        shell.until(lambda: "EVIDENCE" in shell.text, "the screen")
        shell.press("\x1a")
        shell.until(lambda: raw(shell).count(NORMAL) == 1, "the shell's screen")
        shell.press("fg\n")
        shell.until(lambda: raw(shell).count(ALTERNATE) == 2, "the screen again")
        shell.press("q")
        shell.until(lambda: raw(shell).count(NORMAL) == 2, "the end")
        shell.press("echo done $?\n")
        shell.shows("done 0")


def test_a_job_in_the_background_that_is_ended_there_ends_well(node: Node) -> None:
    """It stops at the terminal's settings (SIGTTOU); `kill %1` sends both signals."""
    script = """
set -m
state() { grep -o '^State:.[A-Z]' "/proc/$!/status" 2>/dev/null; }
"$@" &
until [[ $(state) == *T ]]; do sleep 0.05; done
kill -TERM $!; kill -CONT $!
while [[ $(state) == *[RSDT] ]]; do sleep 0.05; done
wait $!
echo "exit $?"
"""
    with AtATerminal(["bash", "-c", script, "bash", *node.command()]) as command:
        command.shows("exit ")
        assert "exit 0\n" in command.text
        assert "Traceback" not in command.text


def test_only_what_changes_is_sent(node: Node) -> None:
    with AtATerminal(node.command()) as command:
        command.shows("q: quit")  # the last row
        whole = len(raw(command))
        time.sleep(1.5)
        node.publish(streams=STREAMS)
        seconds = 1.5
        sent = len(raw(command)) - whole
        assert sent < 0.2 * whole * seconds, f"{sent} bytes in {seconds} s, a whole screen is {whole}"
        assert raw(command).count("EVIDENCE") == 1
        command.press("\x0c")
        command.until(lambda: raw(command).count("EVIDENCE") == 2, "a whole screen after Ctrl-L")
        command.press("q")
        assert command.ended() == 0


def test_it_follows_the_size_of_the_terminal(node: Node) -> None:
    with AtATerminal(node.command()) as command:
        command.shows("EVIDENCE")
        for columns, rows in ((200, 50), (20, 5), (80, 24)):
            drawn = raw(command).count(CLEARED)
            resize(command, columns, rows)
            command.until(lambda n=drawn: raw(command).count(CLEARED) > n, "a new screen")
            command.until(lambda rows=rows: last_row(command) == rows, f"a screen of {rows} rows")
        command.press("q")
        assert command.ended() == 0


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_left_out_where_nobody_wants_them(node: Node, environment: dict[str, str], coloured: bool) -> None:
    node.publish(FAULTY)
    with AtATerminal(node.command(), environment={"NO_COLOR": "", **environment}) as command:
        command.shows("q: quit")
        command.press("q")
        assert command.ended() == 0
    assert bool(re.search(r"\x1b\[[0-9;]*m", raw(command))) is coloured
    assert "BROADCASTING for" in command.text


def test_a_terminal_without_a_cursor_gets_lines(node: Node) -> None:
    with AtATerminal(node.command(), environment={"TERM": "dumb"}) as command:
        command.shows("daemon: running")
        command.press(INTERRUPT)
        assert command.ended() == 0
    assert "\x1b" not in raw(command)


def test_it_ends_with_its_terminal(node: Node) -> None:
    with AtATerminal(node.command()) as command:
        command.shows("EVIDENCE")
        command.close()
        assert command.ended(10) == 0


def test_lines_in_a_pipe_end_with_a_signal_or_with_their_reader(node: Node) -> None:
    done = subprocess.Popen(node.command(), stdout=subprocess.PIPE, text=True)
    assert done.stdout is not None
    assert "daemon: running" in done.stdout.readline()
    node.publish(FAULTY)
    said = [done.stdout.readline() for _ in range(6)]
    assert any("condition: broadcasting" in line for line in said), said
    done.send_signal(signal.SIGINT)
    assert done.wait(10 * SLOWNESS) == 0
    assert "\x1b" not in "".join(said)
    done.stdout.close()

    head = subprocess.Popen(node.command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert head.stdout is not None
    head.stdout.readline()
    head.stdout.close()  # nothing more is written, and yet it ends
    assert head.wait(10 * SLOWNESS) == 141
    assert head.stderr is not None
    assert head.stderr.read() == ""
    head.stderr.close()


@pytest.mark.parametrize(("status", "exit_status"), [(STATUS, 4), (FAULTY, 3)])
def test_a_daemon_that_does_not_write_any_more_is_not_quiet(node: Node, status: Status, exit_status: int) -> None:
    """Stopped by a signal, or stuck: it holds its lock, and its file says what it believed."""
    node.publish(status, updated_unix_s=time.time() - 330)
    done = subprocess.run(node.command("--once"), capture_output=True, text=True, check=False)
    assert (done.returncode, "NO NEWS for 5 min" in done.stdout) == (exit_status, True)


@pytest.mark.parametrize(("status", "exit_status"), [(STATUS, 0), (FAULTY, 3)])
def test_once_is_one_whole_screen(node: Node, status: Status, exit_status: int) -> None:
    node.publish(status)
    done = subprocess.run(node.command("--once"), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (exit_status, "")
    assert "EVIDENCE" in done.stdout
    assert "budget: " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    shown = subprocess.run(node.command("--once", "--json"), capture_output=True, text=True, check=False)
    found = json.loads(shown.stdout)
    assert (found["presence"], shown.returncode) == ("running", exit_status)
    assert msgspec.convert(found["status"], Status, strict=False).condition == status.condition


def test_once_without_a_daemon(tmp_path: Path) -> None:
    done = subprocess.run(Node(tmp_path).command("--once"), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines()[1] == "NOT RUNNING"


def test_wrong_intervals_are_refused() -> None:
    for interval in ("0", "0.1", "-1", "x"):
        done = subprocess.run(
            [*KICKWATCH, "watch", "--interval", interval], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert done.stderr.startswith("kickwatch: ")
