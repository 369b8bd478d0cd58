"""The first rung that can be armed is used, unless the environment asks for one."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from kickwatch.errors import ConfigError, ObserveError
from kickwatch.model import ContentionRung, IpiRung
from kickwatch.node.roots import HOST, HostRoots
from kickwatch.observe import arming
from kickwatch.observe.contention import ContentionObserver
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.kprobe import KprobeObserver
from kickwatch.observe.mutex import MutexObserver
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.rungs import CONTENTION_VARIABLE, IPI_VARIABLE, climb, requested_rung
from kickwatch.observe.symbols import Symbols

if TYPE_CHECKING:
    from kickwatch.observe.bpf import BpfObject

KALLSYMS = """\
1000 t smp_call_function_many_cond
2000 T smp_call_function_single
3000 T smp_call_function_single_async
4000 t __mutex_lock.constprop.0
5000 t end
"""


def refuse(why: str) -> Callable[[], str]:
    def arm() -> str:
        raise ObserveError(why, "no remedy")

    return arm


def test_the_first_that_can_be_armed_is_used() -> None:
    ladder = [(IpiRung.CSD, lambda: "tracepoint"), (IpiRung.KPROBE, refuse("not tried"))]
    assert climb(ladder) == ("tracepoint", [])


def test_the_reasons_why_better_rungs_failed_are_returned() -> None:
    found, lost = climb([(IpiRung.CSD, refuse("no tracepoint")), (IpiRung.KPROBE, lambda: "kprobes")])
    assert found == "kprobes"
    assert [error.what for error in lost] == ["no tracepoint"]


def test_no_rung_can_be_armed_and_all_reasons_are_returned() -> None:
    found, lost = climb([(IpiRung.CSD, refuse("first")), (IpiRung.KPROBE, refuse("second"))])
    assert found is None
    assert [error.what for error in lost] == ["first", "second"]


def test_the_rung_asked_for_is_the_only_one_tried() -> None:
    ladder = [(IpiRung.CSD, refuse("not tried")), (IpiRung.KPROBE, lambda: "kprobes")]
    assert climb(ladder, "kprobe") == ("kprobes", [])
    found, lost = climb(ladder, "csd")
    assert found is None
    assert len(lost) == 1


def test_the_environment_may_ask_for_no_probe_at_all() -> None:
    found, lost = climb([(IpiRung.CSD, refuse("not tried"))], "counters")
    assert found is None
    assert [error.what for error in lost] == ["nothing was armed: counters was asked for"]


def test_an_unknown_rung_is_an_error_that_no_restart_can_fix() -> None:
    assert ConfigError.exit_status == 2  # RestartPreventExitStatus= of the unit
    assert requested_rung({}, IPI_VARIABLE, IpiRung) is None
    assert requested_rung({CONTENTION_VARIABLE: "kprobe"}, CONTENTION_VARIABLE, ContentionRung) == "kprobe"
    with pytest.raises(ConfigError, match="may be csd, kprobe, counters"):
        requested_rung({IPI_VARIABLE: "tracepoint"}, IPI_VARIABLE, IpiRung)


class NoProbe:
    """A probe that records what is attached."""

    unread = None

    def __init__(self) -> None:
        self.attached: list[tuple[str, str, bool]] = []
        self.addresses: set[int] = set()

    def map(self, _name: str) -> "NoProbe":
        return self

    def put(self, key: bytes, value: bytes) -> None:
        """Ignored."""

    def attach_kprobe(self, program: str, function: str, addresses: Sequence[int], *, at_return: bool = False) -> None:
        self.attached.append((program, function, at_return))
        self.addresses.update(addresses)

    def close(self) -> None:
        """Nothing to free."""


@pytest.fixture
def old_kernel(monkeypatch: pytest.MonkeyPatch) -> Observatory:
    """An observatory on a kernel without the tracepoints, with kprobes."""

    def refuse_tracepoint(*_args: object) -> None:
        raise ObserveError("no such tracepoint", "needs a newer kernel")

    def arm(symbols: Symbols, cpus_online: int, *_: object) -> KprobeObserver:
        return KprobeObserver(cast("BpfObject", NoProbe()), symbols, cpus_online, online=[0, 1], possible=[0, 1])

    monkeypatch.setattr(CsdObserver, "arm", refuse_tracepoint)
    monkeypatch.setattr(KprobeObserver, "arm", arm)
    monkeypatch.setattr(ContentionObserver, "_attach", refuse_tracepoint)
    monkeypatch.setattr("kickwatch.observe.contention.BpfObject", lambda _name: NoProbe())
    monkeypatch.setattr(arming, "learn_comm_offset", lambda: 0)
    return Observatory(HOST, 2, Symbols.parse(KALLSYMS))


def test_an_old_kernel_is_observed_by_kprobes(old_kernel: Observatory) -> None:
    old_kernel._arm_probes()
    assert (old_kernel.observers.ipis, old_kernel.observers.contention) == ("kprobe", "kprobe")
    (loss,) = [loss for loss in old_kernel.losses if "no such tracepoint" in loss]  # one cause, reported once
    lost = "the tracepoint for IPIs (kprobes count them), the tracepoints for waits (kprobes count them)"
    assert loss == f"no such tracepoint; lost: {lost}; fix: needs a newer kernel"


def test_the_environment_may_ask_for_the_last_rungs(old_kernel: Observatory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, IPI_VARIABLE, "counters")
    monkeypatch.setitem(os.environ, CONTENTION_VARIABLE, "none")
    old_kernel._arm_probes()
    assert (old_kernel.observers.ipis, old_kernel.observers.contention) == ("counters", "none")


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("variable", [IPI_VARIABLE, CONTENTION_VARIABLE])
async def test_a_wrong_rung_is_an_error_before_anything_is_armed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, *, hidden: bool
) -> None:
    """While kallsyms showed no addresses nothing was armed, and nobody noticed."""
    armed: list[str] = []
    monkeypatch.setattr(Observatory, "_arm_probes", lambda _: armed.append("probes"))
    monkeypatch.setitem(os.environ, variable, "kprobes")
    (tmp_path / "kallsyms").write_text(re.sub("^[0-9]+", "0", KALLSYMS, flags=re.MULTILINE) if hidden else KALLSYMS)
    with pytest.raises(ConfigError, match=f"{variable} is 'kprobes'"):
        await Observatory.open(HostRoots(proc=tmp_path))
    assert not armed


def test_without_the_function_of_waits_a_kernel_with_the_tracepoints_is_the_remedy() -> None:
    """It was: waits for mutexes cannot be seen on this kernel."""
    waits = MutexObserver(cast("BpfObject", NoProbe()), Symbols.parse("1000 t end\n"), 0, 0)
    with pytest.raises(ObserveError, match="kallsyms has no __mutex_lock") as raised:
        waits._attach()
    assert raised.value.remedy.endswith("(Linux 5.19)")


def test_the_end_of_a_wait_is_probed_before_its_begin() -> None:
    """Of two probes on a function the one attached later runs first, and the begin must take the stack first."""
    probe = NoProbe()
    waits = MutexObserver(cast("BpfObject", probe), Symbols.parse(KALLSYMS), 0, 0)
    waits._attach()
    place = "__mutex_lock.constprop.0"
    assert probe.attached == [("mutex_end", place, True), ("mutex_begin", place, False)]
    assert probe.addresses == {waits.symbols.entries([place])[place][0]}
    assert waits.places == f"kprobes on {place}"


def test_without_the_slow_path_waits_cannot_be_observed() -> None:
    waits = MutexObserver(cast("BpfObject", NoProbe()), Symbols.parse("1000 t mutex_lock\n2000 t end\n"), 0, 0)
    with pytest.raises(ObserveError, match="__mutex_lock"):
        waits._attach()
