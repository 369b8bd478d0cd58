"""Windows with their disturbances and losses, and the losses of the observatory: no kernel needed."""

import asyncio
import struct
import threading
import time
from contextlib import ExitStack
from errno import EPERM
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from fake_bpf import FakeBpf
from fake_probe import FakeProbe
from kickwatch.errors import ObserveError
from kickwatch.model import WindowKind
from kickwatch.node.causes import CauseKind, cause_of
from kickwatch.node.diagnosis import Act, Refusal
from kickwatch.node.roots import HOST, HostRoots
from kickwatch.observe.containers import ContainerObserver, ContainersRung
from kickwatch.observe.contention import ContentionObserver, ContentionSample, WaitTotals
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.interrupts import InterruptSample, IpiKind
from kickwatch.observe.layouts import CELLS_CONFIG, CSD_CONFIG
from kickwatch.observe.losses import Loss, Lost
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.readings import Health
from kickwatch.observe.refused import RefusedError
from kickwatch.observe.request_cells import RequestSample, Totals
from kickwatch.observe.symbols import Symbols
from kickwatch.observe.windows import Sample, unseen

if TYPE_CHECKING:
    from kickwatch.observe import bpf

KALLSYMS = "1000 t smp_call_function_many_cond\n2000 t do_sync_core\n3000 t end\n"
NO_STACK = -17
KEY = struct.pack("=QiI8x", 0x2000, NO_STACK, 1)


class NoProbe:
    """A probe whose maps are not used."""

    unread = None

    def map(self, _name: str) -> "NoMap":
        return NoMap()

    def close(self) -> None:
        """Nothing to free."""


class NoMap:
    """An empty map: a hash without a key, an array of zeros."""

    name = "none"

    def put(self, key: bytes, value: bytes) -> None:
        """Ignored."""

    def keys(self) -> list[bytes]:
        return []

    def get(self, _key: bytes) -> bytes | None:
        return bytes(8)

    def entries(self, indices: range) -> list[bytes]:
        return [bytes(8) for _ in indices]

    def clear(self) -> None:
        """Nothing to clear."""


def make(
    host: HostRoots = HOST, *, slab_mutex: int = 0, kallsyms: str = KALLSYMS, fake: object | None = None
) -> Observatory:
    probe, symbols = cast("bpf.BpfObject", fake or NoProbe()), Symbols.parse(kallsyms)
    made = Observatory(host, 2, symbols)
    made.requests = CsdObserver(probe, symbols, 2)
    made.contention = ContentionObserver(probe, symbols, slab_mutex, 0)
    return made


@pytest.mark.parametrize(("met_at", "meetings"), [(1, 1), (3, 3), (9, 5)])
async def test_two_tasks_that_miss_each_other_at_the_mutex_try_again(
    monkeypatch: pytest.MonkeyPatch, met_at: int, meetings: int
) -> None:
    """On arm64 6.1 in QEMU, whose kallsyms has no data symbols, the mutex was learnt in three starts of six."""
    tried: list[Path] = []

    async def provoke(_: ContentionObserver, proc: Path) -> int:
        tried.append(proc)
        return 0x5000 if len(tried) == met_at else 0

    monkeypatch.setattr(ContentionObserver, "provoke", provoke)
    monkeypatch.setattr(Observatory, "_arm_probes", lambda _: None)
    monkeypatch.setattr(Observatory, "_share_slab_mutex", lambda _: None)
    await make()._arm()
    assert len(tried) == meetings


async def test_tasks_that_missed_each_other_read_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """On arm64 5.10 in QEMU two of four starts missed the mutex five times: CPUs take turns of 100 ms on one thread."""
    asked: list[str] = []

    async def meet(_: Path, command: str) -> None:
        asked.append(command)

    monkeypatch.setattr("kickwatch.observe.contention._meet", meet)
    monkeypatch.setattr(ContentionObserver, "learn", lambda _: 0)
    monkeypatch.setattr(Observatory, "_arm_probes", lambda _: None)
    monkeypatch.setattr(Observatory, "_share_slab_mutex", lambda _: None)
    await make()._arm()
    assert asked == ["read", "repeat", "repeat", "repeat", "repeat"]


async def test_a_cancelled_open_closes_no_probe_that_a_thread_still_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    begun, done = threading.Event(), list[str]()

    def arm(observatory: Observatory) -> None:
        observatory.contention = make(slab_mutex=0x5000).contention

    def learn(_: ContentionObserver) -> int:
        begun.set()
        time.sleep(0.2)
        done.append("learnt")
        return 0

    monkeypatch.setattr(Observatory, "_arm_probes", arm)
    monkeypatch.setattr(ContentionObserver, "learn", learn)
    monkeypatch.setattr(ContentionObserver, "close", lambda _: done.append("closed"))
    opening = asyncio.ensure_future(Observatory.open(HostRoots(proc=tmp_path)))
    await asyncio.to_thread(begun.wait)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert done == ["learnt", "closed"]


def test_using_a_closed_probe_is_an_error_and_no_crash() -> None:
    closed = FakeBpf().probe()
    closed._owned = ExitStack()
    closed.close()
    closed.close()
    with pytest.raises(ObserveError, match="is closed"):
        closed.map("cells")
    with pytest.raises(ObserveError, match="is closed"):
        closed.run_statistics("csd_queue_cpu")


def sample(
    totals: dict[bytes, Totals] | None = None,
    *,
    cpus: tuple[int, ...] = (0, 1),
    cal: int = 10,
    requests: tuple[int, ...] = (0, 0, 0, 0),
    misses: int = 0,
    contention: tuple[int, ...] = (0, 0, 0, 0),
) -> Sample:
    return Sample(
        at_ns=0,
        interrupts=InterruptSample(cpus, {IpiKind.CAL: (cal,) * len(cpus)}),
        requests=RequestSample(totals or {}, Health(*requests), misses),
        contention=ContentionSample({}, (), Health(*contention), 1000 + misses),
    )


def test_an_undisturbed_window_has_no_disturbances() -> None:
    window = make().window(WindowKind.QUIET, sample(cal=10), sample(cal=13))
    assert (window.disturbances, window.interrupts.cal) == ((), 6)


@pytest.mark.parametrize(
    ("after", "disturbance"),
    [
        (sample({KEY: Totals(5, 1, 1)}, cpus=(0,)), "cpus_changed"),
        (sample({KEY: Totals(5, 1, 1)}, cpus=(0, 2)), "cpus_changed"),
        (sample({KEY: Totals(5, 1, 1)}, cal=3), "counter_fell"),
        (sample({KEY: Totals(3, 1, 1)}), "recycled"),
        (sample({}), "recycled"),
    ],
)
def test_a_window_has_its_disturbance(after: Sample, disturbance: str) -> None:
    window = make().window(WindowKind.QUIET, sample({KEY: Totals(5, 1, 1)}), after)
    assert window.disturbances == (disturbance,)
    assert disturbance == "recycled" or window.interrupts.cal is None


def test_a_window_has_both_of_two_disturbances() -> None:
    window = make().window(WindowKind.QUIET, sample({KEY: Totals(5, 1, 1)}), sample(cpus=(0,)))
    assert window.disturbances == ("cpus_changed", "recycled")


def test_the_losses_of_both_probes_are_in_the_window() -> None:
    after = sample(requests=(1, 20, 300, 0), misses=4000, contention=(50000, 600000, 0, 7000000))
    window = make().window(WindowKind.QUIET, sample(), after)
    assert window.lost_events == 1 + 300 + 4000 + 50000 + 7000000
    assert window.stackless_events == 20 + 600000
    assert (window.lost_requests, window.lost_waits) == (1 + 300, 50000 + 7000000)


def test_misses_of_the_contention_probe_are_no_loss() -> None:
    assert unseen(ContentionSample({}), ContentionSample({}, recursion_misses=5)) == (0, 0)
    assert unseen(RequestSample({}), RequestSample({}, recursion_misses=5)) == (5, 0)


async def test_passive_mode_without_the_tracepoints_says_why_and_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a reload from trials: the capability was given up. The next attempt can succeed."""
    cause = cause_of(CauseKind.GIVEN_UP, capabilities="CAP_BPF")
    error = RefusedError("loading the probe containers", Refusal(Act.LOAD, EPERM, "containers"), cause)

    def refuse(_own: object) -> None:
        raise error

    monkeypatch.setattr(ContainerObserver, "arm", refuse)
    made = make()
    for _ in range(2):
        await made.arm_passive(("kickwatch",))
    assert (made.containers, made.members, made.containers_rung) == (None, None, ContainersRung.NONE)
    assert made.lost(Lost.CONTAINERS) == [Loss(Lost.CONTAINERS, cause.what, cause.remedy)]
    (sentence,) = [loss for loss in made.losses if "CAP_BPF" in loss]
    assert "containers that others start" in sentence
    assert sentence.endswith("fix: restart kickwatch, which arms everything at its start")


async def test_what_keeps_requests_from_being_attributed_keeps_the_containers_of_others_from_being_billed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counted, but not billed: the one cause is named once, with both things that it costs."""
    monkeypatch.setattr(ContainerObserver, "arm", lambda _own: object())
    made = make()
    made.requests, made.contention = None, None
    made._lost.append(Loss(Lost.REQUESTS, "no kprobes here", "boot another kernel"))
    await made.arm_passive(("kickwatch",))
    assert made.members is None
    assert made.losses == [
        "no kprobes here; lost: IPIs by reason, what the containers of others ask for; fix: boot another kernel"
    ]


def test_a_loss_ends_when_the_mutex_is_known() -> None:
    observatory = make()
    observatory._lost.append(Loss(Lost.REQUESTS, "something for good", ""))
    assert not observatory.slab_mutex_known
    assert [loss.lost for loss in observatory.present_losses] == [Lost.REQUESTS, Lost.SLAB_MUTEX]
    assert observatory.contention is not None
    observatory.contention.slab_mutex = 0x8000
    assert observatory.slab_mutex_known
    assert observatory.losses == ["something for good; lost: IPIs by reason"]
    assert observatory.observers.contention == "tracepoint"


def test_without_a_contention_probe_an_unknown_mutex_is_no_separate_loss() -> None:
    observatory = make()
    observatory.contention = None
    assert observatory.losses == []
    assert not observatory.slab_mutex_known


async def test_the_request_probe_gets_the_address_of_the_learnt_mutex() -> None:
    observatory = make(slab_mutex=0x8000)
    assert observatory.requests is not None
    assert observatory.requests.slab_mutex == 0
    await observatory.between_windows()
    assert observatory.requests.slab_mutex == 0x8000


def test_on_preempt_rt_the_holder_is_unknown_until_its_place_is_learnt() -> None:
    """The share under slab_mutex was 0.0 as if known: a mutex's first word is not its owner there."""
    probe, index = FakeProbe(), struct.pack("=I", 0)
    observatory = make(slab_mutex=0x8000, kallsyms=KALLSYMS.replace("do_sync_core", "rt_spin_lock"), fake=probe)
    found, config = probe.map("owner_found"), probe.map("config")
    found.put(index, struct.pack("=Q", 0))
    observatory._share_slab_mutex()
    assert observatory.slab_mutex_known
    assert not observatory.senders_known
    (loss,) = observatory.losses
    assert "PREEMPT_RT" in loss
    assert "no task has waited yet; lost: whether a sender holds slab_mutex, who holds slab_mutex; fix: " in loss
    assert owner_in(config.get(index)) == 0
    found.put(index, struct.pack("=Q", 24 + 1))
    observatory._share_slab_mutex()
    assert observatory.senders_known
    assert observatory.losses == []
    assert observatory.requests is not None
    assert owner_in(config.get(index)) == 0x8000 + 24


def owner_in(config: bytes | None) -> int:
    """The address of the owner that the request probe was given; the configuration is that of CsdObserver."""
    assert config is not None
    assert len(config) == CSD_CONFIG.size
    return int(struct.unpack_from("=Q", config, CELLS_CONFIG.offset_of("owner"))[0])


def test_on_preempt_rt_without_a_probe_of_waits_the_holder_stays_unknown() -> None:
    observatory = make(kallsyms=KALLSYMS.replace("do_sync_core", "rt_spin_lock"), fake=FakeProbe())
    observatory.contention = None
    assert observatory.requests is not None
    observatory.requests.slab_mutex = 0x8000
    observatory._lost.append(Loss(Lost.WAITS, "no tracepoint", "Linux 5.19 or later"))
    (loss,) = observatory.lost(Lost.UNDER_MUTEX, Lost.HOLDERS)
    assert loss.lost is Lost.UNDER_MUTEX
    assert loss.what.endswith("no probe of waits is armed")
    assert loss.remedy == "Linux 5.19 or later"
    assert not observatory.senders_known


async def test_names_are_forgotten_when_modules_change(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    observatory = make(HostRoots(proc=tmp_path))
    observatory.symbols = await Symbols.load(tmp_path)
    assert observatory.requests is not None
    assert observatory.contention is not None
    observatory.requests.symbols = observatory.contention.symbols = observatory.symbols
    observatory.requests.cells(RequestSample({}), RequestSample({KEY: Totals(1, 1, 1)}))
    observatory.contention._stacks[3] = ("fn",)
    await observatory.between_windows()
    assert observatory.requests.names.known
    assert observatory.contention._stacks
    (tmp_path / "modules").write_text("veth 4096 0 - Live 0xffffffffc0201000\n")
    await observatory.between_windows()
    assert not observatory.requests.names.known
    assert not observatory.contention._stacks


def test_waits_of_the_earlier_sample_are_subtracted() -> None:
    observatory = make(slab_mutex=0x8000)
    assert observatory.contention is not None
    key, other = (struct.pack("=Q8xiI16s", lock, NO_STACK, 0, b"cat") for lock in (0x8000, 0x9000))
    before = ContentionSample({key: WaitTotals(2, 100, 90)})
    after = ContentionSample({key: WaitTotals(5, 170, 90), other: WaitTotals(8, 8, 8)})
    (wait,) = observatory.contention.waits(before, after)
    assert (wait.waits, wait.wait_ns, wait.max_wait_ns, wait.holder, wait.stack) == (3, 70, 0, "cat", ())
