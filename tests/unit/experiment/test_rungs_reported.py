"""How `doctor` names the rung in use, without a kernel."""

import errno
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from kickwatch.configuration.types import Config, WorkloadConfig
from kickwatch.errors import ObserveError
from kickwatch.experiment import capabilities
from kickwatch.experiment.capabilities import _control, _cost
from kickwatch.experiment.capability import Capability, blind
from kickwatch.experiment.observer_rows import _contention, _ipis, _others, _slab_mutex
from kickwatch.node.causes import STATISTICS_SUBJECT
from kickwatch.node.diagnosis import Act
from kickwatch.node.roots import HOST
from kickwatch.observe.containers import ContainerObserver
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.kprobe import KprobeObserver
from kickwatch.observe.losses import Loss, Lost
from kickwatch.observe.mutex import MutexObserver
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.refused import refused
from kickwatch.observe.symbols import Symbols

if TYPE_CHECKING:
    from kickwatch.observe.bpf import BpfObject

KALLSYMS = """\
1000 t smp_call_function_many_cond.constprop.0
2000 T smp_call_function_single
3000 T smp_call_function_single_async
4000 T __smp_call_single_queue
5000 t __mutex_lock.constprop.0
6000 t end
"""
SYMBOLS = Symbols.parse(KALLSYMS)
NO_PROBE = cast("BpfObject", None)


def test_the_tracepoint() -> None:
    seen = Observatory(HOST, 2, SYMBOLS, requests=CsdObserver(NO_PROBE, SYMBOLS, 2))
    assert seen.observers.ipis == "csd"
    told = _ipis(seen)
    assert (told.satisfied, told.detail, told.remedy) == (True, "tracepoint csd:csd_queue_cpu", "")


def test_kprobes_by_the_names_that_the_compiler_gave() -> None:
    kprobes = KprobeObserver(NO_PROBE, SYMBOLS, 2, online=[0, 1], possible=[0, 1])
    seen = Observatory(HOST, 2, SYMBOLS, requests=kprobes, contention=MutexObserver(NO_PROBE, SYMBOLS, 0, 0))
    assert (seen.observers.ipis, seen.observers.contention) == ("kprobe", "kprobe")
    told = _ipis(seen)
    assert told.satisfied
    assert told.detail.startswith("kprobes on ")
    assert "smp_call_function_many_cond.constprop.0" in told.detail
    assert not blind([told])
    assert _contention(seen).detail == "kprobes on __mutex_lock.constprop.0"


def test_slab_mutex_is_recognised_if_the_ipi_probe_uses_it() -> None:
    """Linux 4.19: kallsyms lists it, the request probe marks senders that hold it, and waits cannot be probed."""
    symbols = Symbols.parse(f"{KALLSYMS}9000 d slab_mutex\n")
    probe = cast("BpfObject", SimpleNamespace(unread=None))
    seen = Observatory(HOST, 2, symbols, requests=CsdObserver(probe, symbols, 2, slab_mutex=0x9000))
    found = _slab_mutex(seen)
    assert found.satisfied
    assert found.detail == "at 0x9000, from kallsyms; waits for it are not seen"


def test_where_no_probe_can_learn_slab_mutex_nobody_waits_for_a_wait() -> None:
    found = _slab_mutex(Observatory(HOST, 2, SYMBOLS))
    assert "no probe can learn it" in found.detail
    assert found.remedy == "as for lock contention"


def test_each_loss_is_under_its_own_capability() -> None:
    seen = Observatory(HOST, 2, SYMBOLS)
    seen._lost += [
        Loss(Lost.REQUESTS, "no tracepoint", "Linux 6.5 or later"),
        Loss(Lost.WAITS, "no kprobes", "kprobes"),
    ]
    assert (_ipis(seen).detail, _ipis(seen).remedy) == ("counters only: no tracepoint", "Linux 6.5 or later")
    assert (_contention(seen).detail, _contention(seen).remedy) == ("no kprobes", "kprobes")


async def test_the_cost_that_an_old_kernel_cannot_tell_names_the_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not `Invalid argument`: 4.19 has no such statistics."""

    def refuse() -> int:
        raise refused("enabling statistics", errno.EINVAL, Act.STATISTICS, STATISTICS_SUBJECT)

    monkeypatch.setattr(capabilities, "enable_statistics", refuse)
    monkeypatch.setattr("kickwatch.node.kernel.release", lambda: "4.19.304")
    seen = Observatory(HOST, 2, SYMBOLS, requests=CsdObserver(NO_PROBE, SYMBOLS, 2))
    found = await _cost(seen, (0, 1))
    assert not found.satisfied
    assert "since 5.8, and this is 4.19.304" in found.detail
    assert found.remedy == "Linux 5.8 or later"


async def test_a_control_without_a_probe_says_why_and_counted_nothing() -> None:
    """It read: the probe counted no probe is armed."""
    seen = Observatory(HOST, 2, SYMBOLS)
    seen._lost.append(Loss(Lost.REQUESTS, "no tracepoint", ""))
    found = await _control(seen, ())
    assert found.detail == "no probe is armed: no tracepoint"
    assert found.remedy == "as for IPIs by reason above"


async def test_passive_mode_needs_the_tracepoints_of_cgroups_and_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are refused doctor says so, which it left out; a missing engine does not make passive mode blind."""
    error = ObserveError("no raw tracepoint cgroup_attach_task", "boot Linux 4.18 or newer")

    def refuse(_own: object) -> None:
        raise error

    async def examined(_: Config, **__: object) -> list[Capability]:
        engine = Capability(name="container engine", satisfied=False, detail="none answers", needed=True)
        return [engine, *([await _others(seen)] if others else [])]

    monkeypatch.setattr(ContainerObserver, "arm", refuse)
    monkeypatch.setattr(capabilities, "_examined", examined)
    seen, passive = Observatory(HOST, 2, SYMBOLS), Config(workload=WorkloadConfig(enabled=False))
    others = False
    (engine,) = await capabilities.examine(passive)
    assert (engine.needed, blind([engine])) == (False, False)
    assert engine.cost.startswith("none in passive mode")
    assert blind(await capabilities.examine(Config()))
    others = True
    (_, lost) = await capabilities.examine(passive)
    assert (lost.name, lost.satisfied, lost.needed) == ("containers of others", False, True)
    assert (lost.detail, lost.remedy) == (error.what, error.remedy)
    assert lost.cost.startswith("no alert")


async def test_what_is_missing_without_a_remedy_is_to_be_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper that ended, while the cost per event was measured, was a row without a remedy."""

    async def examined(_: Config, **__: object) -> list[Capability]:
        return [Capability(name="cost per event", satisfied=False, detail="kw-helper barriers ended")]

    monkeypatch.setattr(capabilities, "_examined", examined)
    (lost,) = await capabilities.examine(Config())
    assert lost.remedy == "not known: report it, with `kickwatch doctor --json`"


def test_counters_alone_are_blindness_and_say_what_is_missing() -> None:
    seen = Observatory(HOST, 2, SYMBOLS)
    seen._lost.append(Loss(Lost.REQUESTS, "no tracepoint", "a kernel with kprobes"))
    assert (seen.observers.ipis, seen.observers.contention) == ("counters", "none")
    told = _ipis(seen)
    assert not told.satisfied
    assert told.detail == "counters only: no tracepoint"
    assert "kprobes" in told.remedy
    assert blind([told])
    assert not _contention(seen).satisfied
