"""Waits for slab_mutex, made by four readers of /proc/slabinfo: counted, at the right address, with holders."""

import asyncio
import ctypes
import errno
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kickwatch.detect.figures import total_waits
from kickwatch.model import Window, WindowKind
from kickwatch.native.driver import Helper
from kickwatch.observe import contention
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.contention import ContentionObserver, ContentionSample, WaitTotals
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.readings import HEALTHY
from kickwatch.observe.symbols import Symbols
from kickwatch.observe.task_layout import learn_comm_offset
from refused import refused
from replay import Replay

pytestmark = pytest.mark.kernel

READERS = 4
READ_LOOP = ["/bin/sh", "-c", "for i in $(seq 250); do cat /proc/slabinfo > /dev/null; done"]
COUNT_ENDS = (
    "tracepoint:lock:contention_begin /(args->flags & 32) && args->lock_addr == {address}/ {{ @in[tid] = 1; }} "
    "tracepoint:lock:contention_end /args->lock_addr == {address} && @in[tid]/ "
    "{{ delete(@in[tid]); @ends = count(); }} "
    "END {{ clear(@in); }} "
    'interval:s:1 {{ printf("armed\\n"); }}'  # it is armed last
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


def test_the_place_of_a_task_s_name_is_learned_in_a_pid_namespace_too() -> None:
    """As in a pod, where a thread's id is not the one that the probe sees."""
    learn = "from kickwatch.observe.task_layout import learn_comm_offset; print(learn_comm_offset())"
    inside = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", learn]
    done = subprocess.run(inside, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(learn_comm_offset()), done.stderr


async def contend(observatory: Observatory) -> Window:
    before = await observatory.sample()
    await asyncio.to_thread(read_slabinfo)
    after = await observatory.sample()
    window = observatory.window(WindowKind.CHURN, before, after)
    assert window.lost_events == refused(before, after)
    return window


@pytest.mark.usefixtures("alone")  # a holder that has ended has no name, which is frequent while CPUs go offline
async def test_waits_are_counted_and_their_holders_named(observatory: Observatory) -> None:
    assert observatory.contention is not None
    if not observatory.contention.slab_mutex:  # the two reads at the start may not have met: learn it from other waits
        await contend(observatory)
        await observatory.between_windows()
    window = await contend(observatory)
    waits, wait_ns = total_waits(window.waits)
    assert waits > 50
    assert wait_ns > waits * 100
    assert sum(window.wait_histogram_ns) == waits
    assert {wait.waiter for wait in window.waits} == {"slab_start"}
    named = sum(wait.waits for wait in window.waits if wait.holder == "cat")
    # The others found it taken and then, as the wait began, without an owner: on a busy node each fifth.
    assert named > 0.5 * waits, window.waits


@pytest.mark.usefixtures("tracefs")  # bpftrace needs it
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
    assert await second.stdout.readline() == b"armed\n"  # the first line comes before the probes are armed
    window = await contend(observatory)
    second.send_signal(signal.SIGINT)
    output = (await second.communicate())[0].decode()
    (theirs,) = re.findall(r"@ends: (\d+)", output)
    assert total_waits(window.waits)[0] == pytest.approx(int(theirs), rel=0.02)


LOCK, OTHER_LOCK = 0x1000, 0x2000  # not mapped: the holder has no name
MUTEX, SPINNING, SPINLOCK, REALTIME = 32, 33, 1, 8  # enum of include/trace/events/lock.h
TID = struct.Struct("=I")
WAITING = struct.Struct("=QQQ")  # the head of struct waiting: lock, task, since_ns


class Rig:
    """The probe, loaded but not attached; this thread is the waiter."""

    def __init__(self) -> None:
        self.observer = ContentionObserver(BpfObject("contention"), Symbols.parse(""), LOCK, 0)
        self.observer.configure()
        self.replay = Replay(self.observer.probe)

    def begin(self, lock: int = LOCK, flags: int = MUTEX) -> None:
        self.replay.run("contention_begin", lock, flags)

    def end(self, lock: int = LOCK) -> None:
        self.replay.run("contention_end", lock, 0)

    def age_by(self, ns: int, task_offset: int = 0) -> None:
        """Move the begin of this thread's wait into the past, optionally to another task with the same tid."""
        waiting, tid = self.observer.probe.map("waiting"), TID.pack(threading.get_native_id())
        value = waiting.get(tid)
        assert value is not None
        lock, task, since_ns = WAITING.unpack_from(value)
        waiting.put(tid, WAITING.pack(lock, task + task_offset, since_ns - ns) + value[WAITING.size :])

    def read(self) -> tuple[WaitTotals, ContentionSample]:
        sample = self.observer.read()
        sums = zip(*sample.totals.values(), strict=True)
        return WaitTotals(*(sum(column) for column in sums)) if sample.totals else WaitTotals(0, 0, 0), sample


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.observer.close()


def test_several_begins_are_one_wait_measured_from_the_first(rig: Rig) -> None:
    rig.begin(flags=SPINNING)
    rig.age_by(5_000_000_000)
    rig.begin()
    rig.begin(flags=SPINNING)
    rig.end()
    totals, sample = rig.read()
    assert totals.waits == 1
    assert 5_000_000_000 <= totals.wait_ns < 30_000_000_000
    assert sample.health == HEALTHY
    assert sum(sample.histogram) == sample.histogram[32] + sample.histogram[33] == 1


@pytest.mark.parametrize(
    ("age_s", "task_offset", "least_s", "unmatched"),
    [(119, 0, 119, 0), (121, 0, 0, 1), (1, 64, 0, 1)],
    ids=["still the same wait", "too old", "another task"],
)
def test_a_begin_without_its_end_does_not_lengthen_the_next_wait(
    rig: Rig, age_s: int, task_offset: int, least_s: int, unmatched: int
) -> None:
    rig.begin()
    rig.age_by(age_s * 10**9, task_offset)
    rig.begin()
    rig.end()
    totals, sample = rig.read()
    assert totals.waits == 1
    assert least_s * 10**9 <= totals.wait_ns < (least_s + 60) * 10**9
    assert sample.health.unmatched == unmatched


def test_a_long_wait_without_a_further_begin_counts_in_full(rig: Rig) -> None:
    long_ns = min(900 * 10**9, time.monotonic_ns() // 2)  # the machine may have just booted
    rig.begin()
    rig.age_by(long_ns)
    rig.end()
    totals, sample = rig.read()
    assert (totals.waits, sample.health) == (1, HEALTHY)
    assert totals.wait_ns >= long_ns


def test_the_end_of_another_task_ends_no_wait(rig: Rig) -> None:
    rig.begin()
    rig.age_by(0, task_offset=64)
    rig.end()
    totals, sample = rig.read()
    assert (totals.waits, sample.health.unmatched) == (0, 1)


def test_an_end_without_a_begin_is_a_missing_wait(rig: Rig) -> None:
    rig.end()
    rig.end(lock=OTHER_LOCK)  # it may have been a spinlock's
    totals, sample = rig.read()
    assert (totals.waits, sample.health.unmatched) == (0, 1)


def test_other_mutexes_do_not_count(rig: Rig) -> None:
    rig.begin(lock=OTHER_LOCK)
    rig.end(lock=OTHER_LOCK)
    totals, sample = rig.read()
    assert (totals.waits, sample.health) == (0, HEALTHY)


def test_spinlocks_are_not_recorded_while_the_mutex_is_unknown(rig: Rig) -> None:
    wait_for_others(rig, 0)
    rig.begin(flags=SPINLOCK)
    rig.end()
    totals, sample = rig.read()
    assert (totals.waits, sample.health) == (0, HEALTHY)


def test_the_mutex_of_a_realtime_kernel_is_recognised_by_its_address(rig: Rig) -> None:
    rig.begin(flags=REALTIME)
    rig.end()
    assert rig.read()[0].waits == 1


def test_where_a_realtime_mutex_has_its_owner_is_learnt_from_a_task_that_got_it(rig: Rig) -> None:
    """struct rt_mutex_base: wait_lock, waiters (a red-black tree), owner with the bit RT_MUTEX_HAS_WAITERS."""
    mutex = (ctypes.c_uint64 * 16)()  # the kernel reads it from this process
    rig.observer.slab_mutex, rig.observer.owner_offset = ctypes.addressof(mutex), None
    rig.observer.comm_offset = learn_comm_offset()
    rig.observer.configure()
    rig.begin(ctypes.addressof(mutex), REALTIME)
    waiting = rig.observer.probe.map("waiting").get(TID.pack(threading.get_native_id()))
    assert waiting is not None
    task = WAITING.unpack_from(waiting)[1]
    mutex[0], mutex[1], mutex[2], mutex[3] = 1, 0xFFFFC900001, 0xFFFFC900002, task | 1
    assert rig.observer.learn()
    assert rig.observer.owner_offset is None, "not before the end of a wait"
    rig.end(ctypes.addressof(mutex))
    assert rig.observer.learn()
    assert rig.observer.owner_offset == 24
    rig.begin(ctypes.addressof(mutex), REALTIME)
    rig.end(ctypes.addressof(mutex))
    holders = {key[-16:].rstrip(b"\0").decode() for key in rig.observer.read().totals}
    assert holders == {"", Path("/proc/thread-self/comm").read_text().strip()}


def test_any_mutex_teaches_the_owner_s_place_and_is_then_ignored(rig: Rig) -> None:
    """slab_mutex may be known from the start, and nobody waits for it."""
    mutex = (ctypes.c_uint64 * 16)()
    other = ctypes.addressof(mutex)
    rig.observer.owner_offset = None
    rig.observer.configure()
    rig.begin(other, REALTIME)
    waiting = rig.observer.probe.map("waiting").get(TID.pack(threading.get_native_id()))
    assert waiting is not None
    mutex[4] = WAITING.unpack_from(waiting)[1]
    rig.end(other)
    rig.begin(other, REALTIME)
    rig.end(other)
    assert rig.observer.learn() == LOCK
    assert rig.observer.owner_offset == 32
    totals, sample = rig.read()
    assert (totals.waits, sample.health) == (0, HEALTHY)
    assert list(rig.observer.probe.map("waiting").keys()) == []


async def test_two_readers_of_one_descriptor_are_sure_to_wait_for_a_mutex() -> None:
    """On 6.12-rt one start did not learn the owner's place: two readers of a file each seldom met at slab_mutex."""
    symbols = await Symbols.load(Path("/proc"))
    observer = await asyncio.to_thread(ContentionObserver.arm, symbols, 0)
    try:
        observer.slab_mutex, observer.owner_offset = LOCK, None  # as on PREEMPT_RT; here it is the first word
        await asyncio.to_thread(observer.configure)
        async with Helper(["slabinfo", "/proc/slabinfo"]) as helper:
            for _ in range(5):  # a machine that stands still misses the 20 ms of one
                await helper.ask("share", 2)
                await asyncio.to_thread(observer.learn)
                if observer.owner_offset is not None:
                    break
        assert observer.owner_offset == 0
    finally:
        observer.close()


async def test_readers_that_missed_each_other_read_for_100_ms(tmp_path: Path) -> None:
    """On arm64 5.10 in QEMU: CPUs that take turns of 100 ms on one thread read a short file without meeting."""
    (tmp_path / "short").write_text("one line\n")
    async with Helper(["slabinfo", tmp_path / "short"]) as helper:
        again = await helper.ask("repeat", 2)
    assert again.value is not None
    assert again.value >= 100_000_000


def test_a_wait_that_was_given_up_teaches_nothing(rig: Rig) -> None:
    mutex = (ctypes.c_uint64 * 16)()
    rig.observer.slab_mutex, rig.observer.owner_offset = ctypes.addressof(mutex), None
    rig.observer.configure()
    rig.begin(ctypes.addressof(mutex), REALTIME)
    waiting = rig.observer.probe.map("waiting").get(TID.pack(threading.get_native_id()))
    assert waiting is not None
    mutex[2] = WAITING.unpack_from(waiting)[1]
    rig.replay.run("contention_end", ctypes.addressof(mutex), (1 << 64) - errno.EINTR)
    rig.observer.learn()
    assert rig.observer.owner_offset is None


@pytest.mark.parametrize(("flags", "waits"), [(8, 1), (8 | 2, 0), (8 | 4, 0), (32, 1), (1, 0)])
def test_while_the_mutex_is_unknown_a_realtime_one_is_recorded_too(rig: Rig, flags: int, waits: int) -> None:
    """LCB_F_RT alone; with LCB_F_READ or LCB_F_WRITE it is a reader-writer lock."""
    wait_for_others(rig, 0)
    rig.begin(flags=flags)
    rig.end()
    assert rig.read()[0].waits == waits


def wait_for_others(rig: Rig, waits: int) -> None:
    rig.observer.slab_mutex = 0
    rig.observer.configure()
    for lock in range(waits):
        rig.begin(lock=0x10000 + lock)
        rig.end(lock=0x10000 + lock)


def test_waits_for_other_mutexes_are_deleted_once_the_mutex_is_known(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.observer.slab_mutex = 0
    rig.observer.configure()
    rig.begin()
    rig.end()
    rig.begin(lock=OTHER_LOCK)  # it never ends: the probe ignores this lock from now on
    waits, stacks = rig.observer.probe.map("waits"), rig.observer.probe.map("stacks")
    for lock in range(7):
        waits.put(struct.pack("=Q8xiI16s", 0x10000 + lock, -17, 0, b"cat"), struct.pack("=QQQ", 1, 1, 1))
    monkeypatch.setattr(contention, "is_slab_mutex_stack", bool)  # the only wait with a stack
    assert rig.observer.learn() == LOCK
    (key,) = rig.read()[1].totals
    assert struct.unpack_from("=Q", key) == (LOCK,)
    assert list(stacks.keys()) == [key[16:20]]
    assert list(rig.observer.probe.map("waiting").keys()) == []
    rig.begin(lock=OTHER_LOCK)
    rig.end(lock=OTHER_LOCK)
    assert rig.read()[0].waits == 1


def test_full_maps_are_emptied(rig: Rig) -> None:
    wait_for_others(rig, contention._RECYCLE_ABOVE)
    assert not rig.observer.recycle_if_full()
    wait_for_others(rig, contention._RECYCLE_ABOVE + 1)
    started = time.monotonic()
    assert rig.observer.recycle_if_full()
    assert time.monotonic() - started < 2
    assert rig.read()[0].waits == 0
    assert list(rig.observer.probe.map("stacks").keys()) == []
    wait_for_others(rig, 3)
    assert rig.read()[0].waits == 3


def test_a_map_that_was_too_full_is_emptied_once(rig: Rig) -> None:
    waits = rig.observer.probe.map("waits")
    wait_for_others(rig, 1)
    (key,) = waits.keys()
    waits.clear()
    for lock in range(4096):
        waits.put(struct.pack("=Q", 0x20000 + lock) + key[8:], bytes(24))
    rig.begin()
    rig.end()
    assert rig.observer.read().health.lost == 1
    waits.clear()  # it is no longer full: only the loss shows that it was
    assert rig.observer.recycle_if_full()
    assert not rig.observer.recycle_if_full()
