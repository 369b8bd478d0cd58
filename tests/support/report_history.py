"""A history with a fault and kernel changes, made of recordings of real kernels: what `kickwatch report` is tested on.

Four phases: 6.18, 6.18 with another engine, 4.19 with the patch of 2017, and the same kernel without it. The cells and
stacks are those of the recordings, their counts spread by a seeded coin. Made up are latencies (a container is slower
with each broadcast in its life), waits for slab_mutex in the last phase, pairs, and requests by CPU.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from msgspec.structs import replace

from captures_as_trials import trials
from kickwatch.commands.replay import Replay
from kickwatch.detect.figures import creation_broadcasts
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.persist import save
from kickwatch.detect.rates import Pace
from kickwatch.history.backlog import Entry
from kickwatch.history.history import History, Retention
from kickwatch.history.record_reader import RecordedTrial
from kickwatch.model import Cell, Container, ContentionRung, HalfFigures, MutexWait, Node, Pair, Trial, Window
from kickwatch.report.collect import Collector
from kickwatch.report.overview import overview

PACE = Pace(20, 1380.0)
BEGAN_UNIX_S = 1_764_000_000.0
PHASES = (
    ("6.18-slub-docker: network none", "6.18.44", "docker 20.10.24", "boot-a"),
    ("6.18-slub-docker: network none", "6.18.44", "docker 28.0.1", "boot-a"),
    ("4.19-slab-docker-patched: churn", "4.19.1-patched", "docker 28.0.1", "boot-b"),
    ("4.19-slab-docker-unpatched: churn", "4.19.1", "docker 28.0.1", "boot-c"),
)
WAITS = MutexWait(waiter="slab_start", holder="kworker/0:1", waits=30, wait_ns=180_000_000, max_wait_ns=9_000_000)
EACH = 40
GAP_S = 3 * 3600.0


def faulty_history(each: int = EACH) -> Iterator[Trial]:
    """`each` trials of every phase."""
    recorded, random = trials(), Random(14)  # noqa: S311 -- a load, no secret
    at = BEGAN_UNIX_S
    for phase, (name, kernel, engine, boot) in enumerate(PHASES):
        base = _with_quiet(recorded[name])
        node = replace(base.node, kernel=kernel, engine=engine, boot_id=boot)
        for number in range(each):
            yield _trial(base, node, random, phase * each + number, at)
            at += PACE.period_s
        at += GAP_S


def report_on(records: Sequence[Trial]) -> dict[str, Any]:
    """The report on these trials."""
    again, seen = Replay(PACE), Collector()
    for one in records:
        seen.add(one, again.step(RecordedTrial(one, PACE)), again.figures, PACE)
    seen.conclude(again.figures)
    return overview(seen, msgspec.to_builtins(again.result()))


def store(directory: Path, records: Iterator[Trial]) -> Path:
    """A state directory as the daemon would have left it."""
    monitor, history = Monitor(PACE), History(directory, Retention(age_s=1e12))
    state, before = monitor.start(), b""
    for one in records:
        state, outcome = monitor.step(state, one)
        after = save(monitor, state)
        assert history.append(Entry(one, before, outcome, after, PACE)).kept
        before = after
    return history.path


def _with_quiet(base: Trial) -> Trial:
    """The recordings of 4.19 have no quiet window: a twentieth of the wakeups and TLB shootdowns stands for one."""
    if base.quiet.cells:
        return base
    ordinary = [cell for cell in base.churn.cells if not cell.broadcasts and cell.requests > 500]
    cells = tuple(
        replace(cell, requests=cell.requests // 20, calls=cell.calls // 20, singles=None) for cell in ordinary
    )
    return replace(base, quiet=replace(base.quiet, duration_ns=base.churn.duration_ns, cells=cells))


def _trial(base: Trial, node: Node, random: Random, number: int, at: float) -> Trial:
    churn = _spread(base.churn, random, node.cpus_online)
    observers = base.observers
    if creation_broadcasts(churn.cells):
        observers = replace(observers, contention=ContentionRung.KPROBE)
        churn = _spread(replace(base.churn, waits=(WAITS,)), random, node.cpus_online)
    quiet = _spread(base.quiet, random, node.cpus_online)
    lives = _lives(len(base.containers), creation_broadcasts(churn.cells), random)
    made = replace(
        base,
        trial_id=f"{number:08x}",
        started_unix_s=at,
        node=node,
        observers=observers,
        churn=churn,
        quiet=quiet,
        containers=lives,
        canary=None,
        pairs=tuple(_pair(random) for _ in lives),
    )
    return msgspec.json.decode(msgspec.json.encode(made), type=Trial)  # the recordings' plain words become enums


def _spread(window: Window, random: Random, cpus: int) -> Window:
    """The window with every count a little changed, and its requests spread over the CPUs."""
    cells = tuple(_cell(cell, random) for cell in window.cells)
    waits = tuple(_wait(wait, random) for wait in window.waits)
    histogram = [0] * 30
    for wait in waits:
        for _ in range(wait.waits):
            histogram[min(29, max(10, round(random.gauss(20, 2))))] += 1
    total = sum(cell.requests for cell in cells)
    weights = [1.0 + 0.1 * cpu for cpu in range(cpus)]
    per_cpu = tuple(round(total * weight / sum(weights)) for weight in weights)
    counted = {"cells": cells, "waits": waits, "wait_histogram_ns": tuple(histogram), "per_cpu": per_cpu}
    return replace(window, **counted)


def _cell(cell: Cell, random: Random) -> Cell:
    each = cell.requests // max(1, cell.calls)
    if not cell.calls:
        return replace(cell, requests=max(1, round(cell.requests * random.uniform(0.9, 1.1))), singles=None)
    calls = max(1, round(cell.calls * random.uniform(0.9, 1.1)))
    broadcasts = calls if cell.broadcasts else 0
    return replace(cell, calls=calls, broadcasts=broadcasts, requests=calls * each, singles=0)


def _wait(wait: MutexWait, random: Random) -> MutexWait:
    waits = max(1, round(wait.waits * random.uniform(0.8, 1.2)))
    return replace(wait, waits=waits, wait_ns=round(wait.wait_ns * waits / max(1, wait.waits)))


def _lives(count: int, broadcasts: int, random: Random) -> tuple[Container, ...]:
    """The broadcasts fall into lives at random."""
    own = [0] * count
    for _ in range(broadcasts):
        own[random.randrange(count)] += 1
    return tuple(
        Container(
            index=index,
            create_ms=round(random.gauss(14, 2) + 1.5 * hits, 3),
            start_ms=round(random.gauss(230, 20) + 6.0 * hits, 3),
            wait_ms=round(random.gauss(60, 5), 3),
            remove_ms=round(random.gauss(11, 1), 3),
            creation_path_broadcasts=hits,
        )
        for index, hits in enumerate(own)
    )


def _pair(random: Random) -> Pair:
    halves = [HalfFigures(elsewhere=random.choice((0, 0, 0, 1)), other_waits=0) for _ in range(2)]
    return Pair(churn_first=random.random() < 0.5, half_ns=400_000_000, churn=halves[0], quiet=halves[1])
