"""Cost of replaying a history: time and memory for 100,000 trials, and the detectors' time per trial.

Run it: `python tests/benchmarks/bench_replay.py [TRIALS]`. Each trial is a real one, 20 containers on Linux 6.18 with
all their cells and stacks; some have a broadcast. It fails if 100,000 trials take 20 s or more, if memory grows with
them, or if the detectors take 1 ms per trial.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from resource import RUSAGE_CHILDREN, getrusage
from time import perf_counter

import click
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))  # tests: the recordings as trials

from captures_as_trials import trials
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.persist import restore, save
from kickwatch.detect.rates import Pace
from kickwatch.history.backlog import Entry
from kickwatch.history.history import History, Retention
from kickwatch.history.statements import BLOCK
from kickwatch.model import Container, Trial

TRIALS = 100_000
FEW = 2_000
LIMIT_S = 20.0
MOST_GROWTH_MB = 8.0
BUDGET_US = 1000.0
PACE = Pace(23, 70.0)
# The peak is the process's own: what wait4 tells includes that of the process it was forked from.
REPLAY = """
import atexit, sys
from pathlib import Path
from kickwatch.commands.replay import replay
atexit.register(lambda: sys.stderr.write(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]))
replay()
"""


def real_trials(count: int) -> Iterator[Trial]:
    """One in 50 has a container that broadcast."""
    real = trials()["6.18-slub-docker: network none"]
    random = Random(1)  # noqa: S311 -- a load, no secret
    loud = (replace(real.containers[0], creation_path_broadcasts=1), *real.containers[1:])
    for number in range(count):
        lives: tuple[Container, ...] = loud if random.random() < 0.02 else real.containers
        yield replace(real, trial_id=f"{number:08x}", started_unix_s=1.7e9 + 70.0 * number, containers=lives)


def entries(count: int) -> Iterator[Entry]:
    """As the daemon keeps them, but that the evidence is saved with every 64th only, to be done sooner."""
    monitor = Monitor(PACE)
    state, before = monitor.start(), b""
    for number, one in enumerate(real_trials(count), 1):
        state, outcome = monitor.step(state, one)
        after = save(monitor, state) if number % BLOCK == 0 else before
        yield Entry(one, before, outcome, after, PACE)
        before = after


def keep_all(history: History, count: int) -> None:
    """Append so few at a time that none is dropped from the memory in which trials wait for the store."""
    made = entries(count)
    while batch := list(islice(made, BLOCK)):
        kept = history.append(*batch)
        if not kept.kept:
            raise SystemExit(f"the history cannot be written: {kept.notes}")


def replayed(path: Path, count: int) -> tuple[float, float, float]:
    """Seconds, seconds of CPU and megabytes of `kickwatch replay` of `count` trials, in a process of its own."""
    before = getrusage(RUSAGE_CHILDREN)
    begin = perf_counter()
    done = subprocess.run([sys.executable, "-c", REPLAY, str(path)], capture_output=True, text=True, check=False)
    if done.returncode not in {0, 3, 4} or f"{count} trials, " not in done.stdout:
        raise SystemExit(f"replay failed: {done.stdout[-500:]} {done.stderr}")
    after = getrusage(RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return perf_counter() - begin, cpu_s, int(done.stderr) / 1024.0


def detectors_us() -> tuple[float, float, float]:
    """Microseconds of a step, of saving the state, and of restoring it; the best of three rounds."""
    monitor, ready = Monitor(PACE), list(real_trials(1000))
    rounds = []
    for _ in range(3):
        state, begin = monitor.start(), perf_counter()
        for one in ready:
            state, _ = monitor.step(state, one)
        middle = perf_counter()
        for _ in range(100):
            saved = save(monitor, state)
        late = perf_counter()
        for _ in range(100):
            restore(monitor, saved)
        end = perf_counter()
        rounds.append(((middle - begin) * 1e3, (late - middle) * 1e4, (end - late) * 1e4))
    step, saving, restoring = map(min, zip(*rounds, strict=True))
    return step, saving, restoring


def main() -> int:
    """Print the table; 1 if a limit is exceeded."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else TRIALS
    step, saving, restoring = detectors_us()
    click.echo(f"all detectors, one trial   {step:8.1f} us\nsave the evidence          {saving:8.1f} us")
    click.echo(f"restore it                 {restoring:8.1f} us")
    keep = Retention(age_s=1e12, size_bytes=1 << 50)
    with tempfile.TemporaryDirectory(prefix="kickwatch-bench-") as directory:
        few, many = (History(Path(directory) / name, keep) for name in ("few", "many"))
        begin = perf_counter()
        keep_all(few, FEW)
        keep_all(many, count)
        click.echo(f"made {count + FEW} trials in {perf_counter() - begin:.0f} s, {many.path.stat().st_size >> 20} MiB")
        (_, _, few_mb), (seconds, cpu_s, many_mb) = replayed(few.path, FEW), replayed(many.path, count)
    each_us = cpu_s / count * 1e6
    click.echo(f"replay of {count} trials: {cpu_s:.1f} s of CPU, {each_us:.0f} us each; {seconds:.1f} s in all")
    click.echo(f"memory: {many_mb:.1f} MB, with {FEW} trials {few_mb:.1f} MB")
    too_slow = cpu_s * TRIALS / count >= LIMIT_S  # elapsed time would measure what else runs here
    return int(too_slow or many_mb - few_mb > MOST_GROWTH_MB or step >= BUDGET_US)


if __name__ == "__main__":
    sys.exit(main())
