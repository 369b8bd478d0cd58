"""What a service loses that root has, in words, from observatories that arm nothing (mocks)."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from kickwatch.errors import ObserveError
from kickwatch.experiment import service_probes
from kickwatch.experiment.service_probes import ServiceProbes, open_observatory
from kickwatch.model import ContentionRung, IpiRung
from kickwatch.node.causes import CauseKind, LossCause, cause_of
from kickwatch.node.privileges import SERVICE, LinuxCapability
from kickwatch.node.roots import HOST
from kickwatch.observe.losses import Loss, Lost
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.symbols import Symbols

OLD = cause_of(CauseKind.OLD_KERNEL, subject="tracepoint csd_queue_cpu", since="6.5", release="5.4.0")
BEFORE_5_8 = cause_of(CauseKind.CAPABILITY, capabilities="CAP_SYS_ADMIN", protect="")
UBUNTU = cause_of(CauseKind.PERF_PARANOID, perf_event_paranoid=4)


class Opened:
    """Stands in for both ways to open the observers, and counts them."""

    def __init__(self, service: Observatory | ObserveError, root: Observatory, monkeypatch: pytest.MonkeyPatch) -> None:
        self.service, self.root, self.order = service, root, list[str]()
        monkeypatch.setattr(service_probes, "_open_as_service", self.as_service)
        monkeypatch.setattr(service_probes, "_open", self.as_root)
        monkeypatch.setattr(service_probes, "service_capabilities", lambda: SERVICE)
        monkeypatch.setattr(service_probes, "has_more_for_probes", lambda _: True)

    async def as_service(self, *_: object) -> Observatory:
        self.order.append("service")
        if isinstance(self.service, ObserveError):
            raise self.service
        return self.service

    async def as_root(self, *_: object) -> Observatory:
        self.order.append("root")
        return self.root


def observatory(losses: Sequence[tuple[Lost, LossCause]] = (), *, armed: bool = False) -> Observatory:
    made = Observatory(HOST, 2, Symbols())
    made._lost += [Loss(lost, cause.what, cause.remedy) for lost, cause in losses]
    if armed:
        probe = SimpleNamespace(unread=None)
        armed_as = {"probe": probe, "close": lambda: None, "slab_mutex": 0, "losses": []}
        made.requests = cast("None", SimpleNamespace(RUNG=IpiRung.KPROBE, **armed_as))
        made.contention = cast("None", SimpleNamespace(RUNG=ContentionRung.KPROBE, **armed_as))
    return made


async def tried(
    service: Observatory | ObserveError, root: Observatory, monkeypatch: pytest.MonkeyPatch
) -> ServiceProbes:
    opened = Opened(service, root, monkeypatch)
    _, found = await open_observatory(())
    assert opened.order == ["service", "root"]
    assert found is not None
    return found


@pytest.mark.parametrize("cause", [BEFORE_5_8, UBUNTU])
async def test_a_service_that_may_not_arm_kprobes_names_the_cause_and_the_drop_in(
    cause: LossCause, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4.19 and Ubuntu: nothing was missing for root."""
    lost = [(Lost.REQUESTS, OLD), (Lost.REQUESTS, cause), (Lost.WAITS, cause)]
    root = observatory([(Lost.BETTER_REQUESTS, OLD)], armed=True)
    found = await tried(observatory(lost), root, monkeypatch)
    assert found.detail.startswith("with CAP_KILL CAP_SYSLOG CAP_PERFMON CAP_BPF alone (kickwatch.service): ")
    assert cause.what in found.detail
    assert OLD.what not in found.detail  # root has that, too
    assert found.detail.endswith("lost: IPIs by reason, waits for slab_mutex")
    assert "CapabilityBoundingSet=CAP_SYS_ADMIN" in found.remedy
    assert "the drop-in sys-admin.conf" in found.remedy


async def test_what_the_service_arms_is_used_and_not_armed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arming interrupts every CPU."""
    service = observatory([(Lost.BETTER_REQUESTS, OLD)], armed=True)
    opened = Opened(service, observatory(), monkeypatch)
    observers, found = await open_observatory(())
    assert (observers, opened.order) == (service, ["service"])
    assert found is not None
    assert (found.lost, found.remedy) == ((), "")
    assert found.detail.startswith("IPIs kprobe, contention kprobe, with CAP_KILL ")


async def test_what_root_loses_as_well_is_no_loss_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(Lost.WAITS, OLD)]
    found = await tried(observatory([*both, (Lost.REQUESTS, OLD)]), observatory([*both], armed=True), monkeypatch)
    assert [loss.lost for loss in found.lost] == [Lost.REQUESTS]
    assert OLD.what in found.detail  # the only cause that there is


async def test_what_only_root_has_learnt_is_no_loss_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a task waits for slab_mutex is chance: no capability makes one wait."""
    service, root = observatory([(Lost.REQUESTS, BEFORE_5_8)], armed=True), observatory(armed=True)
    service.requests = None
    assert root.contention is not None
    root.contention.slab_mutex, root.contention.owner_offset = 0x9000, 0
    assert service.lost(Lost.SLAB_MUTEX)
    assert not root.lost(Lost.SLAB_MUTEX)
    found = await tried(service, root, monkeypatch)
    assert [loss.lost for loss in found.lost] == [Lost.REQUESTS]


async def test_where_root_is_as_blind_the_service_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line "ok" for its probes beside "blind" would be read as a promise."""
    blind = [(Lost.REQUESTS, OLD), (Lost.WAITS, OLD)]
    opened = Opened(observatory(blind), observatory(blind), monkeypatch)
    assert await open_observatory(()) == (opened.root, None)


async def test_symbols_that_only_root_can_read_are_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ObserveError("/proc/kallsyms cannot be read", "allow it")
    found = await tried(error, observatory(armed=True), monkeypatch)
    assert "/proc/kallsyms cannot be read" in found.detail
    assert found.remedy.startswith("allow it")


async def test_a_process_with_no_more_capabilities_arms_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened(observatory(), observatory(), monkeypatch)
    monkeypatch.setattr(service_probes, "has_more_for_probes", lambda _: False)
    assert await open_observatory(()) == (opened.root, None)
    assert opened.order == ["root"]


async def test_without_a_service_root_arms_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under OpenRC it armed twice, and named a drop-in for systemd."""
    opened = Opened(observatory(), observatory(), monkeypatch)
    monkeypatch.setattr(service_probes, "service_capabilities", lambda: None)
    assert await open_observatory(()) == (opened.root, None)
    assert opened.order == ["root"]


def test_the_drop_in_is_no_remedy_for_a_capability_that_an_edited_unit_lacks() -> None:
    lost = (Loss(Lost.REQUESTS, "this process lacks CAP_BPF", "CapabilityBoundingSet=CAP_BPF"),)
    observers = service_probes._NOTHING
    edited = ServiceProbes(SERVICE - {LinuxCapability.BPF}, observers, lost)
    assert edited.remedy == "CapabilityBoundingSet=CAP_BPF"
    opened = ServiceProbes(SERVICE | {LinuxCapability.SYS_ADMIN}, observers, lost)
    assert "drop-in" not in opened.remedy


def test_the_limit_of_locked_memory_is_the_units_while_the_service_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    """On 5.10 a shell's limit would be taken for a loss of the service, whose unit has LimitMEMLOCK=infinity."""
    now = [(65536, 65536)]
    fake = SimpleNamespace(
        RLIMIT_MEMLOCK=8,
        RLIM_INFINITY=-1,
        getrlimit=lambda _: now[-1],
        setrlimit=lambda _, limits: now.append(limits),
    )
    monkeypatch.setattr(service_probes, "resource", fake)
    with service_probes._unlimited_memory_locks():
        assert now[-1] == (-1, -1)
    assert now[-1] == (65536, 65536)
