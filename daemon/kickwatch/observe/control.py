"""The positive control: a known number of real, harmless requests, which the probe must count exactly.

The native program kw-helper calls membarrier(2): a prime number of private expedited barriers are as many multi-CPU
`ipi_mb` calls, another prime number with a CPU flag as many single `ipi_rseq` requests. It proves that the probe is
attached, that its maps have room, and that it distinguishes calls from single requests. It patches no text and
interrupts only CPUs on which our own threads spin for a moment. Only requests of the helper's own task are counted, by
its name: on some nodes other processes call membarrier all the time. Isolated CPUs are left alone, unless the
configuration lists the CPUs to use: a node with one other CPU has no second one to interrupt.
"""

import asyncio
import os
import secrets
from collections.abc import Collection, Sequence
from errno import EINVAL, ENOSYS, EPERM
from pathlib import Path

from msgspec.structs import replace

from kickwatch.errors import KickwatchError
from kickwatch.model import Control, Count, IpiRung
from kickwatch.native.driver import Answer, Helper, HelperError
from kickwatch.node.causes import LossCause
from kickwatch.node.diagnosis import silenced
from kickwatch.node.facts import read_facts
from kickwatch.node.kernel import online
from kickwatch.node.roots import HOST
from kickwatch.observe.losses import Lost, causes
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.request_cells import Totals
from kickwatch.observe.requests import RequestObserver
from kickwatch.observe.windows import Sample, requests_lost

BARRIERS = 23
SINGLES = 7
_ATTEMPTS = 5
_STARVED_PAUSE_S = 2.0  # after an attempt in which no CPU was surely interrupted: the machine has no time for us
_MOST_CPUS = 8
_DEADLINE_S = 20.0
_STOP_S = 2.0  # the child has nothing to clean up
_OTHER_CPUS = "set control.cpus to CPUs of its cpuset (AllowedCPUs=)"
_ALLOW_MEMBARRIER = (
    "allow membarrier in the seccomp filter of this process (in a unit: SystemCallFilter=membarrier), or take a kernel"
    " with CONFIG_MEMBARRIER"
)


def control_cpus(isolated: Collection[int] = (), chosen: Sequence[int] = (), sys: Path = HOST.sys) -> tuple[int, ...]:
    """The CPUs to use, at most eight; the first one sends.

    Those of `chosen` that are online and in our cpuset, isolated or not; if none is chosen, those that our affinity
    allows, except the isolated ones.
    """
    if chosen:
        return _in_cpuset(_online_of(chosen, sys))[:_MOST_CPUS]
    return tuple(sorted(os.sched_getaffinity(0).difference(isolated)))[:_MOST_CPUS]


def _online_of(chosen: Sequence[int], sys: Path) -> tuple[int, ...]:
    present = set(online(sys))
    return tuple(cpu for cpu in dict.fromkeys(chosen) if cpu in present)


def _in_cpuset(cpus: Sequence[int]) -> tuple[int, ...]:
    """Those on which the kernel lets us run, found by trying: our affinity may be narrower than our cpuset."""
    before = os.sched_getaffinity(0)  # of this thread only
    try:
        return tuple(filter(_runs_here, cpus))
    finally:
        os.sched_setaffinity(0, before)


def _runs_here(cpu: int) -> bool:
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError as error:
        return error.errno != EINVAL  # a refusal for another reason says nothing about the CPU
    return True


def too_few_cpus(chosen: Sequence[int] = (), isolated: Collection[int] = (), sys: Path = HOST.sys) -> tuple[str, str]:
    """(why the control cannot run with fewer than two CPUs, what to do)."""
    present = online(sys)
    if len(present) < 2:
        return "one CPU is online: there is no other to interrupt", "bring another CPU online; a broadcast needs two"
    if chosen and len(_online_of(chosen, sys)) < 2:
        return "fewer than two CPUs of control.cpus are online", "set control.cpus to others"
    if chosen:
        return "this process may run on fewer than two CPUs of control.cpus", _OTHER_CPUS
    if len(set(present).difference(isolated)) < 2:
        what = "fewer than two CPUs that are neither isolated nor nohz_full"
        return what, "set control.cpus to two CPUs that may be interrupted for some milliseconds an hour"
    return (
        "this process may run on fewer than two CPUs that are not isolated",
        "allow it more (taskset, CPUAffinity= and AllowedCPUs= of its unit), or set control.cpus",
    )


def why_unarmed(observatory: Observatory) -> str:
    """Why no probe counts requests."""
    return causes(observatory.lost(Lost.NAMES, Lost.REQUESTS))[0] or "not known"


def silenced_by(probe: RequestObserver) -> LossCause | None:
    """The switch of this node that keeps the programs of an armed probe from running; None if none is known. Blocks."""
    if probe.RUNG is IpiRung.CSD:
        return None
    return silenced(read_facts(), kprobes=probe.RUNG is IpiRung.KPROBE)


async def positive_control(observatory: Observatory, chosen: Sequence[int] = ()) -> Control:
    """Make the requests and count them. `chosen`: see `control_cpus`.

    If the count is wrong, or events were lost, there is another attempt; if a full map lost them, the maps are emptied
    first. A machine that has no time for an attempt gets a pause. If nothing was counted, the detail names what
    switches the probe off, if that is known.
    """
    return (await control_and_cause(observatory, chosen))[0]


async def control_and_cause(observatory: Observatory, chosen: Sequence[int] = ()) -> tuple[Control, LossCause | None]:
    """As `positive_control`, with the cause and its remedy where it failed for one that is not kickwatch's."""
    if observatory.requests is None:
        return Control(passed=False, detail=f"no probe is armed: {why_unarmed(observatory)}"), None
    cpus = await asyncio.to_thread(control_cpus, observatory.isolated_cpus, chosen)
    if len(cpus) < 2:
        why = LossCause(*await asyncio.to_thread(too_few_cpus, chosen, observatory.isolated_cpus))
        return _untried(why, cpus), why
    control = Control(passed=False, detail="not tried", cpus=cpus)
    for left in reversed(range(_ATTEMPTS)):
        try:
            control, lost = await _attempt(observatory, observatory.requests, cpus)
            if control.passed:
                break
            if lost:
                await observatory.between_windows()
            counts = (control.calls, control.singles)
            if left and any(one is not None and not one.expected_low for one in counts):
                await asyncio.sleep(_STARVED_PAUSE_S)
        except KickwatchError as error:  # another attempt would hang as well
            why = refusal(error, cpus)
            return _untried(why, cpus), why
    if control.calls is not None and not control.calls.seen:
        cause = await asyncio.to_thread(silenced_by, observatory.requests)
        return (replace(control, detail=f"{control.detail}: {cause.what}"), cause) if cause else (control, None)
    return control, None


def _untried(why: LossCause, cpus: tuple[int, ...]) -> Control:
    return Control(passed=False, detail=": ".join(filter(None, (why.what, why.remedy))), cpus=cpus)


def refusal(error: KickwatchError, cpus: Sequence[int]) -> LossCause:
    """Why the control's own requests could not be made on `cpus`, and what to do."""
    if isinstance(error, HelperError) and error.errno == EINVAL:
        return LossCause(f"this process may not run on one of the CPUs {', '.join(map(str, cpus))}", _OTHER_CPUS)
    if isinstance(error, HelperError) and error.errno in {ENOSYS, EPERM} and "membarrier" in error.what:
        return LossCause(f"membarrier(2) is refused ({os.strerror(error.errno)})", _ALLOW_MEMBARRIER)
    return LossCause(error.what, error.remedy)


async def _attempt(observatory: Observatory, probe: RequestObserver, cpus: tuple[int, ...]) -> tuple[Control, int]:
    """(the outcome of one attempt, requests that were lost during it)."""
    name = f"kwctl-{secrets.token_hex(5)[:9]}"  # of the sender: no other process has it, and it fills task_struct.comm
    arguments = ["barriers", str(BARRIERS), str(SINGLES), ",".join(map(str, cpus)), name]
    with probe.controlled(name):
        async with Helper(arguments, stop_s=_STOP_S) as helper:
            before = await observatory.sample()
            many = await helper.ask("many", _DEADLINE_S)
            between = await observatory.sample()
            single = await helper.ask("single", _DEADLINE_S) if helper.ready.fields.get("rseq") == "yes" else None
            after = await observatory.sample()
    barriers, lone = _sent(probe, before, between, "ipi_mb"), _sent(probe, between, after, "ipi_rseq")
    calls = _count(many, "calls", barriers.calls)
    requests = _count(many, "requests", barriers.requests)
    singles = _count(single, "requests", lone.requests) if single is not None else None
    grouped = lone.calls
    exact = calls.right and requests.right and (singles is None or (singles.right and grouped == 0))
    lost, _ = requests_lost(before, after)
    control = Control(
        passed=exact and not lost,  # a full map still counts its own cells, but those of a fault would be new
        detail=_words(calls, singles, grouped) + (f"; {lost} requests were lost meanwhile" if lost else ""),
        cpus=cpus,
        calls=calls,
        requests=requests,
        singles=singles,
    )
    return control, lost


def _sent(probe: RequestObserver, before: Sample, after: Sample, func: str) -> Totals:
    """Our own requests for a function: other processes may send some at the same time."""
    if before.requests is None or after.requests is None:
        return Totals(0, 0, 0)
    return probe.sent_by_control(before.requests, after.requests).get(func, Totals(0, 0, 0))


def _count(answer: Answer, field: str, seen: int) -> Count:
    low, _, high = answer.fields.get(field, "0:0").partition(":")
    return Count(expected_low=int(low), expected_high=int(high or low), seen=seen)


def _words(calls: Count, singles: Count | None, grouped: int) -> str:
    """What was seen, and what was expected."""
    text = f"{calls.seen} of {_range(calls)} multi-CPU calls"
    if singles is not None:
        text += f", {singles.seen} of {_range(singles)} single requests"
    return f"{text}, {grouped} single requests taken for calls" if grouped else text


def _range(count: Count) -> str:
    low, high = count.expected_low, count.expected_high
    return str(low) if low == high else f"{low} to {high}"
