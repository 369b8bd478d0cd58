"""The 2017 test without a kernel: verdicts, the report, waiting for rest, and the whole run against a fake node."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idling import idling_node
from kickwatch.errors import KickwatchError
from kickwatch.experiment import native_loops
from kickwatch.experiment.native_loops import sampler
from kickwatch.experiment.reproduce import Created, Settings, reproduce, still_below, until_still
from kickwatch.experiment.reproduce_report import (
    Memory,
    estimate_bytes,
    limits_line,
    parse_meminfo,
    report,
    too_much_memory,
)
from kickwatch.experiment.reproduce_verdict import (
    Patch,
    PatchVerdict,
    Phase,
    Reading,
    Reproduction,
    Wakeups,
    judge,
    verdict,
)
from kickwatch.model import Control
from kickwatch.native.driver import parse_answer
from kickwatch.observe.interrupts import InterruptSample, IpiKind, parse_interrupts
from kickwatch.observe.request_cells import RequestCounts

MIB = 1 << 20
S = 1_000_000_000
FIXTURES = Path(__file__).parents[2] / "fixtures" / "interrupts"


def sample(cal: tuple[int, ...], tlb: tuple[int, ...] | None = None) -> InterruptSample:
    """Counters, one CPU for each figure in `cal`."""
    counts = {IpiKind.CAL: cal} if tlb is None else {IpiKind.CAL: cal, IpiKind.TLB: tlb}
    return InterruptSample(tuple(range(len(cal))), counts)


def phase(cal: tuple[int, ...], *, tlb: tuple[int, ...] | None = None, probed: RequestCounts | None = None) -> Phase:
    """Twenty seconds in which the counters rose from 100 to 100 + `cal`, and the probe counted `probed`."""
    start = Reading(0, sample((100,) * len(cal), tlb and (0,) * len(cal)), probed and RequestCounts(5, 5, 5, 5, 5))
    end = sample(tuple(100 + rise for rise in cal), tlb)
    counts = probed and RequestCounts(*(5 + rise for rise in probed))
    return Phase(start, Reading(20 * S, end, counts), 3 * S, quiesced=True)


def counts(
    created: int = 0, *, others: int = 0, elsewhere: int = 0, requests: int = 400, lost: int = 0
) -> RequestCounts:
    """What a probe counted: broadcasts of the creation path and `others`; requests from elsewhere, and from there."""
    return RequestCounts(created, created + others, elsewhere, elsewhere + requests, lost)


def test_published_figures_give_the_published_verdicts() -> None:
    assert judge(phase((47741, 47741)), 10_000, 0.0).patch is Patch.UNPATCHED
    assert judge(phase((101, 101)), 10_000, 0.0).patch is Patch.PATCHED


def test_recorded_kernels_give_the_right_verdicts() -> None:
    """4.19 on 4 CPUs: 5 calls for each of 2000 memcgs reach 3 CPUs, against 198 interrupts in all."""
    assert judge(phase((7000, 8000, 8000, 7204)), 2000, 0.0).patch is Patch.UNPATCHED
    assert judge(phase((50, 48, 50, 50)), 2000, 0.0).patch is Patch.PATCHED


def test_the_verdict_uses_the_sum_over_all_cpus() -> None:
    assert judge(phase((0, 20_000)), 10_000, 0.0).patch is Patch.UNPATCHED


def test_tlb_shootdowns_do_not_count() -> None:
    assert judge(phase((9000, 9000), tlb=(8990, 8990)), 10_000, 0.0).patch is Patch.PATCHED


def test_the_background_is_subtracted_with_a_margin() -> None:
    busy = phase((5000, 5000))  # 500 a second for 20 s
    assert judge(busy, 10_000, 500.0).patch is Patch.UNKNOWN
    assert judge(busy, 10_000, 250.0).patch is Patch.UNKNOWN
    assert judge(busy, 10_000, 100.0).patch is Patch.UNPATCHED
    assert judge(phase((2500, 2500)), 10_000, 250.0).patch is Patch.PATCHED


def test_counters_that_include_remote_wakeups_accuse_no_kernel() -> None:
    """A healthy arm64 6.12: 1.0006 per loop and other CPU."""
    healthy = phase((7505, 7505, 7505, 7503))
    assert judge(healthy, 10_000, 0.0).patch is Patch.UNPATCHED
    found = judge(healthy, 10_000, 0.0, Wakeups.INCLUDED)
    assert (found.patch, "remote wakeups" in found.why) == (Patch.UNKNOWN, True)
    attributed = judge(phase((7505, 7505, 7505, 7503), probed=counts()), 10_000, 0.0, Wakeups.INCLUDED)
    assert (attributed.patch, attributed.why) == (Patch.PATCHED, "attributed to the creation path")
    assert "interrupts that the counters show include remote wakeups here" in report(
        replace(a_run(healthy), wakeups=Wakeups.INCLUDED)
    )


def test_where_idle_cpus_halt_the_counters_are_compared_with_a_probe_and_accuse_no_kernel_alone() -> None:
    """A virtual machine without MWAIT while tasks wait for slab_mutex: each wakeup is a function call interrupt."""
    rows = (47741, 47741)
    found = judge(phase(rows), 10_000, 0.0, Wakeups.PROBED)
    assert (found.patch, "remote wakeups" in found.why) == (Patch.UNKNOWN, True)
    explained = judge(phase(rows, probed=counts(elsewhere=95_000)), 10_000, 0.0, Wakeups.PROBED)
    assert (explained.patch, explained.why) == (Patch.PATCHED, "attributed to the creation path")
    deaf = judge(phase(rows, probed=counts(requests=400)), 10_000, 0.0, Wakeups.PROBED)
    assert (deaf.patch, "that no other request explains" in deaf.why) == (Patch.UNKNOWN, True)


@pytest.mark.parametrize(
    ("where", "desc", "wakeups"),
    [
        (("x86_64", "6.18.0"), "ACPI HLT", Wakeups.PROBED),
        (("x86_64", "6.18.0"), "MWAIT 0x00", Wakeups.APART),
        (("x86_64", "5.4.0-150-generic"), "ACPI HLT", Wakeups.APART),
        (("aarch64", "6.12.1"), "WFI", Wakeups.INCLUDED),
    ],
)
def test_what_wakeups_mean_is_read_from_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: tuple[str, str], desc: str, wakeups: Wakeups
) -> None:
    monkeypatch.setattr(native_loops, "architecture", lambda: where[0])
    monkeypatch.setattr(native_loops, "release", lambda: where[1])
    assert native_loops.wakeups_here(idling_node(tmp_path, desc)) is wakeups


def test_a_missing_row_of_shootdowns_is_not_reported_as_none() -> None:
    assert ", no row of TLB shootdowns)" in report(a_run(phase((5, 5))))
    assert ", 0 of them TLB shootdowns)" in report(a_run(phase((5, 5), tlb=(0, 0))))


def test_a_probe_that_counted_no_request_clears_no_kernel() -> None:
    """Something switched the kprobes off after the control; where wakeups are included the counters cannot object."""
    silent = phase((6, 6), probed=counts(requests=0))
    for wakeups in Wakeups:
        found = judge(silent, 10_000, 0.0, wakeups)
        assert (found.patch, found.low) == (Patch.UNKNOWN, None)
        assert found.why.startswith("the probe counted no request at all")


@pytest.mark.parametrize(
    ("created", "quiesced", "patch"),
    [
        (4000, True, Patch.PATCHED),
        (4000, False, Patch.UNKNOWN),
        (2000, False, Patch.PATCHED),  # it would have to double
    ],
)
def test_a_creation_path_that_still_broadcasts_at_the_end_is_not_cleared(
    created: int, quiesced: bool, patch: Patch
) -> None:
    rows = (created // 2, created // 2)
    for probed in (counts(created), None):
        assert judge(replace(phase(rows, probed=probed), quiesced=quiesced), 10_000, 0.0).patch is patch


def test_what_was_seen_before_the_end_convicts() -> None:
    unquiet = replace(phase((2500, 2500), probed=counts(5000)), quiesced=False)
    assert judge(unquiet, 10_000, 0.0).patch is Patch.UNPATCHED


def test_few_loops_prove_nothing() -> None:
    assert judge(phase((1, 0)), 1, 0.0).patch is Patch.UNKNOWN


@pytest.mark.parametrize(("created", "patch"), [(0, Patch.PATCHED), (4999, Patch.PATCHED), (5000, Patch.UNPATCHED)])
def test_broadcasts_of_the_creation_path_decide(created: int, patch: Patch) -> None:
    found = judge(phase((created, 0), probed=counts(created, requests=created or 9)), 10_000, 0.0)
    assert (found.patch, found.low, found.why) == (patch, created / 10_000, "attributed to the creation path")


def test_broadcasts_that_were_seen_outrank_counters_without_them() -> None:
    """A background that ends meanwhile hides them from the counters. Each broadcast has its stack."""
    found = judge(phase((5000, 0), probed=counts(5000, requests=5000)), 10_000, 500.0)
    assert found.patch is Patch.UNPATCHED
    assert found.why.endswith("; the counters alone would say patched")


def test_a_probe_that_hears_nothing_of_the_interrupts_clears_no_kernel() -> None:
    """It has counted its positive control, but none of what the counters show: 4.77 per loop and CPU."""
    found = judge(phase((47741, 47741), probed=counts()), 10_000, 0.0)
    assert (found.patch, found.low, found.high) == (Patch.UNKNOWN, None, None)
    assert "but the counters show 9.55 function call interrupts per loop and other CPU" in found.why


def test_requests_of_the_creation_path_that_are_no_broadcasts_explain_no_counters() -> None:
    """As where calls are not recognised as such, or each CPU gets a request of its own."""
    assert judge(phase((47741, 47741), probed=counts(requests=95_482)), 10_000, 0.0).patch is Patch.UNKNOWN


def test_counters_that_other_requests_explain_contradict_no_probe() -> None:
    """A busy node: expedited RCU, wakeups and shootdowns, each with its stack."""
    busy = phase((47741, 47741), tlb=(4000, 4000), probed=counts(elsewhere=95_000, requests=400))
    found = judge(busy, 10_000, 0.0)
    assert (found.patch, found.high) == (Patch.PATCHED, 0.0)
    assert found.why == "attributed to the creation path; the counters alone would say unpatched"


def test_as_many_broadcasts_from_elsewhere_leave_it_open() -> None:
    """They may be late work of the creation path, or lack half of their stack."""
    found = judge(phase((9000, 0), probed=counts(others=5000, elsewhere=9000)), 10_000, 0.0)
    assert (found.patch, "5000 broadcasts from elsewhere" in found.why) == (Patch.UNKNOWN, True)
    few = judge(phase((4999, 0), probed=counts(others=4999, elsewhere=4999)), 10_000, 0.0)
    assert (few.patch, few.low, few.high) == (Patch.PATCHED, 0.0, 0.4999)


def test_lost_requests_prove_nothing_beyond_what_a_trial_tolerates() -> None:
    def lose(lost: int, created: int = 0) -> PatchVerdict:
        return judge(phase((1000, 1000), probed=counts(created, elsewhere=2000, requests=0, lost=lost)), 10_000, 0.0)

    assert (lose(20).patch, lose(20).high) == (Patch.PATCHED, 0.002)
    assert (lose(21).patch, lose(21).why) == (Patch.UNKNOWN, "the probe counted 2000 requests and lost 21")
    assert lose(21, created=5000).patch is Patch.UNPATCHED


def test_lost_requests_count_as_broadcasts() -> None:
    few_loops = phase((100, 100), probed=counts(elsewhere=2000, lost=20))
    assert judge(few_loops, 40, 0.0).patch is Patch.UNKNOWN
    assert judge(few_loops, 41, 0.0).patch is Patch.PATCHED


def test_attribution_needs_no_row_of_the_counters() -> None:
    empty = InterruptSample((0, 1), {})
    blind = Phase(Reading(0, empty, counts(requests=0)), Reading(S, empty, counts(requests=9)), 1, quiesced=True)
    assert judge(blind, 100, 0.0).patch is Patch.PATCHED
    assert judge(replace(blind, before=Reading(0, empty)), 100, 0.0).patch is Patch.UNKNOWN


@pytest.mark.parametrize("probed", [None, counts(), counts(9000, requests=9000)])
@pytest.mark.parametrize(("cal", "why"), [((5,), "no other CPU"), ((-50, 3), "counters were reset: CAL of CPU 0 fell")])
def test_one_cpu_or_a_changed_machine_is_unknown(cal: tuple[int, ...], why: str, probed: RequestCounts | None) -> None:
    """One CPU has no other to interrupt: a count of zero shows nothing."""
    found = judge(phase(cal, probed=probed), 10_000, 0.0)
    assert (found.patch, found.low, found.high) == (Patch.UNKNOWN, None, None)
    assert why in found.why
    assert "not known how many broadcasts per loop" in report(a_run(phase(cal, probed=probed)))


@pytest.mark.parametrize(("passed", "probed"), [(True, counts()), (False, None)])
async def test_a_probe_that_failed_its_control_has_no_figures(
    tmp_path: Path, passed: bool, probed: RequestCounts | None
) -> None:
    (tmp_path / "interrupts").write_text((FIXTURES / "interrupts-x86_64-6.18-2cpu.txt").read_text())
    control = Control(passed=passed, detail="0 of 23 multi-CPU calls")
    read = sampler(tmp_path, counts, control)
    assert (await read()).probed == probed


def test_the_report_says_how_the_control_ended() -> None:
    run = a_run(phase((0, 0), probed=counts()))
    passed = report(replace(run, control=Control(passed=True, detail="23 of 23 multi-CPU calls")))
    assert "\nControl: passed: counted 23 of 23 multi-CPU calls\nVerdict: patched (0.0000 broadcasts" in passed
    failed = report(replace(run, control=Control(passed=False, detail="0 of 23 multi-CPU calls")))
    assert "\nControl: failed, so no broadcast is attributed: 0 of 23 multi-CPU calls\nVerdict: " in failed


@given(
    st.integers(1, 20_000),
    st.lists(st.integers(0, 10**6), min_size=2, max_size=8),
    st.floats(0, 1000),
    st.integers(0, 10**6),
)
def test_more_interrupts_never_make_a_kernel_look_better(
    loops: int, cal: list[int], background_hz: float, more: int
) -> None:
    rank = [Patch.PATCHED, Patch.UNKNOWN, Patch.UNPATCHED]
    less = judge(phase(tuple(cal)), loops, background_hz)
    worse = judge(phase((cal[0] + more, *cal[1:])), loops, background_hz)
    assert rank.index(worse.patch) >= rank.index(less.patch)
    assert less.low is not None
    assert less.high is not None
    assert 0 <= less.low <= less.high


def a_run(creation: Phase, loops: int = 10_000) -> Reproduction:
    """A reproduction with this creation phase."""
    return Reproduction(
        loops=loops,
        background_hz=0.0,
        creation=creation,
        removal=phase((1400, 1424), tlb=(1, 1)),
        bytes_per_memcg=27 * 1024,
        limit="set",
        kmem="noop",
    )


def test_report_begins_with_the_published_line() -> None:
    lines = report(a_run(phase((47741, 40000), tlb=(0, 0)))).splitlines()
    assert lines[0] == "10000 loops: 100 => 47841 (+47741 ipis)"
    assert lines[1] == (
        "Creation, all 2 CPUs: 200 => 87941 (+87741 ipis, 0 of them TLB shootdowns); "
        "8.7741 per loop and other CPU above background"
    )
    assert lines[3] == "Removal, as above: 100 => 1500 (+1400 ipis)"
    assert "27 KiB" in lines[8]
    assert lines[-1].startswith("Verdict: unpatched (8.")


def test_report_of_a_run_whose_cpus_changed() -> None:
    changed = replace(phase((1, 1)), after=Reading(20 * S, sample((1, 2, 3))))
    text = report(a_run(changed))
    assert "Creation, all CPUs: not counted (the counters were reset: CPUs removed: [], CPUs added: [2])" in text
    assert "Verdict: unknown" in text


def test_report_on_an_architecture_without_the_row() -> None:
    empty = InterruptSample((0, 1), {})
    text = report(a_run(Phase(Reading(0, empty), Reading(S, empty), 1, quiesced=True)))
    assert text.startswith("10000 loops: no row of function call interrupts\n")
    assert "Verdict: unknown" in text


@pytest.mark.parametrize("name", ["interrupts-x86_64-6.18-2cpu.txt", "interrupts-arm64-sparse-4cpu.txt"])
def test_report_reads_real_tables(name: str) -> None:
    table = parse_interrupts((FIXTURES / name).read_text())
    first = min(table.cpus)
    count = (table.row("CAL") or {})[first]
    text = report(a_run(Phase(Reading(0, table), Reading(S, table), 1, quiesced=True), loops=77))
    assert text.startswith(f"77 loops: {count} => {count} (+0 ipis)\n")


def test_without_kernel_memory_accounting_nothing_is_proven() -> None:
    blind = replace(a_run(phase((0, 0), probed=counts())), kmem_accounted=False)
    assert verdict(blind) == PatchVerdict(Patch.UNKNOWN, "the kernel was booted with cgroup.memory=nokmem")


@pytest.mark.parametrize(
    ("fate", "text"),
    [
        ("set", "kernel memory set"),
        ("noop", "accepted and ignored"),
        ("refused:524", "refused with errno 524 (since 5.16)"),
        ("refused:16", "refused with errno 16"),
        ("absent", "absent"),
    ],
)
def test_the_report_says_what_became_of_the_kmem_limit(fate: str, text: str) -> None:
    assert text in limits_line("set", fate)


def test_meminfo() -> None:
    text = (
        "MemTotal: 24684092 kB\nMemFree: 9 kB\nMemAvailable:   1024 kB\nSlab: 8 kB\nPercpu: 2 kB\nHugePages_Total: 0\n"
    )
    assert parse_meminfo(text) == Memory(MIB, 2048, 8192)
    assert parse_meminfo("MemFree: 5 kB\n") == Memory(5120, 0, 0)


def test_memory_estimate_takes_the_larger_view() -> None:
    before = Memory(MIB, 1000, 1000, 0)
    assert estimate_bytes(before, Memory(MIB, 1000, 1000, 400), 20) == 20
    assert estimate_bytes(before, Memory(MIB, 1600, 1400, 400), 20) == 50
    assert estimate_bytes(before, Memory(MIB, 0, 0, None), 20) == 0


def test_a_tenth_of_the_memory_is_the_limit() -> None:
    assert not too_much_memory(100, 10, 10_000)
    assert too_much_memory(101, 10, 10_000)


@dataclass
class FakeNode:
    """A node with its own clock: `rate_hz(seconds since creation, None before)` interrupts a second, all on CPU 1."""

    rate_hz: Callable[[float | None], float]
    bytes_per_memcg: int = 1000
    now_s: float = 0.0
    calls: float = 0.0
    live: int = 0
    created_at_s: float | None = None
    stages: list[int] = field(default_factory=list)
    removed: int = 0

    async def sleep(self, duration_s: float) -> None:
        """Advance the clock, in steps of 0.1 s."""
        for _ in range(round(duration_s * 10)):
            since = None if self.created_at_s is None else self.now_s - self.created_at_s
            self.calls += self.rate_hz(since) / 10
            self.now_s += 0.1

    async def sample(self) -> Reading:
        """The counters now."""
        return Reading(round(self.now_s * S), sample((0, int(self.calls)), (0, 0)))

    async def create(self, loops: int, progress: Callable[[int], None]) -> Created:
        """As the native child does."""
        self.stages.append(loops)
        self.live += loops
        await self.sleep(0.1)
        self.created_at_s = self.now_s
        progress(loops)
        return Created(S // 10, "set", "set")

    async def remove(self, loops: int) -> int:
        """As the native child does."""
        self.removed += loops
        return S // 10

    async def memory(self) -> Memory:
        """Only the parent's counter shows the memcgs."""
        return Memory(1000 * MIB, 0, 0, self.live * self.bytes_per_memcg)


def late_work(since_s: float | None) -> float:
    """5 interrupts for each of 1000 loops, 8 to 31 s after creation, on a background of 10 a second."""
    return 10 + (5000 / 23 if since_s is not None and 8 <= since_s < 31 else 0)


async def run_on(node: FakeNode, **settings: int) -> Reproduction:
    """The whole test against a fake node."""
    return await reproduce(node, node.sample, Settings(loops=1000, **settings), sleep=node.sleep)


async def test_late_caches_are_waited_for() -> None:
    node = FakeNode(late_work)
    run = await run_on(node)
    assert run.creation.quiesced
    assert 36 <= run.creation.elapsed_s <= 38
    assert verdict(run).patch is Patch.UNPATCHED
    assert run.background_hz == pytest.approx(10, abs=1)
    assert node.stages == [20, 180, 800]
    assert node.removed == 1000
    assert run.bytes_per_memcg == 1000


async def test_still_node_is_watched_no_longer_than_needed() -> None:
    run = await run_on(FakeNode(lambda _: 3.0))
    assert 10 <= run.creation.elapsed_s <= 12
    assert 5 <= run.removal.elapsed_s <= 6
    assert verdict(run).patch is Patch.PATCHED


async def test_settling_gives_up_on_an_endless_storm() -> None:
    run = await run_on(FakeNode(lambda since: 1.0 if since is None else 5000.0))
    assert not run.creation.quiesced
    assert 40 <= run.creation.elapsed_s <= 42
    assert "not at rest at the end" in report(run)


@pytest.mark.parametrize("noise_hz", [0.0, 500.0])
async def test_attributed_broadcasts_show_rest_even_on_a_noisy_node(noise_hz: float) -> None:
    """The creation path broadcasts for 12 s. With a probe, other interrupts do not matter."""
    node = FakeNode(lambda _: noise_hz)

    async def attributing() -> Reading:
        return replace(await node.sample(), probed=counts(int(min(node.now_s, 12))))

    last, rested = await until_still(attributing, Settings(), at_least_s=0, still=5, attributed=True, sleep=node.sleep)
    assert rested
    assert 16 <= last.at_ns / S <= 18
    _, rested = await until_still(attributing, Settings(), at_least_s=0, still=5, sleep=node.sleep)
    assert rested == (noise_hz == 0)


def test_rest_is_relative_to_the_background() -> None:
    assert still_below(Settings(loops=10), 0.0, 1) == 5
    assert still_below(Settings(loops=10_000), 100.0, 3) == 1300


async def test_too_much_memory_is_refused_unless_forced() -> None:
    heavy = 200 * 1024
    node = FakeNode(lambda _: 0.0, bytes_per_memcg=heavy)
    with pytest.raises(KickwatchError, match=r"1000 memory cgroups of 200 KiB would take 195 MiB.*--force"):
        await run_on(node)
    assert node.stages == [20]
    assert (await run_on(FakeNode(lambda _: 0.0, bytes_per_memcg=heavy), force=True)).bytes_per_memcg == heavy


async def test_progress_covers_all_loops() -> None:
    node, seen = FakeNode(lambda _: 0.0), []
    settings = Settings(loops=30)
    await reproduce(node, node.sample, settings, sleep=node.sleep, progress=lambda *step: seen.append(step))
    assert [step for step in seen if step[0] == "create"] == [
        ("create", 20, 30),
        ("create", 30, 30),
        ("create", 30, 30),
    ]
    assert [step[0] for step in seen[3:]] == ["settle", "remove", "done"]


def test_answers_of_the_native_child() -> None:
    done = parse_answer("done 1234 limit=set kmem=refused:524\n")
    assert (done.word, done.value, dict(done.fields)) == ("done", 1234, {"limit": "set", "kmem": "refused:524"})
    error = parse_answer("error 16 rmdir kw-1-2: Device or resource busy")
    assert (error.word, error.value, error.text) == ("error", 16, "rmdir kw-1-2: Device or resource busy")
    assert parse_answer("ready").word == "ready"
