"""A booted kernel: QEMU without KVM, the laboratory's user land, and a connection to run commands in it.

`thread=single` is required: with multi-threaded TCG, patching kernel text (tracepoints, static keys) under load panics
the guest.
"""

import base64
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from errno import ECONNREFUSED
from pathlib import Path

from archive import Architecture
from shell import DIES_WITH_US, LabError
from userland import PORT, Bootable

PRODUCT = "kickwatch-laboratory"  # in DMI, or on the command line; the fault module loads on no other machine
# QEMU and the console of a machine. On arm64 a kernel booted directly has no DMI, so the device tree names the board
# (`linux,dummy-virt`), and QEMU's own pointer authentication halves the time to boot.
_QEMU = {
    Architecture.AMD64: (
        ("qemu-system-x86_64", "-machine", "q35", "-cpu", "max", "-smbios", f"type=1,product={PRODUCT}"),
        "console=ttyS0",
    ),
    Architecture.ARM64: (
        ("qemu-system-aarch64", "-machine", "virt,gic-version=3", "-cpu", "max,pauth-impdef=on"),
        f"console=ttyAMA0 kickfault.machine={PRODUCT}",
    ),
}
_BOOT_S = 300
_BOOTS = 3
_COMMAND_S = 300.0


class CgroupVersion(StrEnum):
    """The hierarchy that systemd mounts, which then has the memory controller."""

    V1 = "v1"
    V2 = "v2"


@dataclass(frozen=True)
class Machine:
    """One guest: what it boots, its number of CPUs and its cgroup version."""

    boot: Bootable
    cpus: int = 4
    cgroup: CgroupVersion = CgroupVersion.V2
    memory_mb: int = 2048
    words: tuple[str, ...] = ()  # added to the kernel's command line

    @property
    def name(self) -> str:
        """Its name in a row of the results."""
        machine = self.boot.kernel.architecture
        other = () if machine is Architecture.AMD64 else (machine,)
        return "-".join((self.boot.kernel.name, self.cgroup, f"{self.cpus}cpu", *other, *self.words))

    def command(self, state: Path) -> list[str]:
        """QEMU's command line; sockets and logs are in `state`."""
        qemu, console = _QEMU[self.boot.kernel.architecture]
        words = [console, "panic=-1", "net.ifnames=0", "systemd.show_status=0", "loglevel=5", "audit=0"]
        words += ["tsc=reliable", "rcupdate.rcu_cpu_stall_suppress=1", "nowatchdog", "random.trust_cpu=on"]
        # 5.10 panics when the host is so busy that no timer interrupt comes while it counts to ten.
        words += ["no_timer_check"]
        if self.cgroup is CgroupVersion.V1:
            words += ["systemd.unified_cgroup_hierarchy=0"]
        words += self.words
        drives = [f"file={disk},format=raw,if=virtio,snapshot=on" for disk in (self.boot.disk, self.boot.modules)]
        return [
            *(*qemu, "-nodefaults", "-no-reboot", "-display", "none"),
            *("-accel", "tcg,thread=single", "-smp", str(self.cpus), "-m", str(self.memory_mb)),
            *("-kernel", str(self.boot.kernel.image), "-initrd", str(self.boot.initramfs), "-append", " ".join(words)),
            *(word for drive in drives for word in ("-drive", drive)),
            *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=lab,path={state}/port,server=on,wait=off"),
            *("-device", f"virtserialport,chardev=lab,name={PORT}"),
            *("-chardev", f"file,id=console,path={state}/console", "-serial", "chardev:console"),
        ]


@dataclass(frozen=True)
class Done:
    """A command that has exited in the guest. `raw` is its standard output."""

    command: tuple[str, ...]
    status: int
    raw: bytes
    errors: str
    took_s: float

    @property
    def output(self) -> str:
        """Its standard output as text."""
        return self.raw.decode(errors="replace")


class Guest:
    """A guest that answers; created by `booted`."""

    def __init__(self, machine: Machine, process: "subprocess.Popen[bytes]", state: Path) -> None:
        self.machine = machine
        self.boot_s = 0.0
        self.boot_cpu_s = 0.0
        self._process = process
        self._state = state
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX)

    @property
    def cpu_s(self) -> float:
        """CPU time of QEMU since it started: unlike the clock it does not count what others take from the guest."""
        user, system = Path(f"/proc/{self._process.pid}/stat").read_text("ascii").rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def run(
        self, *command: str, given: bytes = b"", check: bool = True, timeout_s: float = _COMMAND_S, **environment: str
    ) -> Done:
        """Run a command as root until it exits. `check`: raise LabError if the exit status is not 0."""
        began = time.monotonic()
        coded = base64.b64encode(given).decode()
        request = {"command": command, "environment": environment, "given": coded, "timeout_s": timeout_s}
        self._socket.settimeout(timeout_s + 60)
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        answer = json.loads(self._line(timeout_s + 60))
        raw, errors = (base64.b64decode(answer[name]) for name in ("output", "errors"))
        text = errors.decode(errors="replace")
        done = Done(command, answer["status"], raw, text, time.monotonic() - began)
        if check and done.status:
            words = " ".join(command)
            raise LabError(f"{self.machine.name}: {words}: exit status {done.status}\n{done.output}{done.errors}")
        return done

    def out(self, *command: str, timeout_s: float = _COMMAND_S) -> str:
        """The output of a command, which must succeed."""
        return self.run(*command, timeout_s=timeout_s).output.strip()

    def shell(self, script: str, *, check: bool = True, timeout_s: float = _COMMAND_S) -> Done:
        """Run a script with the guest's sh."""
        return self.run("sh", "-c", script, check=check, timeout_s=timeout_s)

    def write(self, path: str, content: bytes) -> None:
        """Write a file in the guest."""
        self.run("sh", "-c", 'mkdir -p "${1%/*}" && cat >"$1"', "sh", path, given=content)

    def read(self, path: str) -> bytes:
        """Read a file of the guest."""
        return self.run("cat", path).raw

    def console(self) -> str:
        """The output of kernel and systemd on the console so far."""
        return (self._state / "console").read_text("utf-8", errors="replace")

    def connect(self) -> None:
        """Wait until the agent answers. Raises LabError with the end of the console."""
        began = time.monotonic()
        try:
            while not self._connected():
                if not self._alive() or time.monotonic() - began > _BOOT_S:
                    raise ConnectionRefusedError(ECONNREFUSED, "QEMU does not listen")
                time.sleep(0.05)
            self._line(_BOOT_S)
        except OSError as error:
            raise self._failed(f"no agent ({error})") from error
        self.boot_s = time.monotonic() - began
        self.boot_cpu_s = self.cpu_s

    def _connected(self) -> bool:
        """Connect; False if QEMU has made the socket but does not listen yet."""
        try:
            self._socket.connect(str(self._state / "port"))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def close(self) -> None:
        """Kill QEMU; a clean shutdown is not needed, because its disks are snapshots."""
        self._socket.close()
        if self._alive():
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def _alive(self) -> bool:
        return self._process.poll() is None

    def _line(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            self._socket.settimeout(1)
            try:
                chunk = self._socket.recv(1 << 20)
            except TimeoutError:
                if time.monotonic() > deadline or not self._alive():
                    raise self._failed("no answer") from None
                continue
            if not chunk:
                raise self._failed("the connection to the agent was closed")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _failed(self, what: str) -> LabError:
        return LabError(f"{self.machine.name}: {what}; end of the console:\n{self.console()[-4000:]}")


@contextmanager
def booted(machine: Machine) -> Iterator[Guest]:
    """Boot it; at the end it is removed completely.

    A kernel that does not come up is booted again: older ones measure their timers while they boot, and hang or panic
    if QEMU gets no CPU at that moment.
    """
    with tempfile.TemporaryDirectory(prefix="kickwatch-lab-") as directory:
        state = Path(directory)
        guest = _answering(machine, state)
        try:
            yield guest
        except LabError as error:
            raise LabError(f"{error}\n{(state / 'qemu.log').read_text('utf-8', errors='replace')}") from error
        finally:
            guest.close()


def _answering(machine: Machine, state: Path) -> Guest:
    """A guest that answers. Raises LabError if none of a few does."""
    for _ in range(_BOOTS - 1):
        with suppress(LabError):
            return _boot(machine, state)
    return _boot(machine, state)


def _boot(machine: Machine, state: Path) -> Guest:
    (state / "port").unlink(missing_ok=True)
    environment = {**os.environ, "TMPDIR": str(state)}  # for the snapshots of the disks
    with (state / "qemu.log").open("wb") as log:
        process = subprocess.Popen(
            [*DIES_WITH_US, *machine.command(state)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )
    guest = Guest(machine, process, state)
    try:
        guest.connect()
    except BaseException:
        guest.close()
        raise
    return guest
