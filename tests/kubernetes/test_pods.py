"""The image under Docker as the manifests say: security context, capabilities, mounts, limits, probes are read there.

Docker's own part is a private dockerd with a runtime that stands for a newer engine (pod_in_docker.py): it knows
CAP_BPF, and covers /proc/interrupts.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from leftovers import leftovers
from manifests import one, overlay
from pod_in_docker import Pod, docker_options, parsed, probe, write_runtime
from private_containerd import private_containerd
from private_engine import PrivateEngine, private_engine
from slowness import SLOWNESS

pytestmark = [
    pytest.mark.long, pytest.mark.docker, pytest.mark.kernel, pytest.mark.userland, pytest.mark.timeout(600),
]  # fmt: skip
ROOT = Path("/run/kickwatch-test-pods")
NAME = "kickwatch-pod"
# What an engine may be asked for that is older than CAP_BPF (5.8).
KNOWN_TO_DOCKER = frozenset({"SYSLOG", "DAC_OVERRIDE"})
GET = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode())"
# Shorter trials: the budget of a day would not do for a test.
QUICKLY = {
    "KICKWATCH_BUDGET_PRESET": "stress",
    "KICKWATCH_GUARD_ENABLED": "false",
    "KICKWATCH_TRIAL_WINDOW_S": "0.5",
    "KICKWATCH_TRIAL_SETTLE_S": "0",
    "KICKWATCH_TRIAL_INTERVAL_S": "0",
    "KICKWATCH_WORKLOAD_CONCURRENCY": "4",
    "KICKWATCH_WORKLOAD_CONTAINERS_PER_TRIAL": "12",
    "KICKWATCH_SERVICE_SUMMARY_PERIOD_S": "2",
}
# What `doctor` misses without one capability of the manifest.
LOST: dict[str, set[str]] = {
    "BPF": {"IPIs by reason", "containers of others", "lock contention", "slab_mutex"},
    "PERFMON": {"IPIs by reason", "containers of others", "lock contention", "slab_mutex"},
    "SYSLOG": {"IPIs by reason", "kernel symbols", "lock contention", "slab_mutex"},
}


@pytest.fixture(scope="module")
def engine(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    """A dockerd with the image, as `docker load` reads it."""
    home, passive = tmp_path_factory.mktemp("runtimes"), pod("passive", tmp_path_factory.mktemp("unused"))
    options = []
    for without in ("", *LOST):
        runtime = runtime_of(without)
        write_runtime(home / runtime, tuple(name for name in passive.capabilities if name != without))
        options += ["--add-runtime", f"{runtime}={home / runtime}"]
    with private_engine(ROOT, tuple(options), size="512m") as engine:
        loaded = engine.docker("load", "--input", str(archive))
        assert passive.container["image"] in loaded
        yield engine


def runtime_of(without: str) -> str:
    """The name of the runtime that does not add a capability; `newer` adds all."""
    return f"without-{without.lower()}" if without else "newer"


def pod(name: str, scratch: Path, places: Mapping[str, Path] | None = None) -> Pod:
    """The pod template of an overlay; what it keeps on the node is in `scratch`, and other paths as `places` say."""
    objects = overlay(name)
    spec = one(objects, "DaemonSet", "kickwatch")["spec"]["template"]["spec"]
    (config,) = (each for each in objects if each["kind"] == "ConfigMap")
    kept = {"/var/lib/kickwatch": scratch / "state", "/run/kickwatch": scratch / "run"}
    return Pod(spec, config["data"], scratch, {**kept, **(places or {})})


@dataclass(frozen=True)
class Running:
    """A container that was started from a pod."""

    engine: PrivateEngine
    pod: Pod

    def records(self, event: str) -> list[dict[str, Any]]:
        """Its log records of an event, whose name has no `kickwatch.`."""
        asked = self.engine.docker("logs", NAME) or subprocess.run(
            ["docker", "-H", f"unix://{self.engine.socket}", "logs", NAME], capture_output=True, text=True, check=True
        ).stderr  # fmt: skip
        found = [json.loads(line) for line in asked.splitlines() if line.startswith("{")]
        return [record for record in found if record["event"] == f"kickwatch.{event}"]

    def status(self) -> dict[str, Any]:
        """`kickwatch status --json` in it."""
        command = ["docker", "-H", f"unix://{self.engine.socket}", "exec", NAME, "kickwatch", "status", "--json"]
        shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return parsed(shown) if shown.startswith("{") else {"condition": "", "reasons": []}

    def get(self, name: str) -> str:
        """What an HTTP probe of the manifest gets, in the pod's network namespace; empty if it fails."""
        path, port = probe(self.pod, name)
        pid = self.engine.docker("inspect", "--format", "{{.State.Pid}}", NAME).strip()
        url = f"http://127.0.0.1:{port}{path}"
        inside = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-I", "-c", GET, url]
        done = subprocess.run(inside, capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else ""

    def until(self, true: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
        """The first true result."""
        deadline = time.monotonic() + timeout_s * SLOWNESS
        while not (found := true()):
            ended = self.engine.docker("inspect", "--format", "{{.State.Running}}", NAME).strip() == "false"
            if ended or time.monotonic() > deadline:
                pytest.fail(f"waited for {what}: {self.status()} {self.logs()[-3000:]}")
            time.sleep(0.5)
        return found

    def logs(self) -> str:
        """Both of its streams."""
        command = ["docker", "-H", f"unix://{self.engine.socket}", "logs", NAME]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout


@contextmanager
def running(engine: PrivateEngine, pod: Pod, *options: str, **more: str) -> Iterator[Running]:
    """The pod's container, until it is stopped as the kubelet stops it. It has to exit with 0 and to leave nothing."""
    capabilities = pod.known_to(KNOWN_TO_DOCKER)
    extra = [word for key, value in more.items() for word in ("--env", f"{key}={value}")]
    started = ["run", "--detach", "--name", NAME, "--runtime", "newer", *options, *extra]
    before = leftovers()
    try:
        engine.docker(*started, *docker_options(pod, capabilities))
        yield Running(engine, pod)
        engine.docker("stop", "--time", str(pod.spec["terminationGracePeriodSeconds"]), NAME)
        status = engine.docker("inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", NAME).split()
        assert status == ["0", "false"], Running(engine, pod).logs()[-3000:]
    finally:
        engine.docker("rm", "--force", NAME)
    assert leftovers() == before


def test_the_passive_pod_counts_what_others_start(engine: PrivateEngine, tmp_path: Path) -> None:
    passive = pod("passive", tmp_path)
    with running(engine, passive, **QUICKLY) as found:
        found.until(lambda: found.get("startupProbe"), "the startup probe", 120)
        (started,) = found.records("started")
        assert (started["mode"], started["observers"]["containers"]) == ("passive", "tracepoint")
        assert started["losses"] == [], found.records("capability_lost")
        for _ in range(5):
            engine.docker("run", "--rm", "--network", "none", passive.container["image"], "--version")
        counted = 'kickwatch_passive_containers_total{engine="docker"} 5.0'
        found.until(lambda: counted in found.get("livenessProbe"), counted, 20)

        def billed() -> bool:
            """Some container of a summary sent a shootdown. A short one may send none: else another is started."""
            summaries = [one for one in found.records("summary") if one["containers_by_engine"]]
            if any(row["reason"] == "flush_tlb_func" for one in summaries for row in one["bill"] or ()):
                return True
            engine.docker("run", "--rm", "--network", "none", passive.container["image"], "--version")
            return False

        found.until(billed, "a bill with flush_tlb_func")
        status = found.status()
        assert (status["condition"], status["reasons"]) == ("unknown", ["insufficient_evidence"])


def test_containerd_reads_the_image_too(archive: Path) -> None:
    image = pod("passive", Path("/nowhere")).container["image"]
    with private_containerd() as containerd:
        ctr = ("ctr", "--address", containerd.socket, "--namespace", "apart", "images")
        subprocess.run([*ctr, "import", archive], check=True, capture_output=True)
        listed = subprocess.run([*ctr, "list", "--quiet"], check=True, capture_output=True, text=True).stdout
        assert listed.split() == [image]
        subprocess.run([*ctr, "remove", "--sync", image], check=True, capture_output=True)


def test_the_experimenting_pod_reaches_a_verdict_through_the_nodes_cri(engine: PrivateEngine, tmp_path: Path) -> None:
    """In a cgroup namespace of its own, as container runtimes make one on cgroup v2."""
    with private_containerd() as containerd, containerd.client() as client:
        cri = pod("cri", tmp_path, {"/run/kickwatch-containerd": containerd.root})
        with running(engine, cri, "--cgroupns", "private", **QUICKLY) as found:
            finished = found.until(lambda: found.records("trial_finished"), "a trial", 60)[0]
            assert (finished["containers"], finished["failures"]) == (12, []), finished
            found.until(lambda: found.status()["condition"] == "quiet", "the condition quiet", 90)
            (started,) = found.records("started")
            assert (started["mode"], started["losses"]) == ("experiment", [])
            assert finished["kmem_accounting"] == "on"
            assert found.status()["progress"]["engine"].startswith("containerd ")
        assert (client.pods(), client.images()) == ([], [])
    assert (tmp_path / "state/history.db").exists()


def doctor(engine: PrivateEngine, pod: Pod, without: str = "") -> subprocess.CompletedProcess[str]:
    """`kickwatch doctor` in the pod, where one capability of the manifest is left out."""
    kept = tuple(name for name in pod.known_to(KNOWN_TO_DOCKER) if name != without)
    options = docker_options(pod, kept)
    asked = [*options[: options.index(pod.container["image"]) + 1], "doctor", "--no-container", "--json"]
    command = ["docker", "-H", f"unix://{engine.socket}", "run", "--rm", "--runtime", runtime_of(without), *asked]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def missing(engine: PrivateEngine, pod: Pod, without: str = "") -> set[str]:
    """What it misses there."""
    report = parsed(doctor(engine, pod, without).stdout)
    return {capability["name"] for capability in report["capabilities"] if not capability["satisfied"]}


@pytest.fixture(scope="module")
def usual(engine: PrivateEngine, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What it misses in the whole pod: what only an experiment needs."""
    return missing(engine, pod("passive", tmp_path_factory.mktemp("usual")))


@pytest.mark.parametrize(("without", "lost"), [*LOST.items()])
def test_what_is_lost_without_a_capability(
    engine: PrivateEngine, tmp_path: Path, usual: set[str], without: str, lost: set[str]
) -> None:
    assert usual <= {"container engine", "memory cgroups", "cost per event"}
    assert missing(engine, pod("passive", tmp_path), without) - usual == lost


def test_a_pod_without_the_hosts_proc_ends_with_one_line_that_names_the_mount(
    engine: PrivateEngine, tmp_path: Path
) -> None:
    refused = doctor(engine, pod("passive", tmp_path).without_mount("/host/proc"))
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1), refused.stderr
    assert refused.stderr.startswith(
        "kickwatch: KICKWATCH_HOST_PROC: /host/proc is no proc file system: set it to a mount"
    )
