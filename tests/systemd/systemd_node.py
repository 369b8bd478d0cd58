"""A Debian node to try kickwatch on as a service: its own systemd as pid 1, its own engine, the kernel of this machine.

runc starts it, and not an engine: Docker 20.10 knows no CAP_BPF, and so cannot hand it on. It has every capability that
this machine has, its own view of the cgroups (what its engine and kickwatch make there is below its own), and no
network but loopback. Inside, all is as on any node: docker.service, the journal, `systemctl`.

The file system is Debian's, made by mmdebstrap, kept in the user's cache and found again by the digest of its recipe.
Each node writes to a layer of its own above it.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slowness import SLOWNESS

NAME = "kw-systemd-node"
STATE = Path("/run") / NAME
SOURCE = "/opt/source"  # where a release's tree lies in the node
# The drop-in for nodes without an engine: as the wheel brings it, and where whoever wants it puts it.
OCI_SHIPPED = "/opt/kickwatch/share/doc/kickwatch/oci.conf"
OCI_DROP_IN = "/etc/systemd/system/kickwatch.service.d/oci.conf"
SUITE = "bookworm"
PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3-venv", "libbpf1", "docker.io", "iptables", "ca-certificates")
# What a small image leaves out, by the packages' paths; and what changes with every build.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
# Kernel settings are the machine's, not the node's; the rest is noise beside an experiment.
MASKED = (
    "systemd-sysctl.service",
    "systemd-binfmt.service",
    "systemd-modules-load.service",
    "systemd-remount-fs.service",
    "sys-kernel-debug.mount",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
)
# By number (linux/capability.h).
CAPABILITIES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BUILD_S, _BOOT_S, _COMMAND_S = (seconds * SLOWNESS for seconds in (600, 60, 60))


class NodeError(Exception):
    """The node could not be built, booted or spoken to."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold `path` for one test run at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def base() -> Path:
    """The directory of the node's file system; built, in about a minute, where this recipe has not been used yet."""
    recipe = json.dumps([SUITE, PACKAGES, LEFT_OUT, os.uname().machine])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kickwatch-tests"
    wanted = cache / f"systemd-base-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with locked(cache / "lock"):
        if not wanted.exists():
            for old in cache.glob("systemd-base-*"):
                shutil.rmtree(old)
            made = wanted.with_suffix(".new")
            _debootstrap(made)
            made.rename(wanted)
    return wanted


def _debootstrap(target: Path) -> None:
    excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    command = [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        *excluded,
    ]
    _must([*command, SUITE, str(target)], timeout_s=_BUILD_S)


@dataclass(frozen=True)
class Node:
    """A booted node: the container `name`, of which `state` holds the bundle and what runc knows of it."""

    name: str
    state: Path

    @property
    def root(self) -> Path:
        """Its file system."""
        return self.state / "rootfs"

    def run(
        self, *command: str, check: bool = True, timeout_s: float = _COMMAND_S, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in it, as root. `check`: raise NodeError on any exit status but 0."""
        variables = {"PATH": _PATH, "LANG": "C.UTF-8", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0", **environment}
        given = [word for key, value in variables.items() for word in ("--env", f"{key}={value}")]
        return self.runc("exec", *given, self.name, *command, check=check, timeout_s=timeout_s)

    def runc(
        self, *arguments: str, given: str | None = None, check: bool = True, timeout_s: float = _COMMAND_S
    ) -> "subprocess.CompletedProcess[str]":
        """Ask runc about this node."""
        command = ["runc", "--root", str(self.state / "runc"), *arguments]
        return _must(command, given=given, check=check, timeout_s=timeout_s)

    def out(self, *command: str, timeout_s: float = _COMMAND_S) -> str:
        """What a command that must succeed prints."""
        return self.run(*command, timeout_s=timeout_s).stdout.strip()

    def path(self, inside: str) -> Path:
        """A path of the node's file system as the host reaches it. Not in /run, /tmp, /proc, /sys: other mounts."""
        return self.root / inside.lstrip("/")

    def write(self, inside: str, text: str) -> None:
        """Write a file, wherever in the node it is."""
        script = 'mkdir -p "${1%/*}" && cat >"$1"'
        self.runc("exec", self.name, "/bin/sh", "-c", script, "sh", inside, given=text)

    def journal(self, *matches: str, since: int = 0) -> list[dict[str, Any]]:
        """Journal entries that match `FIELD=value`, oldest first, each as its fields. `since`: newer than this `now`.

        Not by --after-cursor: with matches, systemd 252 leaves out the first entry behind a cursor that matches none.
        """
        text = self.out("journalctl", "--output=json", "--all", "--no-pager", "--quiet", *matches)
        found: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
        return [entry for entry in found if int(entry["__REALTIME_TIMESTAMP"]) > since]

    def now(self) -> int:
        """The journal's newest moment, in microseconds: what comes later is `since` it."""
        newest = self.out("journalctl", "--output=json", "--lines=1", "--no-pager", "--quiet")
        return int(json.loads(newest)["__REALTIME_TIMESTAMP"])

    def awaited(self, *matches: str, since: int = 0, timeout_s: float = _COMMAND_S) -> dict[str, Any]:
        """The first such entry, now or when it comes. NodeError after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if found := self.journal(*matches, since=since):
                return found[0]
            time.sleep(0.3)
        newest = self.out("journalctl", "--output=cat", "--lines=20", "--no-pager", "--unit=kickwatch")
        raise NodeError(f"no {' '.join(matches)} within {timeout_s:.0f} s; the newest entries: {newest}")

    def show(self, unit: str) -> dict[str, str]:
        """`systemctl show` as a mapping."""
        pairs = (line.partition("=") for line in self.out("systemctl", "show", unit).splitlines())
        return {key: value for key, _, value in pairs}

    def install(self, *arguments: str) -> str:
        """Run the installer of the tree in SOURCE, without a network; returns what it says."""
        given = arguments or ("--find-links", f"{SOURCE}/links")
        return self.run(f"{SOURCE}/deploy/install", *given, timeout_s=120).stderr


@contextmanager
def booted(rootfs: Path, scratch: Path, name: str = NAME) -> Iterator[Node]:
    """Boot a node above `rootfs`; on the way out it, its cgroups and its files in `scratch` are gone.

    A second one of that name, in another test run, waits for the first.
    """
    node = Node(name, STATE.with_name(name))
    with locked(node.state.with_suffix(".lock")):
        _clear(node, scratch)
        try:
            _boot(node, rootfs, scratch)
            yield node
        finally:
            _clear(node, scratch)


def _boot(node: Node, rootfs: Path, scratch: Path) -> None:
    layers = {name: scratch / name for name in ("upper", "work", "docker")}
    for directory in (*layers.values(), node.root):
        directory.mkdir(parents=True)
    options = f"lowerdir={rootfs},upperdir={layers['upper']},workdir={layers['work']}"
    _must(["mount", "-t", "overlay", "-o", options, node.name, str(node.root)])
    node.path("/etc/machine-id").write_text("")
    node.path("/etc/hostname").write_text(f"{node.name}\n")
    for unit in MASKED:
        node.path(f"/etc/systemd/system/{unit}").symlink_to("/dev/null")
    (node.state / "config.json").write_text(json.dumps(_specification(node, layers["docker"])))
    log = scratch / "boot.log"
    with log.open("w") as output:  # systemd inherits it, and a pipe would never end
        started = subprocess.run(
            ["runc", "--root", node.state / "runc", "run", "--detach", "--bundle", node.state, node.name],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=_BOOT_S,
            check=False,
        )
    if started.returncode:
        raise NodeError(f"runc could not start {node.name}: {log.read_text()}")
    _await_boot(node)


def _await_boot(node: Node) -> None:
    deadline, state = time.monotonic() + _BOOT_S, ""
    while time.monotonic() < deadline:
        state = node.run("systemctl", "is-system-running", check=False).stdout.strip()
        if state == "running":
            return
        if state == "degraded":
            raise NodeError(f"a unit of the node failed: {node.out('systemctl', '--failed', '--plain', '--no-legend')}")
        time.sleep(0.2)
    raise NodeError(f"the node has not booted within {_BOOT_S} s: {state}")


def _specification(node: Node, docker: Path) -> Mapping[str, Any]:
    """The container, as OCI's runtime specification has it."""

    def mount(place: str, kind: str, *options: str, source: str = "") -> dict[str, Any]:
        return {"destination": place, "type": kind, "source": source or kind, "options": list(options)}

    mounts = [
        mount("/proc", "proc"),
        mount("/dev", "tmpfs", "nosuid", "mode=755"),
        mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        mount("/dev/shm", "tmpfs", "nosuid", "nodev"),
        mount("/sys", "sysfs", "nosuid", "noexec", "nodev"),
        mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "rw"),
        mount("/run", "tmpfs", "nosuid", "nodev", "mode=755"),
        mount("/tmp", "tmpfs", "nosuid", "nodev", "mode=1777"),
        mount("/var/lib/docker", "bind", "rbind", source=str(docker)),  # overlay2 does not lie on an overlay
    ]
    process = {
        "args": ["/lib/systemd/systemd"],
        "cwd": "/",
        "env": [f"PATH={_PATH}", "container=runc"],
        "user": {"uid": 0, "gid": 0},
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _capabilities()),
    }
    namespaces = [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")]
    linux = {
        "cgroupsPath": f"/{node.name}",
        "namespaces": namespaces,
        "resources": {"devices": [{"allow": True, "access": "rwm"}]},
    }
    return {
        "ociVersion": "1.0.2",
        "hostname": node.name,
        "root": {"path": "rootfs"},
        "process": process,
        "mounts": mounts,
        "linux": linux,
    }


def _capabilities() -> list[str]:
    """All that this machine has, by name. A number newer than the names is left out: nobody here asks for it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    bounding = int(next(line for line in status.splitlines() if line.startswith("CapBnd:")).split()[1], 16)
    return [f"CAP_{name}" for number, name in enumerate(CAPABILITIES.split()) if bounding >> number & 1]


def _clear(node: Node, scratch: Path) -> None:
    """Remove the node, and what a killed run left of one."""
    if (node.state / "runc" / node.name).exists():
        node.runc("delete", "--force", node.name, check=False)
    if os.path.ismount(node.root):
        _must(["umount", str(node.root)])
    for directory in (node.state, *(scratch / name for name in ("upper", "work", "docker"))):
        shutil.rmtree(directory, ignore_errors=True)


def _must(
    command: list[str], *, given: str | None = None, check: bool = True, timeout_s: float = _COMMAND_S
) -> "subprocess.CompletedProcess[str]":
    channel: dict[str, Any] = {"stdin": subprocess.DEVNULL} if given is None else {"input": given}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, **channel)
    if check and done.returncode:
        raise NodeError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done
