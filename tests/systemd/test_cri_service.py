"""The sandboxed service through a CRI whose cgroups are systemd's: it reaches a verdict, and leaves nothing."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from systemd_node import SOURCE, Node, NodeError
from test_systemd_service import configure

import private_containerd
from kickwatch.journal.journal import Event
from slowness import SLOWNESS

pytestmark = [pytest.mark.long, pytest.mark.systemd, pytest.mark.kernel, pytest.mark.timeout(600)]

HOME = Path("/run/cri")
SOCKET = HOME / "containerd.sock"
PIP = "/opt/kickwatch/bin/pip"
ROOT = Path("/var/lib/docker/cri")  # where the node can mount overlays


@pytest.fixture
def node(installed: Node) -> Iterator[Node]:
    """The node with the extra `cri`, as docs/operations.md installs it, and a containerd with the systemd driver.

    Both go afterwards: with the extra, `auto` would drive the node's containerd while a test stops Docker.
    """
    before = packages(installed)
    installed.run(PIP, "install", "--quiet", "--no-index", "--find-links", f"{SOURCE}/links", "grpclib", "protobuf")
    settings = private_containerd.settings(socket=SOCKET, root=ROOT, state=HOME / "state", systemd=True)
    installed.write(f"{HOME}/config.toml", settings)
    installed.run("systemd-run", "--quiet", "--unit=cri", "containerd", "--config", f"{HOME}/config.toml")
    answers = f"until ctr --address {SOCKET} version >/dev/null 2>&1; do sleep 0.2; done"
    installed.run("timeout", "60", "sh", "-c", answers)
    yield installed
    installed.run("systemctl", "stop", "kickwatch.service", "cri.service")
    installed.run("rm", "-r", str(HOME), str(ROOT))
    installed.run(PIP, "uninstall", "--quiet", "--yes", *sorted(packages(installed) - before))


def packages(node: Node) -> set[str]:
    """What is installed in kickwatch's virtual environment."""
    return {line.partition("==")[0] for line in node.out(PIP, "list", "--format=freeze").splitlines()}


def condition(node: Node) -> str:
    shown = node.run("/opt/kickwatch/bin/kickwatch", "status", "--json", check=False).stdout
    return str(json.loads(shown)["condition"]) if shown.startswith("{") else ""


def test_the_sandboxed_service_reaches_a_verdict_with_the_systemd_driver(node: Node) -> None:
    engine = {"engine.kind": "cri", "engine.socket": str(SOCKET), "engine.timeout_s": 30.0}
    configure(node, **engine, **{"workload.containers_per_trial": 12, "workload.concurrency": 4})
    since = node.now()
    node.run("systemctl", "start", "kickwatch", timeout_s=120)
    finished = node.awaited(f"MESSAGE_ID={Event.TRIAL_FINISHED.message_id}", since=since, timeout_s=60 * SLOWNESS)
    assert (finished["KICKWATCH_CONTAINERS"], finished["KICKWATCH_FAILURES"]) == ("12", "[]")
    assert finished["KICKWATCH_KMEM_ACCOUNTING"] == "on"
    deadline = time.monotonic() + 120 * SLOWNESS
    while (found := condition(node)) != "quiet":
        if time.monotonic() > deadline:
            raise NodeError(f"the condition is {found}: {node.out('journalctl', '--unit=kickwatch', '-o', 'cat')}")
        time.sleep(1)
    # A pod is a slice and scopes of systemd, below ours.
    doctor = node.run("/opt/kickwatch/bin/kickwatch", "doctor", "--no-container", "--json", check=False).stdout
    (capability,) = (one for one in json.loads(doctor)["capabilities"] if one["name"] == "container engine")
    assert "cgroup driver systemd" in capability["detail"]
    node.run("systemctl", "stop", "kickwatch")
    assert node.out("ctr", "--address", str(SOCKET), "--namespace", "k8s.io", "containers", "list", "--quiet") == ""
    assert node.out("ctr", "--address", str(SOCKET), "--namespace", "k8s.io", "images", "list", "--quiet") == ""
    assert node.out("sh", "-c", "find /sys/fs/cgroup -type d -name 'kickwatch*'") == ""
