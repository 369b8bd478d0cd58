"""A command that is broken for a narrow terminal is the same command when a shell reads it."""

import os
import subprocess
from pathlib import Path

import pytest

from builders import RCU, kick
from kickwatch.outlets.broadcast import bpftrace_line
from kickwatch.terminal.shell_lines import shell_lines

COMMANDS = [
    bpftrace_line(kick(1)),
    bpftrace_line(kick(1), "kprobe"),
    bpftrace_line(RCU),
    bpftrace_line(None),
    "kickwatch trial --record trial.jsonl; kickwatch report --bug trial.jsonl",
    'kickwatch trial --set "workload.image=a b" --set workload.network=bridge --containers 50 --until-decided',
]


def arguments(line: str, directory: Path) -> list[list[str]]:
    """What each program of the line gets, with the spaces of an argument as one."""
    program = directory / "print"
    program.write_text("#!/bin/sh\nfor word; do printf '%s\\0' \"$word\"; done; printf '\\0'\n", encoding="ascii")
    program.chmod(0o755)
    for name in ("bpftrace", "kickwatch"):
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to(program)
    environment = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment, check=True)
    runs = done.stdout.split("\0\0")
    return [[" ".join(word.split()) for word in run.split("\0")] for run in runs if run]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_broken_lines_are_the_same_command(command: str, columns: int, tmp_path: Path) -> None:
    lines = shell_lines(command, columns, indent=4)
    assert arguments("\n".join(lines), tmp_path) == arguments(command, tmp_path)
    longest_word = max(map(len, command.split(" ")))
    assert max(map(len, lines)) <= max(columns, longest_word + 6 + len(" \\"))


def test_a_line_that_fits_stays_whole() -> None:
    assert shell_lines("kickwatch run", 80) == ["  kickwatch run"]


def test_outside_of_quotes_a_backslash_says_that_it_goes_on() -> None:
    assert shell_lines("kickwatch trial --until-decided --json", 30) == [
        "  kickwatch trial \\",
        "    --until-decided --json",
    ]
