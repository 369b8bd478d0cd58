"""Passive mode: is every container of others counted, and what does it cost per cgroup event?

Count: a daemon in passive mode while Docker, containerd (`ctr`), podman and runc start containers, beside health
checks, `docker exec`, services that come and go, and a wall clock that is set back and forth. Prints what each engine
started and what was counted. KICKWATCH_PASSIVE_CONTAINERS: how many each of them starts (default 20);
KICKWATCH_PASSIVE_ENGINES: which of them, separated by spaces.

Cost: the kernel's own accounting of each program while cgroups are made and removed at 5,000 a second, with names that
are no containers' and with a container's id each; the reader's time; and the events that found no room.

Needs root, a Docker Engine, containerd, podman, runc. Exit status 1 if a container was missed or counted twice, if an
alarm was raised, or beyond the goals.
"""

import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from kickwatch.node.lock import NodeLock
from kickwatch.observe.bpf import enable_statistics
from kickwatch.observe.containers import ContainerObserver
from node_daemon import NodeDaemon
from others import COUNTED_AS, hierarchies, others, turmoil
from wall_clock import WallClock

CONTAINERS = int(os.environ.get("KICKWATCH_PASSIVE_CONTAINERS", "20"))
ENGINES = os.environ.get("KICKWATCH_PASSIVE_ENGINES", "").split() or list(COUNTED_AS)
METRICS = "127.0.0.1:19893"
PASSIVE = {"workload.enabled": False, "guard.poll_s": 1, "metrics.enabled": True, "metrics.listen": METRICS}
PER_SECOND, SECONDS = 5000, 4
MOST_NS, MOST_SHARE = 3000, 0.02  # per event; of one CPU at that rate, without the reader


def counted() -> dict[str, int]:
    """What the daemon has counted so far, by engine."""
    with urllib.request.urlopen(f"http://{METRICS}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    start = 'kickwatch_passive_containers_total{engine="'
    found = (line.removeprefix(start).split('"} ') for line in lines if line.startswith(start))
    return {engine: int(float(total)) for engine, total in found}


def count() -> bool:
    """Print what each engine started and what was counted; True if they are equal and no alarm was raised."""
    right = True
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        clock = WallClock(directory)
        with (
            others(directory) as engines,
            turmoil(clock),
            NodeDaemon(directory, PASSIVE, environment=clock.environment) as daemon,
        ):
            daemon.wait("started")
            daemon.wait_status("passive: 0 containers")
            for engine in ENGINES:
                before, since_s = counted(), time.monotonic()
                engines.start(engine, CONTAINERS)
                took_s = time.monotonic() - since_s
                time.sleep(4.0)
                rise = {key: total - before[key] for key, total in counted().items() if total != before[key]}
                print(f"{engine}: {CONTAINERS} started in {took_s:.0f} s, counted: {rise}", flush=True)
                right &= rise == {COUNTED_AS[engine]: CONTAINERS}
            alarms = [record["event"] for record in daemon.records if record["event"].endswith("_detected")]
            print(f"alarms: {len(alarms)} in {CONTAINERS * len(ENGINES)} containers {alarms or ''}")
    return right and not alarms


class Cost(NamedTuple):
    """Of one run: events of each kind, the programs' time for them, the reader's, and what was passed on or lost."""

    events: int
    ns: float
    per_second: float
    passed: int
    lost: int
    reader_us: float


def churn(observer: ContainerObserver, root: Path, name: str) -> Cost:
    """Make and remove cgroups at PER_SECOND; `name` has a place for a number."""
    before, counts = observer.cost(), observer.counts()
    reading_s, made, since = 0.0, 0, time.perf_counter()
    while made < PER_SECOND * SECONDS:
        path = root / name.format(made)
        path.mkdir()
        path.rmdir()
        made += 1
        if made % PER_SECOND == 0:
            began = time.perf_counter()
            observer.drain()
            reading_s += time.perf_counter() - began
        ahead_s = since + made / PER_SECOND - time.perf_counter()
        if ahead_s > 0.01:
            time.sleep(ahead_s)
    elapsed_s = time.perf_counter() - since
    programs = ("containers_mkdir", "containers_rmdir")
    spent, after = observer.cost(), observer.counts()
    ns, runs = (sum(spent[program][at] - before[program][at] for program in programs) for at in (0, 1))
    passed, lost = after.passed - counts.passed, after.lost - counts.lost
    taken = passed - lost
    return Cost(runs, ns / max(1, runs), made / elapsed_s, passed, lost, 1e6 * reading_s / taken if taken else 0.0)


@contextmanager
def statistics() -> Iterator[None]:
    """The kernel's accounting, which flips a static key when it is turned on and off."""
    descriptor = enable_statistics()
    try:
        yield
    finally:
        os.close(descriptor)


def cost() -> bool:
    """Print the cost per event; True within the goals."""
    root = next((root for root in hierarchies() if root.name == "pids"), hierarchies()[0])
    right = True
    with NodeLock(), statistics():
        observer = ContainerObserver.arm()
        try:
            for kind, name in (("services", "bench-{:08d}.service"), ("containers", "{:064x}")):
                one = churn(observer, root, name)
                share = one.ns * 2 * PER_SECOND / 1e9
                print(
                    f"{kind}: {one.per_second:.0f} mkdir and rmdir a second, {one.events} events, {one.ns:.0f} ns each:"
                    f" {share:.2%} of a CPU; {one.passed} passed on, {one.lost} lost, reader {one.reader_us:.1f} us"
                )
                right &= one.ns <= MOST_NS and share <= MOST_SHARE
        finally:
            observer.close()
    print(f"goal: at most {MOST_NS} ns per event, and {MOST_SHARE:.0%} of a CPU at {PER_SECOND} mkdir a second")
    return right


if __name__ == "__main__":
    sys.exit(0 if all([cost(), count()]) else 1)
