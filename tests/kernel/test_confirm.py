"""The command with which an alert can be confirmed: bpftrace accepts it, and its output has the function."""

import asyncio
import shutil

import pytest

from builders import trial
from kickwatch.model import Cell, Origin, Path
from kickwatch.native.driver import Helper
from kickwatch.node.isolation import isolated_cpus
from kickwatch.observe.control import control_cpus
from kickwatch.outlets.broadcast import bpftrace_line
from kickwatch.outlets.isolation import confirm_line
from kickwatch.report.run_words import WORK_LINE
from needs import ipi_rung

pytestmark = pytest.mark.kernel


async def shown_by(line: str, *commands: str) -> bytes:
    """The output of bpftrace over 8 s in which the helper's first CPU asks the others. Each command is the helper's."""
    assert shutil.which("bpftrace"), "the command is bpftrace's: deploy/setup test-packages"
    shown = await asyncio.create_subprocess_shell(
        line.replace("interval:s:60", "interval:s:8"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert shown.stdout is not None
    output = await shown.stdout.readuntil(b"Attaching 2 probes...\n")
    await asyncio.sleep(3)  # its first line comes before its probes are armed
    async with Helper(["barriers", "23", "7", ",".join(map(str, await cpus()))]) as helper:
        for command in commands:
            await helper.ask(command, 20)
    output += (await shown.communicate())[0]
    assert await shown.wait() == 0, output
    return output


async def cpus() -> tuple[int, ...]:
    return control_cpus(await asyncio.to_thread(isolated_cpus))


@pytest.mark.usefixtures("tracefs")  # bpftrace needs it
async def test_bpftrace_accepts_the_command_and_shows_the_function() -> None:
    cell = Cell(reason="ipi_mb", func="ipi_mb", origin=Origin.MEMBARRIER, path=Path.OTHER, requests=1)
    output = await shown_by(bpftrace_line(cell, ipi_rung()), "many", "single")
    assert b"@[ipi_mb," in output
    assert b"ipi_rseq" not in output


@pytest.mark.usefixtures("tracefs")
async def test_the_command_of_broken_isolation_shows_the_isolated_cpus_alone() -> None:
    if ipi_rung() != "csd":
        pytest.skip("feature: no tracepoint that names the CPU (6.5)")
    sender, target, *_ = await cpus()
    output = await shown_by(confirm_line(trial(isolated_cpus=(target, 4000, 4001)), None), "many")
    assert f"@[{target}, ipi_mb,".encode() in output
    assert f"@[{sender}, ".encode() not in output


@pytest.mark.usefixtures("tracefs")
async def test_the_command_that_finds_work_shows_functions_and_who_queues_them() -> None:
    """Work is queued all the time on any node; the stack says by whom."""
    output = await shown_by(WORK_LINE, "many")
    assert b"workqueue" in output or b"queue_work" in output
    assert output.count(b"@[") >= 1
