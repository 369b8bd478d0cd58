"""Output that cannot be written is one line and a status, whatever the command; standard error may fail altogether."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from command import DIES_WITH_US
from slowness import SLOWNESS
from watching import serial

ROOT = Path(__file__).parents[3]
WORKING, FAILING = "check-config deploy/kickwatch.toml", "check-config /nonexistent"
TINY = """
from kickwatch.detect.simulate import study
study.QUICK = ((study.TaskKind.NULL, 50.0, 8, 2), (study.TaskKind.EFFECT, study.THRESHOLD, 8, 2))
from kickwatch.cli import main
main()
"""
UNWRITABLE = "kickwatch: cannot write to standard output ({}): redirect it to a file or pipe that can be written\n"
FULL = UNWRITABLE.format("No space left on device")
CLOSED = UNWRITABLE.format("Bad file descriptor")
READER_GONE = 141


def shell(line: str, program: str = f"{sys.executable} -m kickwatch") -> "subprocess.CompletedProcess[str]":
    """Run a line of bash in which `kickwatch` is kickwatch; the status is that of the leftmost part that failed."""
    script = f'set -o pipefail; kickwatch() {{ {program} "$@"; }}; {line}'
    command = [*DIES_WITH_US, "bash", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=60 * SLOWNESS, cwd=ROOT, check=False)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More of them than a pipe holds when they are replayed as JSON; the last condition is broadcasting."""
    path = tmp_path_factory.mktemp("records") / "trials.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(serial(3)) + b"\n" for _ in range(400)))
    return path


@pytest.mark.parametrize("command", ["--help", WORKING])
def test_a_full_or_closed_standard_output(command: str) -> None:
    for where, complaint in (("/dev/full", FULL), ("&-", CLOSED)):
        done = shell(f"kickwatch {command} >{where}")
        assert (done.returncode, done.stderr) == (1, complaint), where
    done = shell(f"kickwatch {command} | true")
    assert (done.returncode, done.stderr) == (READER_GONE, "")


def test_a_full_or_closed_standard_output_of_replay_and_simulate(records: Path) -> None:
    tiny = f"{sys.executable} -c {shlex.quote(TINY)}"
    for line, program in (
        (f"kickwatch replay {records}", None),
        (f"kickwatch replay --json {records}", None),
        ("kickwatch simulate --quick --jobs 1", tiny),
    ):
        runs = (shell, lambda text: shell(text, tiny))[program is not None]
        for where, complaint in (("/dev/full", FULL), ("&-", CLOSED)):
            done = runs(f"{line} >{where}")
            assert (done.returncode, done.stderr) == (1, complaint), (line, where)


def test_a_reader_that_has_seen_enough(records: Path) -> None:
    done = shell(f"kickwatch replay --json {records} | head -1")
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (READER_GONE, "", 1)


@pytest.mark.parametrize("where", ["/dev/full", "&-"])
def test_a_full_or_closed_standard_error_changes_no_status(where: str) -> None:
    done = shell(f"kickwatch {FAILING} 2>{where}")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")
    done = shell(f"kickwatch {WORKING} 2>{where}")
    assert (done.returncode, done.stdout) == (0, "deploy/kickwatch.toml: valid\n")


def test_nothing_can_be_written_at_all(records: Path) -> None:
    assert shell(f"kickwatch {WORKING} >/dev/full 2>/dev/full").returncode == 1
    assert shell(f"kickwatch {FAILING} >/dev/full 2>/dev/full").returncode == 2
    assert shell(f"kickwatch replay {records} <&- >&- 2>&-").returncode == 1


OPENS_A_FILE = """
import sys
from kickwatch.process import standard_streams
standard_streams.prepare()
with open(sys.argv[1], "w") as file:
    print("a complaint", file=sys.stderr)
    sys.exit(file.fileno() < 3)
"""


def test_a_closed_stream_leaves_its_number_to_no_file_of_ours(tmp_path: Path) -> None:
    """The next file that is opened would be number 2, and get what is written to standard error."""
    file = tmp_path / "history"
    done = shell(f"kickwatch {file} <&- >&- 2>&-", f"{sys.executable} -c {shlex.quote(OPENS_A_FILE)}")
    assert (done.returncode, file.read_text()) == (0, "")


def test_what_an_encoding_lacks_is_written_as_an_escape(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"gr\xc3\xbc\xe6\xbc\xa2\xff")).write_text("# the defaults\n", encoding="utf-8")
    file = f"$'{tmp_path}/gr\\xc3\\xbc\\xe6\\xbc\\xa2\\xff'"
    for encoding, name in (("latin-1", "gr\xfc\\u6f22\\udcff"), ("ascii", "gr\xfc\u6f22\\udcff")):
        found = tmp_path / "found"
        done = shell(f"PYTHONIOENCODING={encoding} kickwatch check-config {file} >{found}")
        assert (done.returncode, done.stderr) == (0, "")
        written = "latin-1" if encoding == "latin-1" else "utf-8"
        assert found.read_text(encoding=written) == f"{tmp_path}/{name}: valid\n"
    done = shell(f"PYTHONIOENCODING=ascii kickwatch {FAILING} 2>/dev/full")
    assert (done.returncode, done.stderr) == (2, "")


def test_a_picture_that_cannot_be_drawn_costs_no_figures() -> None:
    for picture, why in (("/dev/full", "No space left on device"), ("/nonexistent/x.svg", "No such file or directory")):
        done = shell(
            f"kickwatch simulate --quick --jobs 1 --plot {picture}", f"{sys.executable} -c {shlex.quote(TINY)}"
        )
        assert done.returncode == 1
        assert "attributed" in done.stdout
        assert done.stderr.startswith(f"kickwatch: {picture} cannot be written ({why}): ")
        assert done.stderr.count("\n") == 1


BROKEN_PIPE = """
import kickwatch.commands.check_config as module
def broken(*_):
    raise BrokenPipeError(32, "Broken pipe")
module.load = broken
from kickwatch.cli import main
main()
"""


def test_a_broken_pipe_elsewhere_is_no_reader_that_is_gone() -> None:
    """An engine's socket, for one. click takes any EPIPE for standard output's and ends without a word."""
    done = shell(f"kickwatch {WORKING}", f"{sys.executable} -c {shlex.quote(BROKEN_PIPE)}")
    assert done.returncode == 1
    assert "BrokenPipeError" in done.stderr


def test_a_non_blocking_pipe_is_waited_for(records: Path) -> None:
    """Whoever shares a pipe or terminal may have made it non-blocking; nothing is lost, and nothing fails."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    command = [*DIES_WITH_US, sys.executable, "-m", "kickwatch", "replay", "--json", str(records)]
    with subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE, text=True) as process:
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            assert pipe.read().count(b"\n") == 401
        assert process.wait(60 * SLOWNESS) == 3
        assert process.stderr is not None
        assert process.stderr.read() == ""
