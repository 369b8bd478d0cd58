"""What kickwatch sends to isolated CPUs outside its windows: counted per kind of work, null where nobody counted."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kickwatch.errors import ObserveError
from kickwatch.experiment import armed_observers
from kickwatch.experiment.armed_observers import ArmedObservers
from kickwatch.experiment.own_work import OwnWork, Reached, Work
from kickwatch.model import Control
from kickwatch.observe.interrupts import InterruptSample, IpiKind
from kickwatch.observe.windows import Sample

TABLE = """\
           CPU0       CPU1       CPU2       CPU3
RES:  {0:>9} {1:>9} {2:>9} {3:>9}  Rescheduling interrupts
CAL:  {4:>9} {5:>9} {6:>9} {7:>9}  Function call interrupts
TLB:          0          0          0          0  TLB shootdowns
"""


def proc_with(tree: Path, *counts: int) -> Path:
    (tree / "interrupts").write_text(TABLE.format(*counts))
    return tree


class Probe:
    """An observatory whose figures are set by the test: requests and CAL interrupts by CPU since it was armed."""

    def __init__(self) -> None:
        self.requests, self.cal = [0, 0, 0, 0], [0, 0, 0, 0]
        self.refuse = False

    async def sample(self) -> Sample:
        if self.refuse:
            raise ObserveError("BPF map cells: EPERM", "")
        interrupts = InterruptSample((0, 1, 2, 3), {IpiKind.CAL: tuple(self.cal)})
        return Sample(0, interrupts, tuple(self.requests), None)  # type: ignore[arg-type]

    def window(self, _kind: object, before: Any, after: Any) -> Any:
        pairs = zip(before.requests, after.requests, strict=True)
        return SimpleNamespace(per_cpu=tuple(late - early for early, late in pairs))


async def test_requests_and_interrupts_at_isolated_cpus_are_added_up() -> None:
    own, probe = OwnWork((2, 3)), Probe()
    for _ in range(2):
        async with own.during(Work.CANARY, probe):  # type: ignore[arg-type]
            probe.requests[0] += 100
            probe.requests[3] += 7
            probe.cal[1] += 50
            probe.cal[2] += 4
    assert own.reached == {Work.CANARY: Reached(requests=14, interrupts=8)}


async def test_without_a_probe_only_interrupts_are_known(tmp_path: Path) -> None:
    own = OwnWork((1, 3), proc_with(tmp_path, 1, 2, 3, 4, 10, 20, 30, 40))
    async with own.during(Work.ARMING):
        await asyncio.to_thread(proc_with, tmp_path, 9, 3, 9, 6, 99, 86, 99, 106)
    assert own.reached == {Work.ARMING: Reached(requests=None, interrupts=1 + 2 + 66 + 66)}


async def test_where_no_cpu_is_isolated_nothing_is_read(tmp_path: Path) -> None:
    own = OwnWork((), tmp_path)
    async with own.during(Work.ARMING):
        pass
    assert own.reached == {}


async def test_a_refused_reading_is_not_zero_and_stops_nothing() -> None:
    own, probe, done = OwnWork((2, 3)), Probe(), []
    for refuse in (False, True):
        async with own.during(Work.RECLAIM, probe):  # type: ignore[arg-type]
            probe.refuse = refuse
            done.append(refuse)
        probe.refuse = False
    assert done == [False, True]
    assert own.reached == {Work.RECLAIM: Reached(requests=None, interrupts=None)}


async def test_a_failure_of_the_work_comes_through() -> None:
    own = OwnWork((2, 3))
    with pytest.raises(ValueError, match="engine"):
        async with own.during(Work.WARM_UP, Probe()):  # type: ignore[arg-type]
            raise ValueError("the engine is gone")


async def test_arming_and_the_control_are_counted_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    proc_with(tmp_path, 0, 0, 0, 0, 0, 0, 0, 0)
    probe = Probe()

    class Opened:
        @classmethod
        async def open(cls, **_: object) -> Probe:
            await asyncio.to_thread(proc_with, tmp_path, 0, 0, 0, 0, 66, 66, 66, 66)
            return probe

    async def control(*_: object) -> Control:
        probe.requests[2] += 5
        return Control(passed=True, detail="")

    monkeypatch.setattr(armed_observers, "Observatory", Opened)
    monkeypatch.setattr(armed_observers, "positive_control", control)
    own = OwnWork((2, 3), tmp_path)
    await ArmedObservers.open(None, own)
    assert own.reached == {
        Work.ARMING: Reached(requests=None, interrupts=132),
        Work.CONTROL: Reached(requests=5, interrupts=0),
    }
