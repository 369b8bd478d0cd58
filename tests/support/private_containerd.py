"""A separate containerd for tests, with its CRI and its own root, state and socket; and a CRI client beside kickwatch.

The client is grpcio's: it shares no code with kickwatch but the messages.
"""

import hashlib
import io
import json
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from kickwatch.workload import cri_pb2 as cri
from newer_containerd import newer_containerd
from private_engine import clear

ROOT = Path("/run/kickwatch-test-containerd")  # short, because a socket's path may have at most 108 bytes
# A machine without CAP_SYS_RESOURCE may not lower the OOM score, as a CRI does for its pause containers.
# Version 2 of the file is read by 1.6 to 2.x.
_SETTINGS = """version = 2
root = "{root}"
state = "{state}"
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "registry.invalid/pause:test"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.other]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{state}/cni"
"""
PAUSE_IMAGE = "registry.invalid/pause:test"


class CriClient:
    """Another client of the same CRI."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=[("grpc.default_authority", "localhost")])

    def call(self, method: str, request: Any, answer: Any, service: str = "RuntimeService") -> Any:
        """One call; raises grpc.RpcError."""
        send = self._channel.unary_unary(
            f"/runtime.v1.{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        return send(request, timeout=30)

    def run(self, name: str, image: str, labels: dict[str, str], command: tuple[str, ...]) -> tuple[str, str]:
        """Start a pod with one container; returns both ids."""
        pod, container = self.make(name, image, labels, command)
        self.call("StartContainer", cri.ContainerRequest(container_id=container), cri.Nothing)
        return pod, container

    def make(self, name: str, image: str, labels: dict[str, str], command: tuple[str, ...]) -> tuple[str, str]:
        """Start a pod, and make one container in it; returns both ids."""
        metadata = cri.PodSandboxMetadata(name=name, uid=f"uid-{name}", namespace="others")
        options = cri.NamespaceOption(network=cri.NODE, pid=cri.CONTAINER)
        security = cri.LinuxSandboxSecurityContext(namespace_options=options)
        linux = cri.LinuxPodSandboxConfig(cgroup_parent="/foreign-cri", security_context=security)
        config = cri.PodSandboxConfig(metadata=metadata, labels=labels, linux=linux)
        pod = self.call("RunPodSandbox", cri.RunPodSandboxRequest(config=config), cri.RunPodSandboxResponse)
        container = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name), image=cri.ImageSpec(image=image), args=command, labels=labels,
            linux=cri.LinuxContainerConfig(
                security_context=cri.LinuxContainerSecurityContext(namespace_options=options)
            ),
        )  # fmt: skip
        request = cri.CreateContainerRequest(pod_sandbox_id=pod.pod_sandbox_id, config=container, sandbox_config=config)
        made = self.call("CreateContainer", request, cri.CreateContainerResponse)
        return pod.pod_sandbox_id, made.container_id

    def pods(self) -> list[Any]:
        """All pods."""
        return list(self.call("ListPodSandbox", cri.ListPodSandboxRequest(), cri.ListPodSandboxResponse).items)

    def containers(self) -> list[Any]:
        """All containers."""
        return list(self.call("ListContainers", cri.ListContainersRequest(), cri.ListContainersResponse).containers)

    def images(self) -> list[Any]:
        """All images. ListImages has the shape of ListContainers: one repeated message."""
        answer = self.call("ListImages", cri.ListContainersRequest(), cri.ListContainersResponse, "ImageService")
        return list(answer.containers)

    def remove_image(self, name: str) -> None:
        """Remove an image, as a kubelet's garbage collection does."""
        self.call("RemoveImage", cri.ImageRequest(image=cri.ImageSpec(image=name)), cri.Nothing, "ImageService")

    def stop(self, pod: str) -> None:
        """Stop a pod, as a kubelet does with one that it does not know."""
        self.call("StopPodSandbox", cri.PodSandboxRequest(pod_sandbox_id=pod), cri.Nothing)

    def remove(self, pod: str) -> None:
        """Stop and remove a pod."""
        self.stop(pod)
        self.call("RemovePodSandbox", cri.PodSandboxRequest(pod_sandbox_id=pod), cri.Nothing)

    def inventory(self) -> list[bytes]:
        """Pods, containers and images with all fields, also those that kickwatch does not know.

        Maps are sent in any order, so each item is shown as its sorted bytes.
        """
        items = [*self.pods(), *self.containers(), *self.images()]
        return sorted(bytes(sorted(item.SerializeToString())) for item in items)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


@dataclass
class PrivateContainerd:
    """It runs until the test ends."""

    root: Path
    process: "subprocess.Popen[bytes]"

    @property
    def socket(self) -> Path:
        """The path of its socket, for the CRI and for containerd's own interface."""
        return self.root / "containerd.sock"

    @property
    def cni(self) -> Path:
        """Where it looks for networks."""
        return self.root / "state" / "cni"

    def import_image(self, name: str, program: Path) -> None:
        """With containerd's own client: an archive as `docker save` writes it."""
        layer, archive = io.BytesIO(), io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            tar.add(program, arcname=program.name)
        digest = hashlib.sha256(layer.getvalue()).hexdigest()
        config = {
            "architecture": "amd64", "os": "linux", "config": {"Entrypoint": [f"/{program.name}"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }  # fmt: skip
        manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path, data in (
                ("manifest.json", json.dumps(manifest).encode()),
                ("config.json", json.dumps(config).encode()),
                ("layer.tar", layer.getvalue()),
            ):
                entry = tarfile.TarInfo(path)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        command = ["ctr", "--address", self.socket, "--namespace", "k8s.io", "images", "import", "--no-unpack", "-"]
        subprocess.run(command, input=archive.getvalue(), check=True, capture_output=True)
        with self.client() as client:
            for _ in range(100):
                if any(name in bytes(image.SerializeToString()).decode("latin1") for image in client.images()):
                    return
                time.sleep(0.05)
        pytest.fail(f"the CRI does not see {name}")

    def ctr(self, *arguments: str) -> str:
        """What containerd's own client prints of the CRI's containers."""
        command = ["ctr", "--address", str(self.socket), "--namespace", "k8s.io", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    @contextmanager
    def client(self) -> Iterator[CriClient]:
        """Another client."""
        client = CriClient(self.socket)
        try:
            yield client
        finally:
            client.close()


def settings(*, socket: Path, root: Path, state: Path, systemd: bool = False) -> str:
    """A configuration of containerd. `systemd`: it asks systemd for cgroups."""
    options = '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]\n  SystemdCgroup = true\n'
    return _SETTINGS.format(socket=socket, root=root, state=state) + (options if systemd else "")


@contextmanager
def private_containerd(root: Path = ROOT, *, newer: bool = False) -> Iterator[PrivateContainerd]:
    """Removed completely at the end, with all its pods. `newer`: that of a later Debian than this machine's."""
    clear(root)
    root.mkdir()
    program = newer_containerd(root) if newer else ("containerd",)
    (root / "config.toml").write_text(
        settings(socket=root / "containerd.sock", root=root / "root", state=root / "state")
    )
    with (root / "log").open("wb") as log:
        process = subprocess.Popen([*program, "--config", root / "config.toml"], stdout=log, stderr=log)
    engine = PrivateContainerd(root, process)
    try:
        _wait(engine)
        yield engine
    finally:
        with engine.client() as client, suppress(grpc.RpcError):
            for pod in client.pods():
                client.remove(pod.id)
        process.terminate()
        process.wait(30)
        clear(root)
        for parent in Path("/sys/fs/cgroup").glob("*/foreign-cri"):
            parent.rmdir()


def _wait(engine: PrivateContainerd) -> None:
    for _ in range(150):
        with engine.client() as client, suppress(grpc.RpcError):
            client.call("Version", cri.VersionRequest(), cri.VersionResponse)
            return
        time.sleep(0.1)
    pytest.fail(f"containerd did not answer: {(engine.root / 'log').read_text()[-2000:]}")
