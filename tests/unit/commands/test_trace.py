"""`kickwatch trace` without an engine: where the file goes, and what the daemon must not load."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from kickwatch.cli import cli
from kickwatch.commands.trace import _write
from kickwatch.errors import OutputError

CONTENT = b'{"traceEvents": []}\n'


def test_a_file_is_replaced_whole_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "trace.json"
    out.write_text("older and longer than the new content, by far")
    _write(out, CONTENT)
    assert (out.read_bytes(), [*tmp_path.iterdir()]) == (CONTENT, [out])


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    out, link = tmp_path / "trace.json", tmp_path / "link.json"
    link.symlink_to(out)
    _write(link, CONTENT)
    assert link.is_symlink()
    assert out.read_bytes() == CONTENT


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    """As does /dev/null, which root must not replace by a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR)
    try:
        _write(pipe, CONTENT)
        assert os.read(reader, 1000) == CONTENT
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_a_directory_that_went_away_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="choose another file"):
        _write(tmp_path / "gone" / "trace.json", CONTENT)


def test_out_is_checked_before_anything_starts(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["trace", "--out", str(tmp_path / "gone" / "trace.json")])
    assert "cannot be written" in str(done.exception)
    assert CliRunner().invoke(cli, ["trace"]).exit_code == 2  # --out is required


def test_the_daemon_loads_no_part_of_it() -> None:
    script = "import sys, kickwatch.commands.run, kickwatch.service.daemon; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "kickwatch.observe.csd" in loaded
    for part in ("kickwatch.trace", "kickwatch.observe.tracer", "kickwatch.observe.ring", "kickwatch.commands.trace"):
        assert [module for module in loaded if module.startswith(part)] == []
