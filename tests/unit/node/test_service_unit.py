"""The service's capabilities: those of the unit that systemd has, drop-ins included, or else of the shipped one."""

import subprocess
from pathlib import Path

import pytest

from kickwatch.node import service_unit
from kickwatch.node.privileges import FOR_CONTAINERS, SERVICE, LinuxCapability
from kickwatch.node.roots import HostRoots
from kickwatch.node.service_unit import (
    bounding_set,
    has_more_for_probes,
    service_capabilities,
    supplementary_groups,
)

SYSTEMD = Path(__file__).parents[3] / "systemd"


def names(capabilities: frozenset[LinuxCapability]) -> set[str]:
    return {f"CAP_{one.name}" for one in capabilities}


def granted(unit: str) -> set[str]:
    """What the lines CapabilityBoundingSet= of a shipped file list."""
    lines = (SYSTEMD / unit).read_text().splitlines()
    return {
        name for line in lines if line.startswith("CapabilityBoundingSet=") for name in line.partition("=")[2].split()
    }


def test_the_set_that_doctor_tries_is_the_shipped_units() -> None:
    assert names(SERVICE) == granted("kickwatch.service")
    assert granted("sys-admin.conf") == {"CAP_SYS_ADMIN"}
    assert names(FOR_CONTAINERS) == granted("oci.conf")


def test_a_drop_in_of_the_installed_unit_counts() -> None:
    shown = (
        "LoadState=loaded\nCapabilityBoundingSet=cap_kill cap_sys_admin cap_syslog cap_perfmon cap_bpf cap_wake_alarm\n"
    )
    assert bounding_set(shown) == SERVICE | {LinuxCapability.SYS_ADMIN}
    assert bounding_set("LoadState=loaded\nCapabilityBoundingSet=\n") == frozenset()
    assert bounding_set("LoadState=not-found\nCapabilityBoundingSet=cap_chown cap_bpf\n") == SERVICE
    assert bounding_set("") == SERVICE


def test_groups_of_a_drop_in_count_by_name_and_by_number() -> None:
    assert supplementary_groups("LoadState=loaded\nSupplementaryGroups=root 64321 kw-no-such-group\n") == {0, 64321}
    assert supplementary_groups("LoadState=loaded\nSupplementaryGroups=\n") == frozenset()
    assert supplementary_groups("") == frozenset()


def test_without_systemd_there_is_no_service_and_without_its_answer_the_shipped_set_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under OpenRC and in a container, doctor missed probes of a service that cannot exist there."""
    asked = []

    def silent(command: tuple[str, ...], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        raise subprocess.TimeoutExpired(command, 2)

    monkeypatch.setattr(service_unit.subprocess, "run", silent)
    assert service_capabilities(HostRoots.below(tmp_path)) is None
    assert asked == []
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert service_capabilities(HostRoots.below(tmp_path)) == SERVICE
    assert [command[0] for command in asked] == ["systemctl"]


@pytest.mark.parametrize(
    ("held", "more"),
    [
        ({LinuxCapability.SYS_ADMIN, *SERVICE}, True),
        (SERVICE, False),
        ({LinuxCapability.DAC_OVERRIDE, LinuxCapability.SYSLOG}, False),
        ((), False),
    ],
)
def test_a_process_that_has_no_more_than_the_service_does_not_try_again(
    held: set[LinuxCapability], more: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_unit, "effective", lambda: sum(1 << one for one in held))
    assert has_more_for_probes(SERVICE) == more
