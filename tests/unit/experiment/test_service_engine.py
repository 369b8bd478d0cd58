"""An engine that root can drive and the service cannot is a loss of the service; engine and proc are mocks."""

import io
from collections.abc import Collection
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from kickwatch.configuration.loading import load
from kickwatch.detect.monitor import Monitor
from kickwatch.experiment import capabilities, service_engine
from kickwatch.experiment.capabilities import SERVICE_ENGINE, Capability, examine
from kickwatch.experiment.service_engine import missing_to_service
from kickwatch.experiment.service_probes import ServiceProbes
from kickwatch.model import ContentionRung, IpiRung, Observers
from kickwatch.node.privileges import FOR_CONTAINERS, SERVICE, LinuxCapability
from kickwatch.node.proc_mount import ProcMount
from kickwatch.node.roots import HOST
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.symbols import Symbols
from kickwatch.terminal.doctor_screen import doctor_screen
from kickwatch.workload.engine import EngineInfo
from kickwatch.workload.engine_choice import ChosenEngine
from watching import PACE

HIDING = ProcMount("2", "26")


def engine(name: str, *, rootless: bool = False) -> EngineInfo:
    names = {"name": name, "version": "1.2.3", "runtime": "runc 1.1.5"}
    return EngineInfo(**names, cgroup_driver="cgroupfs", root="/", rootless=rootless)


def service(
    monkeypatch: pytest.MonkeyPatch,
    has: Collection[LinuxCapability] | None,
    groups: Collection[int] = (0,),
    mount: ProcMount = HIDING,
) -> None:
    """A node whose service has these capabilities and groups; None: one without systemd."""
    monkeypatch.setattr(service_engine, "service_capabilities", lambda: has if has is None else frozenset(has))
    monkeypatch.setattr(service_engine, "service_groups", lambda: frozenset(groups))
    monkeypatch.setattr(service_engine, "read_proc_mount", lambda _: mount)


async def examined(monkeypatch: pytest.MonkeyPatch, *sets: str) -> list[Capability]:
    """What `doctor` finds where root drives a runtime, and the service can arm all probes."""

    async def choose(_: object) -> ChosenEngine:
        return ChosenEngine(SimpleNamespace(close=close), engine("oci"), "Docker does not answer")  # type: ignore[arg-type]

    async def close() -> None:
        """Nothing to close."""

    async def opened(*_: object) -> tuple[Observatory, ServiceProbes]:
        probes = ServiceProbes(SERVICE, Observers(ipis=IpiRung.CSD, contention=ContentionRung.TRACEPOINT))
        return Observatory(HOST, 2, Symbols()), probes

    monkeypatch.setattr(capabilities, "choose_engine", choose)
    monkeypatch.setattr(capabilities, "open_observatory", opened)
    return await examine(load(None, list(sets)).config)


async def test_a_runtime_that_only_root_can_drive_is_not_promised_to_the_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its service waited for an engine for ever."""
    service(monkeypatch, SERVICE)
    found = [one if one.name == SERVICE_ENGINE else replace(one, satisfied=True) for one in await examined(monkeypatch)]
    monkeypatch.setenv("COLUMNS", "200")
    screen = doctor_screen(found, Monitor(PACE).shares, io.StringIO())
    assert "nothing is missing" not in screen
    assert screen.startswith("verdicts are possible here as root; missing: the service's engine\n")
    (missing,) = (one for one in found if not one.satisfied)
    assert "kickwatch.service cannot drive oci 1.2.3: without CAP_" in missing.detail
    assert "the drop-in oci.conf" in missing.remedy
    assert missing.cost


async def test_passive_mode_needs_no_engine_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    async def arm_passive(*_: object) -> None:
        """No probe."""

    service(monkeypatch, SERVICE)
    monkeypatch.setattr(Observatory, "arm_passive", arm_passive)
    found = await examined(monkeypatch, "workload.enabled=false")
    assert SERVICE_ENGINE not in {one.name for one in found}


@pytest.mark.parametrize(
    ("has", "chosen", "lacks"),
    [
        (SERVICE, "oci", True),
        ({*SERVICE, LinuxCapability.SYS_ADMIN}, "oci", True),
        ({*SERVICE, *FOR_CONTAINERS}, "oci", False),
        (SERVICE, "docker", False),
        (SERVICE, "podman", False),
        (None, "oci", False),
        (None, "containerd", False),
    ],
)
def test_what_making_containers_takes_counts_where_a_runtime_is_driven(
    has: Collection[LinuxCapability] | None, chosen: str, monkeypatch: pytest.MonkeyPatch, *, lacks: bool
) -> None:
    service(monkeypatch, has)
    assert (missing_to_service(load(None, []).config, engine(chosen)) is not None) == lacks


@pytest.mark.parametrize(
    ("mount", "has", "groups", "kind", "lacks"),
    [
        (HIDING, SERVICE, (0,), "auto", True),
        (HIDING, SERVICE, (0, 26), "auto", False),
        (HIDING, SERVICE, (0,), "cri", False),
        (HIDING, {*SERVICE, LinuxCapability.SYS_PTRACE}, (0,), "auto", False),
        (ProcMount("2"), SERVICE, (0,), "auto", False),  # its group is root's
        (ProcMount("4", "26"), SERVICE, (0, 26), "auto", True),
        (ProcMount(), SERVICE, (0,), "auto", False),
    ],
)
def test_a_cri_that_the_service_does_not_choose_beside_hidden_processes_is_a_loss(
    mount: ProcMount,
    has: Collection[LinuxCapability],
    groups: Collection[int],
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    lacks: bool,
) -> None:
    """Root, which sees that there is no kubelet, chose the CRI and promised it to the service."""
    service(monkeypatch, has, groups, mount)
    missing = missing_to_service(load(None, [f"engine.kind={kind}"]).config, engine("containerd"))
    assert (missing is not None) == lacks
    if missing is not None:
        assert "cannot tell whether a kubelet runs: /proc is mounted with hidepid=" in missing.what
        assert ("SupplementaryGroups=26" in missing.remedy) == mount.group_helps
        assert "engine.kind=cri" in missing.remedy


@pytest.mark.parametrize("name", ["docker", "podman"])
@pytest.mark.parametrize(
    ("mount", "has", "groups", "rootless", "lacks"),
    [
        (HIDING, SERVICE, (0,), True, True),
        (HIDING, SERVICE, (0,), False, False),  # userns-remap included: root owns that user namespace
        (HIDING, SERVICE, (0, 26), True, False),
        (HIDING, {*SERVICE, LinuxCapability.SYS_PTRACE}, (0,), True, False),
        (ProcMount("4", "26"), SERVICE, (0, 26), True, True),
        (ProcMount(), SERVICE, (0,), True, False),
        (HIDING, None, (0,), True, False),
    ],
)
def test_containers_of_a_rootless_engine_that_hidepid_hides_from_the_service_are_a_loss(
    mount: ProcMount,
    has: Collection[LinuxCapability] | None,
    groups: Collection[int],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    rootless: bool,
    lacks: bool,
) -> None:
    """Root, which sees them, promised the engine to the service, where each container failed after 3 s."""
    service(monkeypatch, has, groups, mount)
    missing = missing_to_service(load(None, []).config, engine(name, rootless=rootless))
    assert (missing is not None) == lacks
    if missing is not None:
        assert f"cannot see the containers of rootless {name} 1.2.3: /proc is mounted with hidepid=" in missing.what
        assert ("SupplementaryGroups=26" in missing.remedy) == mount.group_helps
