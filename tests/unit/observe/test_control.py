"""The positive control while requests are lost: even an exact count proves nothing, and is repeated."""

import struct
from errno import EINVAL, ENOSYS, EPERM
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fake_probe import FakeProbe
from kickwatch.experiment import capabilities
from kickwatch.model import IpiRung
from kickwatch.native.driver import HelperError
from kickwatch.node.diagnosis import Facts
from kickwatch.observe import bpf, control
from kickwatch.observe.control import control_and_cause, control_cpus, positive_control
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.interrupts import InterruptSample
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.readings import Health
from kickwatch.observe.request_cells import RequestSample, Totals
from kickwatch.observe.symbols import Symbols
from kickwatch.observe.windows import Sample

SYMBOLS = Symbols.parse("1000 t smp_call_function_many_cond\n2000 t ipi_mb\n3000 t end\n")
BARRIERS = struct.pack("=QiI8x", 0x2000, -17, 1 | 8)  # of the control itself


class Helper:
    """Answers as the native program does that makes 23 barriers."""

    def __init__(self, *_: object, **__: object) -> None:
        self.ready = SimpleNamespace(fields={})

    async def __aenter__(self) -> "Helper":
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to end."""

    async def ask(self, *_: object) -> SimpleNamespace:
        return SimpleNamespace(fields={"calls": "23", "requests": "23"})


class Losing(Observatory):
    """Counts the barriers exactly. Of an attempt's three samples the first is before the barriers, the others after.

    `losses`: what the probe loses in each attempt, as in its health counters.
    """

    def __init__(self, losses: list[Health], misses: int = 0) -> None:
        super().__init__(None, 2, SYMBOLS)  # type: ignore[arg-type]
        self.requests = CsdObserver(cast("bpf.BpfObject", FakeProbe()), SYMBOLS, 2)
        self.losses_made, self.misses = losses, misses
        self.samples = self.emptied = 0
        self.health = Health()

    async def sample(self) -> Sample:
        attempt, place = divmod(self.samples, 3)
        self.samples += 1
        if place == 1 and attempt < len(self.losses_made):
            made = self.losses_made[attempt]
            self.health = Health(*(now + more for now, more in zip(self.health, made, strict=True)))
        calls = 23 * (attempt + (place > 0))
        sample = RequestSample({BARRIERS: Totals(calls, calls, calls)}, self.health, self.misses * self.samples)
        return Sample(0, InterruptSample((0, 1), {}), sample, None)

    async def between_windows(self) -> None:
        self.emptied += 1


@pytest.fixture(autouse=True)
def on_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "control_cpus", lambda *_: (0, 1))
    monkeypatch.setattr(control, "Helper", Helper)


async def passed(observatory: Losing) -> Any:
    return await positive_control(observatory)


@pytest.fixture
def eight_cpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The sysfs of a machine whose CPUs 0 to 8 are online. Our affinity allows 1 to 8."""
    (tmp_path / "devices/system/cpu").mkdir(parents=True)
    (tmp_path / "devices/system/cpu/online").write_text("0-8\n")
    monkeypatch.setattr(control.os, "sched_getaffinity", lambda _: set(range(1, 9)))
    within_cpuset(monkeypatch, set(range(9)))
    return tmp_path


def within_cpuset(monkeypatch: pytest.MonkeyPatch, cpuset: set[int]) -> list[set[int]]:
    """The kernel lets us run on these. Returns what is asked for, in order."""
    asked: list[set[int]] = []

    def sched_setaffinity(_: int, mask: set[int]) -> None:
        asked.append(mask)
        if not mask & cpuset:
            raise OSError(EINVAL, "Invalid argument")

    monkeypatch.setattr(control.os, "sched_setaffinity", sched_setaffinity)
    return asked


def test_isolated_cpus_are_left_alone(eight_cpus: Path) -> None:
    assert control_cpus((), (), eight_cpus) == (1, 2, 3, 4, 5, 6, 7, 8)
    assert control_cpus((4, 5, 6, 7), (), eight_cpus) == (1, 2, 3, 8)
    assert control_cpus(range(2, 9), (), eight_cpus) == (1,)


def test_chosen_cpus_are_used_in_their_order_isolated_or_not_if_they_are_online(eight_cpus: Path) -> None:
    assert control_cpus((4, 5), (5, 0, 5, 4), eight_cpus) == (5, 0, 4)
    assert control_cpus((), (9, 3), eight_cpus) == (3,)
    assert control_cpus((), tuple(range(9)), eight_cpus) == tuple(range(8))  # never more than eight


def test_a_chosen_cpu_outside_the_cpuset_is_left_out_and_our_affinity_stays(
    eight_cpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = within_cpuset(monkeypatch, {0, 1, 2, 3})
    assert control_cpus((), (5, 0, 4, 1), eight_cpus) == (0, 1)
    assert asked == [{5}, {0}, {4}, {1}, set(range(1, 9))]


def test_a_filter_that_refuses_to_set_the_affinity_excludes_no_cpu(
    eight_cpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: int, mask: set[int]) -> None:
        if len(mask) == 1:
            raise OSError(EPERM, "Operation not permitted")

    monkeypatch.setattr(control.os, "sched_setaffinity", refused)
    assert control_cpus((), (5, 0), eight_cpus) == (5, 0)


async def test_a_single_cpu_that_is_not_isolated_is_not_enough_and_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control, "control_cpus", lambda _, chosen: chosen[:1] or (0,))
    monkeypatch.setattr(control, "online", lambda _: [0, 1])
    observatory = Losing([])
    observatory.isolated_cpus = (1,)
    outcome = await positive_control(observatory)
    assert not outcome.passed
    assert outcome.cpus == (0,)
    assert outcome.detail.startswith("fewer than two CPUs that are neither isolated nor nohz_full: set control.cpus to")
    offline = await positive_control(Losing([]), (3, 4))
    assert offline.detail == "fewer than two CPUs of control.cpus are online: set control.cpus to others"
    outside = await positive_control(Losing([]), (1, 0))
    assert outside.detail == (
        "this process may run on fewer than two CPUs of control.cpus: set control.cpus to CPUs of its cpuset"
        " (AllowedCPUs=)"
    )


@pytest.mark.parametrize(
    ("online", "allowed", "isolated", "words"),
    [
        ([0], {0}, (), "one CPU is online: there is no other to interrupt: bring another CPU online"),
        ([0, 1], {0}, (), "this process may run on fewer than two CPUs that are not isolated: allow it more"),
        ([0, 1, 2], {0, 1}, (1,), "this process may run on fewer than two CPUs that are not isolated"),
        ([0, 1], {0, 1}, (1,), "fewer than two CPUs that are neither isolated nor nohz_full"),
    ],
)
async def test_the_cause_of_too_few_cpus_is_named(
    monkeypatch: pytest.MonkeyPatch, online: list[int], allowed: set[int], isolated: tuple[int, ...], words: str
) -> None:
    """A machine with one CPU, or with all others offline; an affinity; isolated CPUs."""
    observatory = Losing([])
    observatory.isolated_cpus = isolated
    monkeypatch.setattr(control, "control_cpus", control_cpus)
    monkeypatch.setattr(control, "online", lambda _: online)
    monkeypatch.setattr(control.os, "sched_getaffinity", lambda _: allowed)
    outcome = await positive_control(observatory)
    assert not outcome.passed
    assert outcome.detail.startswith(words)
    assert observatory.samples == 0  # nothing was started


ALLOW = (
    "allow membarrier in the seccomp filter of this process (in a unit: SystemCallFilter=membarrier), or take a kernel"
    " with CONFIG_MEMBARRIER"
)


@pytest.mark.parametrize(
    ("error", "what", "remedy"),
    [
        (
            HelperError("kw-helper barriers: `start`: run on CPU 1: Invalid argument", errno=EINVAL),
            "this process may not run on one of the CPUs 0, 1",
            "set control.cpus to CPUs of its cpuset (AllowedCPUs=)",
        ),
        (HelperError("membarrier refused", errno=EPERM), "membarrier(2) is refused (Operation not permitted)", ALLOW),
        (HelperError("membarrier absent", errno=ENOSYS), "membarrier(2) is refused (Function not implemented)", ALLOW),
        (HelperError("run on CPU 1: no", "let it", errno=EPERM), "run on CPU 1: no", "let it"),
    ],
)
async def test_what_refuses_the_controls_own_requests_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, error: HelperError, what: str, remedy: str
) -> None:
    """A cpuset that changed since the CPUs were tried; a container's filter; a kernel without membarrier; another."""

    class Refused(Helper):
        async def __aenter__(self) -> Helper:
            raise error

    monkeypatch.setattr(control, "Helper", Refused)
    outcome, cause = await control_and_cause(Losing([]))
    assert not outcome.passed
    assert outcome.detail == f"{what}: {remedy}"
    assert cause is not None
    assert (cause.what, cause.remedy) == (what, remedy)


async def test_chosen_cpus_make_the_control_possible_where_all_others_are_isolated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    observatory = Losing([])
    observatory.isolated_cpus = (1,)
    monkeypatch.setattr(control, "control_cpus", control_cpus)
    monkeypatch.setattr(control, "online", lambda _: [0, 1])
    monkeypatch.setattr(control.os, "sched_getaffinity", lambda _: {0, 1})
    within_cpuset(monkeypatch, {0, 1})
    assert (await positive_control(observatory)).cpus == (0,)
    outcome = await positive_control(observatory, (1, 0))
    assert (outcome.passed, outcome.cpus) == (True, (1, 0))


async def test_it_passes_at_once_if_the_count_is_exact_and_nothing_is_lost() -> None:
    observatory = Losing([])
    assert (await passed(observatory)).passed
    assert (observatory.samples, observatory.emptied) == (3, 0)


@pytest.mark.parametrize("loss", [Health(lost=1), Health(unknown_kind=1)])
async def test_it_is_repeated_with_emptied_maps_after_a_request_was_lost(loss: Health) -> None:
    observatory = Losing([loss])
    assert (await passed(observatory)).passed
    assert (observatory.samples, observatory.emptied) == (6, 1)


async def test_it_fails_with_the_reason_if_requests_are_lost_each_time() -> None:
    control_ = await passed(Losing([Health(lost=7)] * 5))
    assert not control_.passed
    assert control_.calls.right
    assert control_.detail == "23 of 23 multi-CPU calls; 7 requests were lost meanwhile"


async def test_requests_from_interrupts_while_the_probe_runs_are_no_loss() -> None:
    """They are never multi-CPU calls, and a busy node has some every second."""
    assert (await passed(Losing([Health(stackless=3)], misses=9))).passed


async def test_a_machine_without_time_for_an_attempt_gets_a_pause_before_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No round was surely interrupted: that says nothing about the probe, and five such attempts took a moment."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    class Starved(Helper):
        async def ask(self, *_: object) -> SimpleNamespace:
            return SimpleNamespace(fields={"calls": "23" if len(pauses) == 3 else "0:23", "requests": "23"})

    monkeypatch.setattr(control, "Helper", Starved)
    monkeypatch.setattr(control.asyncio, "sleep", sleep)
    assert (await passed(Losing([]))).passed
    assert pauses == [control._STARVED_PAUSE_S] * 3


class Silent(Losing):
    """Its programs are attached and never run."""

    async def sample(self) -> Sample:
        return Sample(0, InterruptSample((0, 1), {}), RequestSample({}, Health(), 0), None)


@pytest.fixture
def ftrace_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "read_facts", lambda: Facts(ftrace_enabled=0))


@pytest.mark.usefixtures("ftrace_off")
async def test_what_stops_attached_kprobes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CsdObserver, "RUNG", IpiRung.KPROBE)
    detail = "0 of 23 multi-CPU calls: kernel.ftrace_enabled is 0, and no probe at the entry of a function runs"
    assert (await passed(Silent([]))).detail == detail
    found = await capabilities._control(Silent([]), ())
    assert (found.detail, found.remedy) == (f"counted {detail}", "sysctl -w kernel.ftrace_enabled=1")


@pytest.mark.usefixtures("ftrace_off")
async def test_a_silent_tracepoint_is_not_blamed_on_the_function_tracer() -> None:
    assert (await passed(Silent([]))).detail == "0 of 23 multi-CPU calls"
    assert "report a bug" in (await capabilities._control(Silent([]), ())).remedy


@pytest.mark.usefixtures("ftrace_off")
async def test_a_probe_that_runs_and_counts_wrongly_is_not_blamed_on_a_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CsdObserver, "RUNG", IpiRung.KPROBE)
    lost = await passed(Losing([Health(lost=7)] * 5))
    assert lost.detail == "23 of 23 multi-CPU calls; 7 requests were lost meanwhile"
