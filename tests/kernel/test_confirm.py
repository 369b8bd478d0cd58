"""The command with which an alert can be confirmed: bpftrace accepts it, and its output has the function."""

import asyncio
import shutil

import pytest

from kickwatch.model import Cell, Origin, Path
from kickwatch.native.driver import Helper
from kickwatch.node.isolation import isolated_cpus
from kickwatch.observe.control import control_cpus
from kickwatch.outlets.broadcast import bpftrace_line
from needs import ipi_rung

pytestmark = pytest.mark.kernel


@pytest.mark.usefixtures("tracefs")  # bpftrace needs it
async def test_bpftrace_accepts_the_command_and_shows_the_function() -> None:
    assert shutil.which("bpftrace"), "the command is bpftrace's: deploy/setup test-packages"
    cell = Cell(reason="ipi_mb", func="ipi_mb", origin=Origin.MEMBARRIER, path=Path.OTHER, requests=1)
    line = bpftrace_line(cell, ipi_rung()).replace("interval:s:60", "interval:s:8")
    shown = await asyncio.create_subprocess_shell(
        line, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert shown.stdout is not None
    output = await shown.stdout.readuntil(b"Attaching 2 probes...\n")
    await asyncio.sleep(3)  # its first line comes before its probes are armed
    cpus = await asyncio.to_thread(control_cpus, isolated_cpus())
    async with Helper(["barriers", "23", "7", ",".join(map(str, cpus))]) as helper:
        await helper.ask("many", 20)
        await helper.ask("single", 20)
    output += (await shown.communicate())[0]
    assert await shown.wait() == 0, output
    assert b"@[ipi_mb," in output
    assert b"ipi_rseq" not in output
