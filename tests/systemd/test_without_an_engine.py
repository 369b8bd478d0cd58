"""The service on a node without an engine: with the drop-in oci.conf it drives runc, and each line of it is needed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from systemd_node import OCI_DROP_IN, OCI_SHIPPED, SYS_ADMIN_DROP_IN, SYS_ADMIN_SHIPPED, Node
from test_sandbox import confined
from test_systemd_service import configure, leftovers

from kickwatch.journal.journal import Event
from kickwatch.node.privileges import LinuxCapability
from slowness import SLOWNESS

pytestmark = [pytest.mark.long, pytest.mark.systemd, pytest.mark.kernel, pytest.mark.timeout(600)]

OCI = Path(__file__).parents[2] / "systemd/oci.conf"
ATTEMPT = "/usr/local/lib/kickwatch-test/oci_attempt.py"
ENGINE = ("docker.service", "docker.socket")
# These make paths read-only again except the service's own cgroup. A container can be made without them; the
# laboratory tests what they protect.
CLOSES = {"ReadOnlyPaths", "ReadWritePaths"}
WITH_LISTS = {"CapabilityBoundingSet", "RestrictAddressFamilies", "SystemCallFilter"}


@pytest.fixture
def without_an_engine(installed: Node) -> Iterator[Node]:
    """The node with kickwatch configured but not started, and without an engine."""
    configure(installed)
    installed.run("systemctl", "stop", "kickwatch.service", *ENGINE)
    yield installed
    installed.run("systemctl", "stop", "kickwatch.service")
    installed.run("rm", "--force", OCI_DROP_IN, SYS_ADMIN_DROP_IN)
    installed.run("systemctl", "daemon-reload")
    installed.run("systemctl", "start", *ENGINE)


def settings() -> list[str]:
    """The settings of the drop-in, one for each word of a list."""
    lines = [line for line in OCI.read_text().partition("[Service]\n")[2].splitlines() if not line.startswith("#")]
    pairs = [line.split("=", 1) for line in lines]
    return [f"{key}={one}" for key, value in pairs for one in (value.split() if key in WITH_LISTS else [value])]


def unit(name: str, opened: list[str]) -> str:
    """The service's unit, but with a program that makes one container."""
    program = ["Type=oneshot", f"ExecStart=/opt/kickwatch/bin/python -I {ATTEMPT} {name}"]
    return "\n".join(["[Service]", *program, *confined(), *opened, ""])


def test_each_line_of_the_drop_in_is_needed_and_all_suffice(without_an_engine: Node) -> None:
    node, needed = without_an_engine, [one for one in settings() if one.partition("=")[0] not in CLOSES]
    node.write(ATTEMPT, Path(__file__).with_name("oci_attempt.py").read_text())
    tried = {"all": needed} | {one: [line for line in needed if line != one] for one in needed}
    units = {one: f"kickwatch-try-{number}" for number, one in enumerate(tried)}
    for one, name in units.items():
        node.write(f"/run/systemd/system/{name}.service", unit(name, tried[one]))
    node.run("systemctl", "daemon-reload")
    since = node.now()
    node.run("systemctl", "start", *units.values(), check=False, timeout_s=180)
    works = {one for one, name in units.items() if node.show(name)["Result"] == "success"}
    assert works == {"all"}, node.out("journalctl", f"--since=@{since // 10**6}", "--unit=kickwatch-try-*", "-o", "cat")
    assert node.out("sh", "-c", "find /sys/fs/cgroup -type d -name 'kickwatch-try-*'") == ""


def test_with_the_drop_in_auto_drives_a_runtime(without_an_engine: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node, since = without_an_engine, without_an_engine.now()
    node.run("install", "-D", "-m", "644", OCI_SHIPPED, OCI_DROP_IN)
    node.run("systemctl", "daemon-reload")
    exposure = node.out("systemd-analyze", "security", "kickwatch").rpartition("kickwatch.service: ")[2].split()[0]
    with capsys.disabled():
        print(f"\nsystemd-analyze security kickwatch.service, with oci.conf: {exposure}")  # noqa: T201
    assert f"says {exposure} with it" in (OCI.parents[1] / "docs/systemd.md").read_text()
    node.run("systemctl", "start", "kickwatch", timeout_s=120)
    finished = node.awaited(f"MESSAGE_ID={Event.TRIAL_FINISHED.message_id}", since=since)
    assert (finished["KICKWATCH_CONTAINERS"], finished["KICKWATCH_FAILURES"]) == ("5", "[]")
    assert finished["KICKWATCH_KMEM_ACCOUNTING"] == "on"
    driven = node.journal(f"MESSAGE_ID={Event.RUNTIME_DRIVEN.message_id}", since=since)
    assert [one["PRIORITY"] for one in driven] == ["4"]  # a warning, because a runtime was not configured
    assert "engine: oci runc" in driven[0]["MESSAGE"]
    assert "no container engine answers" in driven[0]["MESSAGE"]
    node.run("systemctl", "stop", "kickwatch")
    node.run("systemctl", "start", *ENGINE)  # for leftovers(), which queries it
    left = leftovers(node)
    assert {kind: found for kind, found in left.items() if found} == {}
    assert node.out("sh", "-c", "find /run/kickwatch -path '*/bundles/*'") == ""


def test_without_the_drop_in_it_waits_and_mentions_it(without_an_engine: Node) -> None:
    node, since = without_an_engine, without_an_engine.now()
    node.run("systemctl", "start", "kickwatch", timeout_s=120)
    lost = node.awaited(f"MESSAGE_ID={Event.ENGINE_LOST.message_id}", since=since)
    assert "oci.conf" in lost["MESSAGE"]
    assert node.show("kickwatch")["ActiveState"] == "active"


def test_with_the_drop_in_for_probes_it_waits_as_well_and_takes_the_engine_that_comes(without_an_engine: Node) -> None:
    """`auto` drove runc, for which that drop-in opens nothing else, kept CAP_SYS_ADMIN and never tried Docker again."""
    node, since = without_an_engine, without_an_engine.now()
    assert node.out("sh", "-c", "command -v runc")
    node.run("install", "-D", "-m", "644", SYS_ADMIN_SHIPPED, SYS_ADMIN_DROP_IN)
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "start", "kickwatch", timeout_s=120)
    lost = node.awaited(f"MESSAGE_ID={Event.ENGINE_LOST.message_id}", since=since)
    assert "oci.conf" in lost["MESSAGE"]
    assert not effective(node) >> LinuxCapability.SYS_ADMIN & 1
    node.run("systemctl", "start", *ENGINE)
    finished = node.awaited(f"MESSAGE_ID={Event.TRIAL_FINISHED.message_id}", since=since, timeout_s=120 * SLOWNESS)
    assert (finished["KICKWATCH_CONTAINERS"], finished["KICKWATCH_FAILURES"]) == ("5", "[]")


def effective(node: Node) -> int:
    """The effective capabilities of the daemon, one bit for each."""
    status = node.out("cat", f"/proc/{node.show('kickwatch')['MainPID']}/status")
    return int(status.partition("CapEff:")[2].split()[0], 16)


def test_doctor_says_what_the_service_cannot_drive_until_the_drop_in_is_there(without_an_engine: Node) -> None:
    """Root can, so it promised the whole job to a service that waits for an engine."""
    node = without_an_engine
    screen, found = doctor(node)
    assert "nothing is missing" not in screen
    assert "oci.conf" in found["the service's engine"]["remedy"]
    assert found["the service's probes"]["satisfied"], found["the service's probes"]["detail"]
    node.run("install", "-D", "-m", "644", OCI_SHIPPED, OCI_DROP_IN)
    node.run("systemctl", "daemon-reload")
    assert "the service's engine" not in doctor(node)[1]


def doctor(node: Node) -> tuple[str, dict[str, dict[str, Any]]]:
    """The screen of `doctor`, and what it finds, by name."""
    command = ("/opt/kickwatch/bin/kickwatch", "doctor", "--no-container")
    screen, found = (node.run(*command, *more, check=False).stdout for more in ((), ("--json",)))
    return screen, {one["name"]: one for one in json.loads(found)["capabilities"]}
