"""Docker Engines and containerds of other Debian releases, each in a separate file system on this node and its kernel.

The engine uses the programs and libraries of its release and the node's /proc, /sys and /dev, so its containers are
containers of this node. It has its own mount and network namespaces, which end with it.
"""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archive import Suite, debootstrap
from shell import LabError

import private_containerd
from private_engine import clear

RUN = Path("/run/kickwatch-lab-engine")  # visible in both file systems; a short path, as sockets need
SOCKET = RUN / "docker.sock"
CRI_SOCKET = RUN / "containerd.sock"
_ANSWERS_WITHIN_S = 60.0
# Not chroot(8): dockerd makes its root a private mount to unpack an image, so the root must be a mount point.
_SCRIPT = f"""
tree=$1
mount --bind "$tree" "$tree"
for place in proc sys dev; do mount --rbind /$place "$tree/$place"; done
mount -t tmpfs tmpfs "$tree/run"
mount -t tmpfs -o size=512m tmpfs "$tree/var/lib/docker"
mkdir "$tree{RUN}" "$tree/run/node"
mount --bind {RUN} "$tree{RUN}"
cd "$tree"
pivot_root . run/node
umount -l /run/node
shift
exec "$@"
"""
_DOCKERD = (
    "dockerd", "--host", f"unix://{SOCKET}", "--pidfile", f"{RUN}/pid", "--exec-root", f"{RUN}/exec",
    "--config-file", f"{RUN}/config.toml",
)  # fmt: skip
# Its images in containerd's store, which Docker offers since 24 and uses for new installations since 29.
IMAGE_STORE = '{"features": {"containerd-snapshotter": true}}'
_NO_NETWORK = ("--bridge", "none", "--iptables=false", "--ip-masq=false")
_CONTAINERD = ("containerd", "--config", f"{RUN}/config.toml")


def tree(suite: Suite, cache: Path, *more: str) -> Path:
    """A Debian of `suite` with its docker.io and `more` packages; built unless it is cached."""
    root = cache / "engines" / "-".join((suite, *more))
    if not root.exists():
        new = root.with_name(f"{root.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.parent.mkdir(parents=True, exist_ok=True)
        debootstrap(suite, new, ("docker.io", *more))
        (new / "var/lib/docker").mkdir(exist_ok=True)
        new.rename(root)
    return root


@contextmanager
def running(root: Path, settings: str = "{}") -> Iterator[str]:
    """Start its dockerd and yield its version; it is removed completely at the end. Raises LabError.

    `settings`: its daemon.json.
    """
    query = ["docker", "--host", f"unix://{SOCKET}", "version", "--format", "{{.Server.Version}}"]
    with _started(root, *_DOCKERD, *_NO_NETWORK, settings=settings) as (process, log):
        yield _answer(query, process, log)


def image_store() -> str:
    """How the running engine stores images, in its own words."""
    query = ["docker", "--host", f"unix://{SOCKET}", "info", "--format", "{{.Driver}} {{.DriverStatus}}"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout


@contextmanager
def containerd_running(root: Path) -> Iterator[str]:
    """Start its containerd with a CRI and yield its version, as `running` does."""
    query = ["ctr", "--address", str(CRI_SOCKET), "version"]
    settings = private_containerd.settings(socket=CRI_SOCKET, root=Path("/var/lib/docker"), state=RUN / "state")
    with _started(root, *_CONTAINERD, settings=settings) as (process, log):
        yield _answer(query, process, log).rpartition("Version:")[2].split()[0]


@contextmanager
def _started(root: Path, *command: str, settings: str = "") -> "Iterator[tuple[subprocess.Popen[bytes], Path]]":
    clear(RUN)
    RUN.mkdir()
    (RUN / "config.toml").write_text(settings)
    log = RUN / "log"
    with log.open("wb") as output:
        inside = ["unshare", "--mount", "--net", "sh", "-ec", _SCRIPT, "sh", str(root), *command]
        process = subprocess.Popen(inside, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process, log
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        clear(RUN)


def _answer(query: list[str], process: "subprocess.Popen[bytes]", log: Path) -> str:
    until = time.monotonic() + _ANSWERS_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        done = subprocess.run(query, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
        time.sleep(0.2)
    raise LabError(f"the engine does not answer: {log.read_text('utf-8', errors='replace')[-3000:]}")
