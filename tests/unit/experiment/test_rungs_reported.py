"""How `doctor` names the rung in use, without a kernel."""

from typing import TYPE_CHECKING, cast

from kickwatch.experiment.capabilities import _contention, _ipis, blind
from kickwatch.node.roots import HOST
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.kprobe import KprobeObserver
from kickwatch.observe.losses import Loss, Lost
from kickwatch.observe.mutex import MutexObserver
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.symbols import Symbols

if TYPE_CHECKING:
    from kickwatch.observe.bpf import BpfObject

SYMBOLS = Symbols.parse(
    """\
1000 t smp_call_function_many_cond.constprop.0
2000 T smp_call_function_single
3000 T smp_call_function_single_async
4000 T __smp_call_single_queue
5000 t __mutex_lock.constprop.0
6000 t end
"""
)
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
