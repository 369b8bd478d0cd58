"""slab_mutex made contended by four readers of /proc/slabinfo: counted, at the right address, with its holders."""

import asyncio
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator

import pytest

from kickwatch.ledger import total_waits
from kickwatch.model import Window
from kickwatch.observe.observatory import Observatory

pytestmark = pytest.mark.kernel

READERS = 4
READ_LOOP = ["/bin/sh", "-c", "for i in $(seq 250); do cat /proc/slabinfo > /dev/null; done"]
COUNT_ENDS = (
    "tracepoint:lock:contention_begin /(args->flags & 32) && args->lock_addr == {address}/ {{ @in[tid] = 1; }} "
    "tracepoint:lock:contention_end /args->lock_addr == {address} && @in[tid]/ "
    "{{ delete(@in[tid]); @ends = count(); }} "
    "END {{ clear(@in); }}"
)


@pytest.fixture
async def observatory() -> AsyncIterator[Observatory]:
    armed = await Observatory.open()
    assert armed.observers.contention == "tracepoint", armed.losses
    yield armed
    armed.close()


def read_slabinfo() -> None:
    readers = [subprocess.Popen(READ_LOOP) for _ in range(READERS)]
    assert [reader.wait() for reader in readers] == [0] * READERS


async def contend(observatory: Observatory) -> Window:
    before = await observatory.sample()
    await asyncio.to_thread(read_slabinfo)
    return observatory.window("test", before, await observatory.sample())


async def test_waits_are_counted_and_their_holders_named(observatory: Observatory) -> None:
    assert observatory.contention is not None
    if not observatory.contention.slab_mutex:  # two reads at the start need not have met: the next wait teaches it
        await contend(observatory)
        await observatory.between_windows()
    window = await contend(observatory)
    waits, wait_ns = total_waits(window.waits)
    assert waits > 50
    assert wait_ns > waits * 100
    assert sum(window.wait_histogram_ns) == waits
    assert {wait.waiter for wait in window.waits} == {"slab_start"}
    named = sum(wait.waits for wait in window.waits if wait.holder == "cat")
    assert named > 0.8 * waits, window.waits
    assert window.lost_events == 0


async def test_bpftrace_counts_the_same_waits_at_the_same_address(observatory: Observatory) -> None:
    assert shutil.which("bpftrace"), "bpftrace is this test's second source: apt-get install bpftrace"
    assert observatory.contention is not None
    if not observatory.contention.slab_mutex:
        await contend(observatory)
        await observatory.between_windows()
    program = COUNT_ENDS.format(address=observatory.contention.slab_mutex)
    second = await asyncio.create_subprocess_exec("bpftrace", "-e", program, stdout=asyncio.subprocess.PIPE)
    assert second.stdout is not None
    assert (await second.stdout.readline()).startswith(b"Attaching")
    await asyncio.sleep(3)  # it says so before its probes are armed
    window = await contend(observatory)
    second.send_signal(signal.SIGINT)
    said = (await second.communicate())[0].decode()
    (theirs,) = re.findall(r"@ends: (\d+)", said)
    assert total_waits(window.waits)[0] == pytest.approx(int(theirs), rel=0.02)
