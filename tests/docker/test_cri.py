"""kickwatch through the CRI of a private containerd, beside another client whose pods and images stay as they were."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from command import ended, kickwatch, start
from kickwatch.native import binary
from kickwatch.workload.image import image_reference
from kickwatch.workload.names import read_instance
from leftovers import leftovers
from newer_containerd import VERSION as NEWER_VERSION
from node_daemon import CHURN_FIRST, NodeDaemon
from on_request import HEALTHY_200
from private_containerd import PAUSE_IMAGE, CriClient, PrivateContainerd, private_containerd
from slowness import SLOWNESS

pytestmark = [pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(200)]
FOREIGN_IMAGE = "registry.invalid/foreign:1"


@pytest.fixture(scope="module")
def engine() -> Iterator[PrivateContainerd]:
    """One containerd for all tests here."""
    with private_containerd() as engine:
        yield engine


@pytest.fixture
def other(engine: PrivateContainerd) -> Iterator[CriClient]:
    """Another client with a pod named and labelled like ours, but of another instance, and an image of its own.

    After the test its pod, container and images are the same in every field, and nothing else is there.
    """
    before = leftovers()
    engine.import_image(PAUSE_IMAGE, binary("pause"))
    engine.import_image(FOREIGN_IMAGE, binary("workload"))
    labels = {"kickwatch": "1", "kickwatch.instance": "another", "kickwatch.container": "kickwatch-00000000-0"}
    with engine.client() as client:
        pod, _ = client.run("kickwatch-00000000-0", FOREIGN_IMAGE, labels, ("--deadline-ms", "600000"))
        found = client.inventory()
        yield client
        left = client.inventory()
        client.remove(pod)
        for image in (FOREIGN_IMAGE, PAUSE_IMAGE):
            client.remove_image(image)
        assert left == found
    assert leftovers() == before


def on(engine: PrivateContainerd, *sets: str) -> list[str]:
    """Arguments that select this engine."""
    settings = ("engine.kind=cri", f"engine.socket={engine.socket}", f"trial.seed={CHURN_FIRST}", *sets)
    return [argument for setting in settings for argument in ("--set", setting)]


def ours(client: CriClient) -> list[str]:
    return [pod.id for pod in client.pods() if pod.labels.get("kickwatch.instance") == read_instance()]


def healthy(result: dict[str, Any]) -> bool:
    """No broadcast on the creation path, and elsewhere none but those with which the freezer's key is flipped.

    When a container has exited, containerd 1.6 and 1.7 call `runc kill --all`, for which runc freezes the container's
    cgroup. On cgroup v1 freezing and thawing flip a static key: three broadcasts each on x86.
    """
    assert result["per_container"]["creation_path_broadcasts"] < 0.5
    assert not {"creation_path", "broadcasts_elsewhere"} & {*result["reasons"]}
    often = [row for row in result["bill"] if row["broadcasts"] >= result["containers"]]
    assert all(row["origin"] == "freezer" and result["cgroup"] == "v1" for row in often), often
    return True


def test_a_trial_through_containerd_prints_its_bill(engine: PrivateContainerd, other: CriClient) -> None:
    settings = on(engine, "trial.window_s=0.5", "trial.settle_s=0")
    result = kickwatch("trial", "--containers", "12", "--json", *settings).json
    assert healthy(result)
    assert (result["containers"], result["failures"]) == (12, [])
    assert result["engine"].startswith("containerd ")
    assert result["kmem_accounting"] == "on"
    assert {"rcu_exp_handler", "flush_tlb_func"} <= {row["reason"] for row in result["bill"]}
    assert list(result["latency_ms"]) == ["sandbox", "create", "start", "wait", "remove"]
    assert all(0 < step["p50"] <= step["p99"] for step in result["latency_ms"].values())


@pytest.mark.long
@pytest.mark.userland
def test_a_trial_through_the_containerd_of_debian_13_prints_its_bill() -> None:
    with private_containerd(Path("/run/kickwatch-test-trixie"), newer=True) as newer:
        settings = on(newer, "trial.design=whole", "trial.window_s=0.5", "trial.settle_s=0")
        result = kickwatch("trial", "--containers", "6", "--json", *settings).json
        with newer.client() as client:
            assert (client.pods(), client.images()) == ([], [])
    assert healthy(result)
    assert (result["containers"], result["failures"]) == (6, [])
    assert result["engine"].startswith(f"containerd {NEWER_VERSION}")
    assert list(result["latency_ms"]) == ["sandbox", "create", "start", "wait", "remove"]


@HEALTHY_200
@pytest.mark.long
@pytest.mark.timeout(450)  # 135 s alone
def test_200_healthy_containers_are_quiet_where_the_pause_image_is_ours(engine: PrivateContainerd) -> None:
    before = leftovers()
    with engine.client() as client:
        assert client.images() == []
        settings = on(engine, "trial.window_s=0.5", "trial.settle_s=0", "workload.concurrency=4")
        result = kickwatch("trial", "--containers", "200", "--json", *settings, timeout_s=420).json
        assert healthy(result)
        assert (result["verdict"], result["containers"], result["failures"]) == ("quiet", 200, [])
        assert (client.pods(), client.images()) == ([], [])
    assert leftovers() == before


def test_a_task_that_the_cri_does_not_know_is_ended_with_its_pod(engine: PrivateContainerd, other: CriClient) -> None:
    """As a start leaves it that is cut off before containerd asks for the task's pid."""
    labels = {"kickwatch": "1", "kickwatch.instance": read_instance(), "kickwatch.container": "kickwatch-00000000-1"}
    pod, container = other.make("kickwatch-00000000-1", FOREIGN_IMAGE, labels, ("--deadline-ms", "600000"))
    engine.ctr("tasks", "start", "--detach", "--null-io", container)
    with pytest.raises(grpc.RpcError) as refusal:
        other.remove(pod)
    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    settings = on(engine, "trial.window_s=0.5", "trial.settle_s=0")
    outcome = kickwatch("trial", "--containers", "1", *settings)
    assert (outcome.status, ours(other)) == (4, []), outcome.err
    assert "clean_up_failed" not in outcome.err
    assert container not in engine.ctr("tasks", "list")


def wait_for_containerd(client: CriClient) -> None:
    """Until it has made what the dead asked for: on a busy node a sandbox may outlast the short trial that follows."""
    before: list[str] | None = None
    while (found := sorted(ours(client))) != before:
        before = found
        time.sleep(2 * SLOWNESS)


@pytest.mark.long
def test_leftovers_of_kill_9_are_removed_by_the_next_start(engine: PrivateContainerd, other: CriClient) -> None:
    for moment_s in (0.0, 0.15):  # with four at once, in creations and starts
        victim = start(
            "trial",
            "--containers",
            "200",
            *on(engine, "trial.design=whole", "trial.settle_s=0", "workload.concurrency=4"),
        )
        deadline = time.monotonic() + 60 * SLOWNESS
        while len(ours(other)) < 3 and time.monotonic() < deadline:  # the warm-up has one
            time.sleep(0.02)
        time.sleep(moment_s)
        os.kill(victim.pid, signal.SIGKILL)
        ended(victim)
        wait_for_containerd(other)
        assert ours(other), "the trial was killed too early to leave anything"
        outcome = kickwatch("trial", "--containers", "1", *on(engine, "trial.window_s=0.5", "trial.settle_s=0"))
        assert outcome.status == 4, outcome.err  # too few containers for a verdict
        assert ours(other) == [], outcome.err


@contextmanager
def kubelet(engine: PrivateContainerd) -> Iterator[list[str]]:
    """Every two seconds, as a kubelet does, stop pods that it did not start. Yields their ids."""
    over, stopped = threading.Event(), list[str]()

    def housekeeping() -> None:
        with engine.client() as client:
            while not over.wait(2.0):
                for pod in ours(client):
                    with suppress(grpc.RpcError):
                        client.stop(pod)
                        stopped.append(pod)

    thread = threading.Thread(target=housekeeping)
    thread.start()
    try:
        yield stopped
    finally:
        over.set()
        thread.join()


@pytest.mark.long
def test_pods_that_a_kubelet_ends_count_as_failed_and_change_no_verdict(
    engine: PrivateContainerd, other: CriClient
) -> None:
    with kubelet(engine) as stopped:
        settings = on(engine, "trial.design=whole", "trial.settle_s=0", "workload.hold_s=0.5")
        outcome = kickwatch("trial", "--containers", "16", "--json", *settings)
    assert stopped, "the kubelet came too late"
    result = outcome.json
    assert healthy(result)
    assert 1 <= len(result["failures"]) <= len(stopped)
    assert result["containers"] + len(result["failures"]) == 16
    assert ours(other) == []


@pytest.mark.long
def test_images_that_a_garbage_collection_takes_are_imported_again(engine: PrivateContainerd, tmp_path: Path) -> None:
    settings = {"engine.kind": "cri", "engine.socket": str(engine.socket), "trial.interval_s": 0.5}
    image = image_reference(binary("workload").read_bytes())
    with NodeDaemon(tmp_path, settings) as daemon, engine.client() as client:
        for taken in ((image,), (PAUSE_IMAGE,), (image, PAUSE_IMAGE)):
            daemon.wait("trial_finished")
            mark = daemon.mark()
            for name in taken:
                client.remove_image(name)
            trials = daemon.wait("trial_finished", mark, times=3)
            assert trials["failed"] == 0, trials
        assert daemon.events("engine_lost") == []
    with engine.client() as client:
        assert (client.pods(), client.images()) == ([], [])


@contextmanager
def cni(engine: PrivateContainerd) -> Iterator[None]:
    """A network of the plugins `ptp` and `host-local`, which containerd takes while its configuration is there."""
    addresses = {"type": "host-local", "subnet": "198.51.100.0/24", "dataDir": str(engine.root / "ipam")}
    network = {"cniVersion": "0.4.0", "name": "kickwatch-test", "plugins": [{"type": "ptp", "ipam": addresses}]}
    file = engine.cni / "10-test.conflist"
    file.write_text(json.dumps(network))
    try:
        yield
    finally:
        file.unlink()


def interfaces() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


@pytest.mark.long
def test_a_network_of_cni_where_plugins_are_configured(engine: PrivateContainerd, other: CriClient) -> None:
    settings = on(engine, "workload.network=cni", "trial.window_s=0.5", "trial.settle_s=0")
    refused = kickwatch("trial", "--containers", "3", *settings)
    assert refused.status == 1
    assert "no network ready for workload.network=cni" in refused.complaint
    before = interfaces()
    with cni(engine):
        time.sleep(1)
        result = kickwatch("trial", "--containers", "3", "--json", *settings).json
    assert (result["containers"], result["failures"]) == (3, [])
    assert interfaces() == before
