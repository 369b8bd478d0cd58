"""docs/detection.md says what the code does: the table of streams, the thresholds, how long faults take by default."""

from collections.abc import Callable, Iterable
from itertools import cycle, islice
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from builders import RCU, TLB, containers, kick, trial, wait, window
from kickwatch.configuration.types import Config, Design
from kickwatch.detect.detectors import RELATIVE
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.pairs import DIFFERENT_SHARE, LARGEST_DIFFERENCE, PAIR_BETS
from kickwatch.detect.rates import Pace
from kickwatch.detect.simulate.pair_effects import EXACT, PairEffect
from kickwatch.detect.simulate.pair_nulls import NONE_DIFFERENT
from kickwatch.detect.state import ChangeKind, State
from kickwatch.detect.streams import STREAMS, StreamName, allowance_of
from kickwatch.experiment.trial_run import is_paired
from kickwatch.model import AlarmKind, CanaryBatch, Cell, HalfFigures, Interrupts, Origin, Pair, Trial
from kickwatch.model import Path as CellPath
from kickwatch.service.budget import Budget, jittered
from kickwatch.service.pace import pace_of

PAGE = (Path(__file__).parents[3] / "docs/detection.md").read_text(encoding="utf-8")
TABLE = "| stream | observes | one observation per | allowance | clip | alarm |"
TIMES = "| fault, present all the time | stream | alert after | alert ends after |"
DEFAULT = pace_of(Config())
MONITOR = Monitor(DEFAULT)
EACH = DEFAULT.containers
MINUTES = 33  # from one trial to the next, on average


def rows(head: str) -> list[list[str]]:
    """The cells of the table below `head`."""
    lines = PAGE.split(f"{head}\n")[1].splitlines()[1:]
    table = [line for line in lines[: lines.index("")] if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def streams() -> dict[str, list[str]]:
    return {row[0].strip("`"): row[1:] for row in rows(TABLE)}


def test_every_stream_has_a_row_and_no_other() -> None:
    assert list(streams()) == [*(name.value for name in StreamName), RELATIVE]
    assert list(streams()) == [share.name for share in MONITOR.shares]


def test_allowances_clips_and_alarms_are_those_of_the_code() -> None:
    for name, stream in STREAMS.items():
        _, one_per, allowed, clip, alarm = streams()[name.value]
        assert alarm == stream.alarm.value
        assert one_per.startswith("container") is stream.per_container
        if stream.paired:
            assert allowed == f"a coin, but for {DIFFERENT_SHARE:g} of the containers"
            assert (clip, one_per.split(",")[0]) == (str(LARGEST_DIFFERENCE), "pair")
        elif stream.coin:
            assert (allowed, clip) == ("a coin", "1")
        else:
            allowance = allowance_of(name)
            assert (float(allowed), float(clip)) == (allowance.mean, allowance.clip)
    assert streams()[RELATIVE][-1] == AlarmKind.REGRESSED.value


def test_the_default_thresholds_are_those_of_the_code() -> None:
    assert Pace(23, 1380.0) == DEFAULT
    thresholds = {share.name: share.threshold for share in MONITOR.shares}
    names = ("attributed", RELATIVE, "elsewhere_pairs", "elsewhere")
    shown = [f"{thresholds[name]:.1e}".replace("+0", "") for name in names]
    text = (
        f"A is {shown[0]} for *attributed*, {shown[1]} for each of the at most 32 cells of *relative*, {shown[2]} for"
        f" the streams of pairs, and {shown[3]} for the others"
    )
    assert text in PAGE.replace("\n", " ")
    assert {thresholds[name.value] for name, stream in STREAMS.items() if stream.paired} == {thresholds[names[2]]}


def test_what_pairs_allow_is_that_of_the_code() -> None:
    assert f"at most m = {DIFFERENT_SHARE:g}" in PAGE.replace("\n", " ")
    assert f"Nine bets from {PAIR_BETS.parts[0]}/64 to {PAIR_BETS.parts[-1]}/64" in PAGE
    assert f"min(|d|, {LARGEST_DIFFERENCE})" in PAGE
    shared = [share for share in MONITOR.shares if share.name in {"elsewhere", "elsewhere_pairs"}]
    assert shared[1].threshold == 1.5 * shared[0].threshold


def test_the_delay_by_pairs_is_that_of_the_code() -> None:
    """Of the fault without chance; `kickwatch simulate` measures the others."""
    head = (
        "| broadcasts per container from elsewhere, by pairs | background per half | one run, 1e4: median / p95"
        " | with no allowance | daemon, 4.1e8 | with no allowance |"
    )
    (row,) = [row for row in rows(head) if row[:2] == ["exactly 1", "none"]]
    delays = [
        PairEffect(1.0, EXACT, 0.0, one_run=one_run, allowed=allowed).containers()(Random(1))  # noqa: S311 - no secret
        for one_run in (True, False)
        for allowed in (DIFFERENT_SHARE, NONE_DIFFERENT)
    ]
    assert row[2:] == [f"{containers} / {containers}" for containers in delays]


# --- how long faults take


def made(*cells: Cell, each: int = 0, in_canary: int = 0, waits: CellPath | None = None, **node: str) -> Trial:
    """A trial of the default size, with `cells` in its churn window and `each` broadcasts in every container's life."""
    own = (replace(kick(each * EACH), origin=Origin.MEMCG, reason="do_sync_core", func="do_sync_core"),) if each else ()
    batch = CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts())
    return trial(
        node=replace(trial().node, **node),
        containers=tuple(replace(life, creation_path_broadcasts=each) for life in containers(EACH)),
        churn=window("churn", TLB, RCU, *own, *cells, waits=(wait(EACH, path=waits),) if waits else ()),
        canary=replace(batch, cells=(kick(in_canary),)) if in_canary else batch,
    )


def cell(origin: Origin, path: CellPath, broadcasts: int) -> Cell:
    """So many broadcasts per container."""
    total = broadcasts * EACH
    return replace(kick(total), reason="do_sync_core", func="do_sync_core", origin=origin, path=path)


def singles(origin: Origin, path: CellPath, sweeps: int) -> Cell:
    """Requests to one CPU after another: so many sweeps of the three other CPUs per container."""
    return replace(cell(origin, path, 0), requests=3 * sweeps * EACH, singles=3 * sweeps * EACH)


def programs(broadcasts: int) -> Trial:
    return made(cell(Origin.BPF, CellPath.CREATE, broadcasts), arch="aarch64")


def expedited(sweeps: int, kernel: str) -> Trial:
    return made(singles(Origin.RCU, CellPath.OTHER, sweeps), kernel=kernel)


def paired(elsewhere: int = 0, waits: int = 0, isolated: int = 0) -> Trial:
    """A trial of pairs, with so many of each in every half with a container."""
    churn = HalfFigures(elsewhere=elsewhere, other_waits=waits, isolated=isolated)
    quiet = HalfFigures(elsewhere=0, other_waits=0, isolated=0)
    pairs = (Pair(churn_first=True, half_ns=1, churn=churn, quiet=quiet),) * EACH
    return replace(made(), pairs=pairs, isolated_cpus=(3,))


def mixed(whole: Trial, pairs: Trial | None = None) -> tuple[Trial, ...]:
    """As the daemon runs them by default; without `pairs`, those see nothing."""
    return tuple((pairs or paired()) if is_paired(Design.MIXED, number) else whole for number in range(3))


WORKER = made(cell(Origin.STATIC_KEY, CellPath.OTHER, 1))

# The fault, the healthy trials of the same node, and the trials before the fault. Trials are repeated in their order.
FAULTS: dict[str, tuple[tuple[Trial, ...], tuple[Trial, ...], tuple[Trial, ...]]] = {
    "one or more broadcasts per container, during the container's life": ((made(each=1),), (made(),), ()),
    "`kick_all_cpus_sync` from slab, 32 per container, after the container has gone": (
        (made(kick(32 * EACH)),),
        (made(),),
        (),
    ),
    "other broadcasts after the container has gone, 32 per container": (
        (made(cell(Origin.MEMCG, CellPath.CREATE, 32)),),
        (made(),),
        (),
    ),
    "other broadcasts after the container has gone, 1 per container": (
        (made(cell(Origin.MEMCG, CellPath.CREATE, 1)),),
        (made(),),
        (),
    ),
    "5 broadcasts per bare memory cgroup": ((made(in_canary=500),), (made(),), ()),
    "one wait for `slab_mutex` per container, on the creation path": ((made(waits=CellPath.CREATE),), (made(),), ()),
    "one other wait for `slab_mutex` per container, while it lives": (
        mixed(made(waits=CellPath.OTHER), paired(waits=1)),
        mixed(made()),
        (),
    ),
    "one other wait for `slab_mutex` per container, seconds later": (
        mixed(made(waits=CellPath.OTHER)),
        mixed(made()),
        (),
    ),
    "4 broadcasts per removed container": ((made(cell(Origin.MEMCG, CellPath.DESTROY, 4)),), (made(),), ()),
    "2 broadcasts of the percpu allocator per container": (
        (made(cell(Origin.PERCPU, CellPath.OTHER, 2)),),
        (made(),),
        (),
    ),
    "broadcasts for BPF programs double, 16 to 32 per container": (
        (programs(32),),
        (programs(16),),
        (programs(16),) * 3,
    ),
    "one sweep of single requests per container": ((made(singles(Origin.MEMCG, CellPath.CREATE, 1)),), (made(),), ()),
    "one or more broadcasts per container from a worker, while the container lives": (
        mixed(WORKER, paired(elsewhere=1)),
        mixed(made()),
        (),
    ),
    "one or more broadcasts per container from a worker, seconds later": (mixed(WORKER), mixed(made()), ()),
    "one request to an isolated CPU per container": (mixed(made(), paired(isolated=1)), mixed(made()), ()),
    "requests of a cell double with a kernel update, after 500 trials under the old kernel": (
        (expedited(20, "6.19.0"),),
        (expedited(10, "6.19.0"),),
        (expedited(10, "6.18.0"),) * 500,
    ),
}


def trials_until(
    state: State, trials: Iterable[Trial], changed: Callable[[State], bool]
) -> tuple[State, int, list[str]]:
    """The state, the number of trials, and the streams that raised an alarm in the last one."""
    for number, one in enumerate(islice(trials, 1000), 1):
        state, outcome = MONITOR.step(state, one)
        if changed(state):
            return state, number, [change.stream for change in outcome.changes if change.kind is ChangeKind.RAISED]
    raise AssertionError("nothing changed in 1000 trials")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_takes_as_long_as_the_page_says(fault: str) -> None:
    faulty, healthy, before = FAULTS[fault]
    (row,) = [row for row in rows(TIMES) if row[0] == fault]
    state = MONITOR.start()
    for one in before:
        state, _ = MONITOR.step(state, one)
    state, until_alert, raised = trials_until(state, cycle(faulty), lambda state: bool(state.alerted))
    rest = islice(cycle(healthy), until_alert % len(healthy), None)
    state, until_end, _ = trials_until(state, rest, lambda state: not state.alerted)
    stream = row[1].strip("`")
    assert (stream in raised) or (stream == RELATIVE and raised)
    assert row[2:] == [shown(until_alert), shown(until_end)]


def shown(trials: int) -> str:
    """`2 trials, 1 h`"""
    hours = trials * MINUTES / 60.0
    return (
        f"{trials} trial{'s' if trials > 1 else ''}, {hours:.1f} h" if hours < 1 else f"{trials} trials, {hours:.0f} h"
    )


def test_every_row_of_the_page_is_a_fault_here_but_the_random_ones() -> None:
    assert [row[0] for row in rows(TIMES) if "at random" not in row[0]] == list(FAULTS)


def test_the_default_budget_lets_trials_begin_as_often_as_the_page_says() -> None:
    config, day_s = Config(), 86_400.0
    budget, at_s, begun = Budget(config.budget, ()), 0.0, 0
    while at_s < 10 * day_s:
        wait_s = budget.wait_s(at_s, EACH, 0.0, 0.0).seconds
        if wait_s:
            at_s += jittered(wait_s, config.trial.jitter, 0.5)
            continue
        budget.charge(at_s, EACH)
        begun, at_s = begun + 1, at_s + 30.0
        budget.correct(at_s, EACH)
        at_s += jittered(config.trial.interval_s, config.trial.jitter, 0.5)
    assert round(10 * 24 * 60 / begun) == MINUTES
    assert f"{round(begun / 10)} trials\na day, one every {MINUTES} minutes on average" in PAGE
