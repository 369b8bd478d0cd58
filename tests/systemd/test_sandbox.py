"""Each line of the sandbox refuses what it is meant to refuse, and all lines together permit what kickwatch needs.

The attempts (sandbox_attempts.py) run in units of the node: one without a sandbox, one for each directive of
kickwatch.service alone, one for each directive that must stay off, and one with all directives.
"""

import errno
import json
import signal
from collections import defaultdict
from pathlib import Path

import pytest
from sandbox_attempts import OTHER_USER, SHARED_MEMORY_KEY
from systemd_node import Node

pytestmark = [pytest.mark.long, pytest.mark.systemd, pytest.mark.timeout(600)]

UNIT = Path(__file__).parents[2] / "systemd/kickwatch.service"
PROGRAM = "/usr/local/lib/kickwatch-test/sandbox_attempts.py"
FREE, ALL = "without a sandbox", "kickwatch.service"

# What each directive refuses without the others.
REFUSES = {
    "CapabilityBoundingSet": (
        "mount", "set the clock", "make a device", "change the root", "give a file away", "reboot",
    ),
    "NoNewPrivileges": ("gain privileges",),
    "UMask": ("make a readable file",),
    "ProtectSystem": (
        "write /etc", "write the configuration", "write /usr", "write /opt/kickwatch", "write /run", "write /var/lib",
    ),
    "ProtectHome": ("read /root", "read /home"),
    "PrivateTmp": ("read another's /tmp",),
    "PrivateMounts": ("share the node's mounts",),
    "NoExecPaths": ("run a written program", "run a program written to /tmp", "run a program written to /dev/shm"),
    "ReadOnlyPaths": ("write a kernel setting", "write to sysfs", "press sysrq"),
    "InaccessiblePaths": ("read the kernel's memory",),
    "PrivateDevices": ("open a device",),
    "DevicePolicy": ("make a device",),
    "ProtectClock": ("set the clock",),
    "ProtectHostname": ("set the host's name",),
    "ProtectKernelModules": ("load a module",),
    "PrivateIPC": ("reach another's shared memory",),
    "RestrictAddressFamilies": ("netlink", "packets"),
    "RestrictNamespaces": ("a namespace", "a user namespace"),
    "RestrictRealtime": ("real time",),
    "RestrictSUIDSGID": ("a set-uid file",),
    "LockPersonality": ("another personality",),
    "MemoryDenyWriteExecute": ("memory to write and run",),
    "SystemCallArchitectures": ("32-bit system calls",),
    "SystemCallFilter": (
        "mount", "trace", "change the root", "become another user", "give a file away", "become more urgent",
        "handle page faults", "keep keys", "reboot", "load a module", "set the clock", "set the host's name",
    ),
}  # fmt: skip
# Stricter directives, and what each would prevent kickwatch from doing.
STAYS_OFF = {
    "ProtectKernelTunables": ("yes", "see addresses"),
    "ProtectKernelLogs": ("yes", "see addresses"),
    "ProtectControlGroups": ("yes", "make a memory cgroup"),
    "ProtectProc": ("ptraceable", "signal another user"),
    "ProcSubset": ("pid", "read interrupts"),
    "PrivateNetwork": ("yes", "reach the node's loopback"),
    "PrivateUsers": ("yes", "load a BPF program"),
}
# Directives that loosen another one or set its error number; tested by what kickwatch needs and by REFUSALS.
OPENS = {"ReadWritePaths": "ProtectSystem", "SystemCallErrorNumber": "SystemCallFilter"}
NEEDED = (
    "write the history", "write the drain file", "write to its own /tmp", "open the lock", "read the configuration",
    "read interrupts", "read slabinfo", "see addresses", "load a BPF program", "make a memory cgroup",
    "signal another user", "pin a thread", "a barrier", "drop capabilities", "reach the engine", "reach systemd",
    "reach the node's loopback", "serve metrics", "serve metrics on IPv6", "be called back from C",
)  # fmt: skip
REFUSALS = {errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOENT, errno.EAFNOSUPPORT, -signal.SIGSYS}
ABSENT = {errno.ENOENT, errno.ENOSYS, 254}  # 254: not possible on this machine
PAIRS = [(directive, attempt) for directive, attempts in REFUSES.items() for attempt in attempts]


def directives() -> dict[str, list[str]]:
    """The [Service] section: each directive with its lines."""
    section = UNIT.read_text().partition("[Service]\n")[2].partition("\n[Install]")[0]
    found = defaultdict[str, list[str]](list)
    for line in section.splitlines():
        if line and not line.startswith("#"):
            found[line.partition("=")[0]].append(line)
    return dict(found)


def sandbox() -> set[str]:
    """The directives after the comment that starts the sandbox."""
    text = UNIT.read_text().partition("# The sandbox.")[2].partition("\n")[2].partition("[Install]")[0]
    return {line.partition("=")[0] for line in text.splitlines() if line and not line.startswith("#")}


def unit(lines: list[str], number: int) -> str:
    """A unit that makes every attempt in the sandbox of `lines`. systemd opens the output before it applies them."""
    fixed = [
        "Type=oneshot",
        "StandardError=journal",
        f"StandardOutput=truncate:/run/kw-test/{number}.json",
        f"ExecStart=/usr/bin/python3 -I {PROGRAM}",
    ]
    return "\n".join(["[Unit]", "DefaultDependencies=no", "[Service]", *fixed, *lines, ""])


def confined() -> list[str]:
    """The lines that apply to any program of the service."""
    others = {"Type", "ExecStart", "ExecReload", "ExecStopPost", "WatchdogSec", "Restart"}
    return [line for name, lines in directives().items() if name not in others for line in lines]


def cases() -> dict[str, list[str]]:
    """The lines of every unit, by its name."""
    lines = directives()
    openers = {
        closer: [line for name, one in OPENS.items() if one == closer for line in lines[name]] for closer in lines
    }
    alone = {name: [*lines[name], *openers[name]] for name in REFUSES}
    together = confined()
    stricter = {f"{name}={value}": [*together, f"{name}={value}"] for name, (value, _) in STAYS_OFF.items()}
    return {FREE: [], ALL: together, **alone, **stricter}


@pytest.fixture(scope="module")
def outcomes(installed: Node) -> dict[str, dict[str, int]]:
    """The result of each attempt in each unit."""
    node = installed
    prepare(node)
    named = {f"kw-test-{number}.service": name for number, name in enumerate(cases())}
    for number, lines in enumerate(cases().values()):
        node.write(f"/run/systemd/system/kw-test-{number}.service", unit(lines, number))
    node.run("systemctl", "daemon-reload")
    # First, because it makes the directories that the others use.
    node.run("systemctl", "start", f"kw-test-{list(named.values()).index(ALL)}.service")
    node.run("systemctl", "start", *named, check=False, timeout_s=120)
    found = {}
    for number, (unit_name, name) in enumerate(named.items()):
        # A unit that is too strict may fail to start.
        started = node.show(unit_name)["Result"] == "success"
        assert started or "=" in name, node.out("journalctl", "--unit", unit_name)
        found[name] = json.loads(node.out("cat", f"/run/kw-test/{number}.json")) if started else {}
    return found


def prepare(node: Node) -> None:
    """Make what the attempts look for."""
    here = Path(__file__).parent / "sandbox_attempts.py"
    node.write(PROGRAM, here.read_text())
    for secret in ("/root/kw-secret", "/home/kw-secret", "/tmp/kw-secret"):
        node.write(secret, "a secret")
    node.run("mkdir", "-p", "/run/kw-test")
    node.run("mknod", "/dev/kw-device", "c", "1", "3")
    make = f"import ctypes; assert ctypes.CDLL(None).shmget({SHARED_MEMORY_KEY}, 4096, 0o1666) >= 0"
    node.run("python3", "-c", make)
    node.run("systemd-run", "--quiet", f"--uid={OTHER_USER}", "sleep", "600")
    node.run("systemd-run", "--quiet", "python3", "-m", "http.server", "9", "--bind", "127.0.0.1")
    look = "import socket, time\nwhile socket.socket().connect_ex(('127.0.0.1', 9)): time.sleep(0.1)"
    node.run("python3", "-c", look)


def test_every_line_of_the_sandbox_is_tested() -> None:
    tested = REFUSES.keys() | STAYS_OFF.keys() | OPENS.keys()
    assert sandbox() - tested == set()
    assert tested - set(directives()) == set()


@pytest.mark.parametrize(("directive", "attempt"), PAIRS, ids=[f"{one}-{other}" for one, other in PAIRS])
def test_each_directive_alone_refuses(outcomes: dict[str, dict[str, int]], directive: str, attempt: str) -> None:
    free, alone, together = (outcomes[case][attempt] for case in (FREE, directive, ALL))
    if free == alone and free in ABSENT:
        pytest.skip(f"feature: nothing to refuse here: {attempt} ends with {free} in any case")
    assert free not in REFUSALS, "it is refused without the line as well, so this proves nothing"
    assert alone in REFUSALS
    assert together in REFUSALS
    if directive == "SystemCallFilter":
        assert alone == errno.EPERM, "SystemCallErrorNumber must give an error, not a signal"


@pytest.mark.parametrize("directive", STAYS_OFF)
def test_stricter_directives_would_break_kickwatch(outcomes: dict[str, dict[str, int]], directive: str) -> None:
    value, attempt = STAYS_OFF[directive]
    assert outcomes[f"{directive}={value}"].get(attempt) != 0
    assert outcomes[ALL][attempt] == 0


@pytest.mark.parametrize("attempt", NEEDED)
def test_the_sandbox_permits_what_kickwatch_needs(outcomes: dict[str, dict[str, int]], attempt: str) -> None:
    assert outcomes[ALL][attempt] == 0


def test_every_attempt_is_checked(outcomes: dict[str, dict[str, int]]) -> None:
    judged = {attempt for attempts in REFUSES.values() for attempt in attempts} | set(NEEDED)
    assert set(outcomes[ALL]) - judged == set()
    assert 253 not in {outcome for case in outcomes.values() for outcome in case.values()}, "an attempt has a bug"
