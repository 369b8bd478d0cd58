"""A Debian node in a container to test kickwatch as a service: systemd as pid 1, an engine, and this machine's kernel.

runc starts it instead of an engine, because Docker 20.10 does not know CAP_BPF and cannot grant it. The node has all
capabilities of this machine, its own cgroup namespace (what its engine and kickwatch make is below its cgroup), and no
network except loopback. Otherwise it is like any node: docker.service, the journal, `systemctl`.

The file system is built by mmdebstrap and cached in the user's cache directory under the digest of its recipe. Each
node writes to a separate overlay.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cached_root import cached_root, locked
from slowness import SLOWNESS

NAME = "kw-systemd-node"
STATE = Path("/run") / NAME
SOURCE = "/opt/source"  # the tree of a release in the node
# The drop-ins for nodes without an engine, and for older kernels: the path in the wheel, and where it takes effect.
OCI_SHIPPED = "/opt/kickwatch/share/doc/kickwatch/oci.conf"
OCI_DROP_IN = "/etc/systemd/system/kickwatch.service.d/oci.conf"
SYS_ADMIN_SHIPPED = "/opt/kickwatch/share/doc/kickwatch/sys-admin.conf"
SYS_ADMIN_DROP_IN = "/etc/systemd/system/kickwatch.service.d/sys-admin.conf"
BOOKWORM, TRIXIE = "bookworm", "trixie"
PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3-venv", "docker.io", "iptables", "ca-certificates")
# Paths that are left out of the packages.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
# The first change kernel settings, which are the machine's; the others would disturb an experiment.
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
    """The node could not be built or booted, or a command in it failed."""


def base(suite: str = BOOKWORM) -> Path:
    """The directory of the node's file system; if it is not in the cache, it is built in about a minute."""
    name = "systemd-base" if suite == BOOKWORM else f"systemd-{suite}"
    packages = _packages(suite)
    recipe = json.dumps([suite, packages, LEFT_OUT, os.uname().machine])
    return cached_root(name, recipe, partial(_debootstrap, suite, packages))


def _packages(suite: str) -> tuple[str, ...]:
    """Debian 13 has the command `docker` in a package of its own."""
    return PACKAGES if suite == BOOKWORM else (*PACKAGES, "docker-cli")


def _debootstrap(suite: str, packages: tuple[str, ...], target: Path) -> None:
    excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    command = [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        *excluded,
    ]
    _must([*command, suite, str(target)], timeout_s=_BUILD_S)


@dataclass(frozen=True)
class Node:
    """A booted node: the container `name`; `state` has its bundle and runc's state."""

    name: str
    state: Path

    @property
    def root(self) -> Path:
        """Its file system."""
        return self.state / "rootfs"

    def run(
        self, *command: str, check: bool = True, timeout_s: float = _COMMAND_S, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in it as root. `check`: raise NodeError if the exit status is not 0."""
        variables = {"PATH": _PATH, "LANG": "C.UTF-8", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0", **environment}
        given = [word for key, value in variables.items() for word in ("--env", f"{key}={value}")]
        return self.runc("exec", *given, self.name, *command, check=check, timeout_s=timeout_s)

    def runc(
        self, *arguments: str, given: str | None = None, check: bool = True, timeout_s: float = _COMMAND_S
    ) -> "subprocess.CompletedProcess[str]":
        """Run runc for this node."""
        command = ["runc", "--root", str(self.state / "runc"), *arguments]
        return _must(command, given=given, check=check, timeout_s=timeout_s)

    def out(self, *command: str, timeout_s: float = _COMMAND_S) -> str:
        """The output of a command, which must succeed."""
        return self.run(*command, timeout_s=timeout_s).stdout.strip()

    def path(self, inside: str) -> Path:
        """The host's path of a file of the node. Not for /run, /tmp, /proc and /sys, which are other mounts."""
        return self.root / inside.lstrip("/")

    def write(self, inside: str, text: str) -> None:
        """Write a file in the node, on any mount."""
        script = 'mkdir -p "${1%/*}" && cat >"$1"'
        self.runc("exec", self.name, "/bin/sh", "-c", script, "sh", inside, given=text)

    def journal(self, *matches: str, since: int = 0) -> list[dict[str, Any]]:
        """Journal entries that match `FIELD=value`, oldest first. `since`: only those after this result of `now`.

        --after-cursor is not used: with matches, systemd 252 omits the first entry after a cursor that matches none.
        """
        text = self.out("journalctl", "--output=json", "--all", "--no-pager", "--quiet", *matches)
        found: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
        return [entry for entry in found if int(entry["__REALTIME_TIMESTAMP"]) > since]

    def now(self) -> int:
        """The time of the newest journal entry in microseconds, for the argument `since`."""
        newest = self.out("journalctl", "--output=json", "--lines=1", "--no-pager", "--quiet")
        return int(json.loads(newest)["__REALTIME_TIMESTAMP"])

    def awaited(self, *matches: str, since: int = 0, timeout_s: float = _COMMAND_S) -> dict[str, Any]:
        """Wait for the first such entry, and return it. Raises NodeError after `timeout_s`."""
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
        """Run the installer of the tree in SOURCE, without a network; returns its messages."""
        given = arguments or ("--find-links", f"{SOURCE}/links")
        return self.run(f"{SOURCE}/deploy/install", *given, timeout_s=120).stderr


@contextmanager
def booted(rootfs: Path, scratch: Path, name: str = NAME) -> Iterator[Node]:
    """Boot a node on top of `rootfs`; at the end it, its cgroups and its files in `scratch` are removed.

    A node of the same name in another test run waits for this one.
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
    with log.open("w") as output:  # a file, because systemd inherits it and would keep a pipe open
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
    for root in Path("/sys/fs/cgroup").glob(f"**/{node.name}"):
        root.chmod(0o555)  # as the kernel makes the root of a hierarchy: only CAP_DAC_OVERRIDE may write there
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
    """The container's config.json (OCI runtime specification)."""

    def mount(destination: str, kind: str, *options: str, source: str = "") -> dict[str, Any]:
        return {"destination": destination, "type": kind, "source": source or kind, "options": list(options)}

    mounts = [
        mount("/proc", "proc"),
        mount("/dev", "tmpfs", "nosuid", "mode=755"),
        mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        mount("/dev/shm", "tmpfs", "nosuid", "nodev"),
        mount("/sys", "sysfs", "nosuid", "noexec", "nodev"),
        mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "rw"),
        mount("/run", "tmpfs", "nosuid", "nodev", "mode=755"),
        mount("/tmp", "tmpfs", "nosuid", "nodev", "mode=1777"),
        mount("/var/lib/docker", "bind", "rbind", source=str(docker)),  # overlay2 does not work on an overlay
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
    """All capabilities of this machine, by name. A number without a name here is left out; no test needs it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    bounding = int(next(line for line in status.splitlines() if line.startswith("CapBnd:")).split()[1], 16)
    return [f"CAP_{name}" for number, name in enumerate(CAPABILITIES.split()) if bounding >> number & 1]


def _clear(node: Node, scratch: Path) -> None:
    """Remove the node, also one left by a killed test run."""
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
