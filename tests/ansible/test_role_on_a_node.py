"""The Ansible role on a node, from check mode on the bare node to the removal of kickwatch.

The tests run in this order, each on the result of the one before. The node is that of tests/systemd: with systemd,
without a network, and with no more for Ansible than Debian's python3. The controller is this machine. A script replaces
ssh and starts the commands in the node; everything except the transport is Ansible's.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "systemd"))  # for systemd_node

from systemd_node import NAME, OCI_DROP_IN, STATE, Node, base, booted

pytestmark = [pytest.mark.long, pytest.mark.systemd, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
PLAYBOOK = ROOT / "deploy/ansible/kickwatch.yml"
LINKS = "/opt/links"
VERSION = re.compile(r"(?<=^__version__ = \")[^\"]+", re.MULTILINE)
CONFIG = "/etc/kickwatch/kickwatch.toml"
# Trials without a pause, so that an upgrade happens during one.
BUSY: dict[str, Any] = {
    "trial": {"window_s": 2.0, "settle_s": 0.5, "interval_s": 0.0, "canary_memcgs": 0},
    "workload": {"containers_per_trial": 4},
    "budget": {"preset": "stress"},
    "guard": {"enabled": False},
    "metrics": {"enabled": False},
}
TEXTFILE = "/var/lib/node/kickwatch.prom"
TRIAL_ENDS = ("trial_finished", "trial_void")
# Paths that change by themselves on any node, that Ansible uses temporarily, or that replace a package index.
MOVING = (
    f"/proc /sys /dev /run /tmp /var/tmp /var/lib/docker /var/lib/containerd /var/lib/systemd /var/log /root {LINKS}"
)


@dataclass(frozen=True)
class PlaybookRun:
    """The output and the counts of a run of the playbook."""

    output: str
    changed: int
    failed: int


@dataclass(frozen=True)
class Controller:
    """This machine, which runs Ansible."""

    directory: Path

    @contextmanager
    def another_wave(self) -> Iterator[None]:
        """Within this context a node follows that does not answer."""
        inventory = self.directory / "inventory.yml"
        before = inventory.read_text()
        found = json.loads(before)
        hosts = found["kickwatch"]["hosts"]
        hosts["never"] = hosts["node"] | {"ansible_ssh_executable": "/bin/false"}
        inventory.write_text(json.dumps(found))
        yield
        inventory.write_text(before)

    def run(self, *arguments: str, wheel: Path | None = None, **variables: Any) -> PlaybookRun:
        """Run the example playbook; the names of `variables` have no `kickwatch_`."""
        given = {f"kickwatch_{name}": value for name, value in {"gate": "none", **variables}.items()}
        given |= {"kickwatch_pip_args": ["--no-index", "--find-links", LINKS]}
        given |= {"kickwatch_wheel": str(wheel)} if wheel else {}
        configured = {
            "ANSIBLE_CONFIG": str(self.directory / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.directory / "home"),
            "ANSIBLE_INVENTORY": str(self.directory / "inventory.yml"),
            "ANSIBLE_NOCOLOR": "1",
        }
        command: list[str | Path] = [
            Path(sys.executable).with_name("ansible-playbook"),
            PLAYBOOK,
            "--extra-vars",
            json.dumps(given),
        ]
        ran = subprocess.run(
            [*command, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env=os.environ | configured,
        )
        output = ran.stdout + ran.stderr
        recap = re.search(r"changed=(\d+) +unreachable=0 +failed=(\d+)", output)
        assert recap, output
        return PlaybookRun(output, *map(int, recap.groups()))


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Controller:
    directory = tmp_path_factory.mktemp("controller")
    ssh = directory / "ssh"
    enter = ["runc", "--root", str(STATE / "runc"), "exec", "--env", "HOME=/root", "--env", "LANG=C.UTF-8", NAME]
    last_word = "for command; do :; done"
    ssh.write_text(f'#!/bin/sh\n{last_word}\nexec {shlex.join(enter)} /bin/sh -c "$command"\n')
    ssh.chmod(0o755)
    node = {
        "ansible_connection": "ssh",
        "ansible_ssh_executable": str(ssh),
        "ansible_ssh_transfer_method": "piped",
        "ansible_pipelining": True,
        "ansible_become": False,  # it is root already
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    (directory / "inventory.yml").write_text(json.dumps({"kickwatch": {"hosts": {"node": node}}}))
    (directory / "ansible.cfg").touch()
    return Controller(directory)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a wheel of a version from a copy of this tree; with a `comment` it differs from others of that version."""

    def build(version: str, comment: str = "", *, broken: bool = False) -> Path:
        tree = tmp_path_factory.mktemp("tree")
        for part in ("daemon", "systemd", "deploy", "docs"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, tree)
        home = tree / "daemon/kickwatch/__init__.py"
        changed, replaced = VERSION.subn(version, home.read_text(encoding="utf-8"))
        assert replaced == 1
        home.write_text(f"{changed}{comment}", encoding="utf-8")
        if broken:
            with (tree / "daemon/kickwatch/commands/run.py").open("a", encoding="utf-8") as daemon:
                daemon.write("\nraise SystemExit('this version does not start')\n")
        _pip("wheel", "--no-deps", "--wheel-dir", str(tree / "dist"), str(tree))
        (found,) = (tree / "dist").glob("*.whl")
        return found

    return build


def _pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def first(wheel: Callable[..., Path]) -> Path:
    return wheel("1.2.3")


@pytest.fixture(scope="module")
def node(first: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A booted node with the dependencies' wheels on it, and no kickwatch."""
    with booted(base(), tmp_path_factory.mktemp("node")) as node:
        for_debian = ["--only-binary=:all:", "--python-version=3.11"]
        _pip("download", *for_debian, "--dest", str(node.path(LINKS)), str(first))
        for own in node.path(LINKS).glob("kickwatch-*"):
            own.unlink()
        yield node


def files(node: Node) -> dict[str, str]:
    """Every path of the node with a file's digest or the path's type, except paths that change by themselves."""
    pruned = [word for path in MOVING.split() for word in ("-path", path, "-o")][:-1]
    listed = node.out("find", "/", "(", *pruned, ")", "-prune", "-o", "-printf", r"%y %p\n").splitlines()
    found = (line.split(" ", 1) for line in listed)
    return {path: _digest(node.path(path)) if kind == "f" else kind for kind, path in found}


def program(node: Node) -> dict[str, str]:
    """The files of kickwatch's program and its units."""
    places = ("/opt/kickwatch", "/usr/local")
    return {path: what for path, what in files(node).items() if path.startswith(places) and "__pycache__" not in path}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main_pid(node: Node) -> str:
    return node.show("kickwatch.service")["MainPID"]


def events(node: Node) -> list[str]:
    """The names of the events that kickwatch has logged since the boot, without `kickwatch.`."""
    records = node.journal("SYSLOG_IDENTIFIER=kickwatch")
    return [record["KICKWATCH_EVENT"].removeprefix("kickwatch.") for record in records if "KICKWATCH_EVENT" in record]


def await_event(node: Node, since: int, *names: str, timeout_s: float = 60.0) -> None:
    """Wait for one of these events after the first `since` events."""
    deadline = time.monotonic() + timeout_s
    while not set(names) & set(seen := events(node)[since:]):
        assert time.monotonic() < deadline, f"none of {names} within {timeout_s} s, but {seen}"
        time.sleep(0.3)


def await_file(path: Path, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} is not there within {timeout_s} s"
        time.sleep(0.3)


def test_check_mode_on_the_bare_node_changes_nothing(node: Node, controller: Controller, first: Path) -> None:
    before = files(node)
    ran = controller.run("--check", "--diff", wheel=first, config=BUSY)
    assert (ran.changed, ran.failed) == (2, 0), ran.output
    assert files(node) == before


def test_a_node_with_the_debian_package_is_left_to_it(node: Node, controller: Controller, first: Path) -> None:
    unit = "/usr/lib/systemd/system/kickwatch.service"
    node.write(unit, "")
    before = files(node)
    for state in ({"wheel": first}, {"state": "absent", "purge": True}):
        ran = controller.run(**state)
        assert (ran.changed, ran.failed) == (0, 1), ran.output
        assert "kickwatch is installed here as a Debian package" in ran.output
    assert files(node) == before
    node.run("rm", unit)


def test_a_repeated_installation_changes_nothing(node: Node, controller: Controller, first: Path) -> None:
    since = len(events(node))
    ran = controller.run(wheel=first, config=BUSY, gate="verdict")
    assert ran.failed == 0, ran.output
    assert ran.changed > 0
    assert node.run("kickwatch", "status", check=False).returncode == 0
    assert node.out("kickwatch", "--version").endswith("1.2.3")
    assert node.out("kickwatch", "check-config", CONFIG)
    assert [node.show("kickwatch.service")[key] for key in ("ActiveState", "UnitFileState")] == ["active", "enabled"]
    assert "kickwatch" in node.out("journalctl", "--list-catalog")
    assert node.out("stat", "--format=%a", "/run/kickwatch", "/run/kickwatch.lock").split() == ["755", "600"]
    await_event(node, since, "started")

    pid = main_pid(node)
    again = controller.run(wheel=first, config=BUSY, gate="verdict")
    assert (again.changed, again.failed) == (0, 0), again.output
    assert main_pid(node) == pid


def test_a_new_configuration_is_reloaded_and_an_invalid_one_not_written(
    node: Node, controller: Controller, first: Path
) -> None:
    since, pid, old = len(events(node)), main_pid(node), node.out("cat", CONFIG)
    wanted = BUSY | {"log": {"level": "debug"}}
    controller.run(wheel=first, config=wanted)
    await_event(node, since, "reloaded")
    assert main_pid(node) == pid
    assert [node.out("cat", backup) for backup in node.out("sh", "-c", f"ls {CONFIG}.*~").splitlines()] == [old]

    new = node.out("cat", CONFIG)
    wrong = controller.run(wheel=first, config=BUSY | {"trial": {"windows_s": 2.0}})
    assert wrong.failed == 1
    assert "unknown key trial.windows_s: did you mean trial.window_s?" in wrong.output
    assert (node.out("cat", CONFIG), main_pid(node)) == (new, pid)


def test_an_upgrade_drains_and_restarts(node: Node, controller: Controller, wheel: Callable[..., Path]) -> None:
    """From a package index, for which a directory of wheels is a substitute."""
    shutil.copy(wheel("1.2.4"), node.path(LINKS))
    since, pid = len(events(node)), main_pid(node)
    await_event(node, since, *TRIAL_ENDS)
    checked = controller.run("--check", version="1.2.4", config=BUSY)
    assert (checked.failed, main_pid(node)) == (0, pid), checked.output
    assert checked.changed > 0
    assert node.out("kickwatch", "--version").endswith("1.2.3")

    ran = controller.run(version="1.2.4", config=BUSY)
    assert ran.failed == 0, ran.output
    assert main_pid(node) != pid
    assert node.out("kickwatch", "--version").endswith("1.2.4")
    assert node.run("ls", "/run/kickwatch/drain", check=False).returncode != 0
    in_order = [name for name in events(node)[since:] if name in ("drained", "stopped", "started")]
    assert in_order[:3] == ["drained", "stopped", "started"]
    await_event(node, len(events(node)), *TRIAL_ENDS)

    again = controller.run(version="1.2.4", config=BUSY)
    assert (again.changed, again.failed) == (0, 0), again.output


def test_a_rebuilt_wheel_is_an_upgrade_and_an_operators_drain_stays(
    node: Node, controller: Controller, wheel: Callable[..., Path]
) -> None:
    rebuilt = wheel("1.2.4", comment="\n# rebuilt\n")
    node.write("/run/kickwatch/drain", "by hand\n")
    ran = controller.run(wheel=rebuilt, config=BUSY)
    assert ran.failed == 0, ran.output
    assert "# rebuilt" in node.out("sh", "-c", "cat /opt/kickwatch/lib/python3*/site-packages/kickwatch/__init__.py")
    assert node.out("cat", "/run/kickwatch/drain") == "by hand"
    node.run("rm", "/run/kickwatch/drain")


def test_an_interrupted_run_is_completed_by_the_next(node: Node, controller: Controller) -> None:
    """Interrupted between pip and the restart: the drain file exists, and the daemon is older than its program."""
    program = node.out("sh", "-c", "ls /opt/kickwatch/lib/python3*/site-packages/kickwatch-*.dist-info/RECORD")
    node.run("touch", program)
    node.write("/run/kickwatch/drain", "drained by the Ansible role for an upgrade\n")
    pid = main_pid(node)
    ran = controller.run(version="1.2.4", config=BUSY, without_engine=True)
    assert ran.failed == 0, ran.output
    assert main_pid(node) != pid
    assert node.run("ls", "/run/kickwatch/drain", check=False).returncode != 0
    assert "CAP_SYS_ADMIN" in node.out("systemctl", "show", "--property=CapabilityBoundingSet", "kickwatch").upper()


def test_an_upgrade_that_does_not_start_is_rolled_back(
    node: Node, controller: Controller, wheel: Callable[..., Path]
) -> None:
    broken = wheel("1.2.5", broken=True)
    before = program(node)
    ran = controller.run(wheel=broken, config=BUSY, without_engine=True, gate="control", gate_timeout_s=3)
    assert ran.failed == 1, ran.output
    assert "the previous program is back" in ran.output
    assert node.out("kickwatch", "--version").endswith("1.2.4")
    assert node.show("kickwatch.service")["ActiveState"] == "active"
    assert program(node) == before
    assert node.run("ls", "/run/kickwatch/drain", check=False).returncode != 0


def test_a_node_that_fails_its_control_stops_the_rollout(node: Node, controller: Controller) -> None:
    """The daemon may use one CPU, so the control has none to interrupt. Nothing tries to reach the next wave's node."""
    drop_in = "/etc/systemd/system/kickwatch.service.d/one-cpu.conf"
    node.write(drop_in, "[Service]\nCPUAffinity=0\n")
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "restart", "kickwatch.service")
    with controller.another_wave():
        ran = controller.run(version="1.2.4", config=BUSY, without_engine=True, gate="control", gate_timeout_s=10)
    assert ran.failed == 1, ran.output
    assert "not decided within 10 s: positive control not passed" in ran.output
    assert "UNREACHABLE" not in ran.output
    node.run("rm", drop_in)
    ran = controller.run(version="1.2.4", config=BUSY, without_engine=True, gate="control")
    assert ran.failed == 0, ran.output


def test_a_removal_keeps_the_data_unless_purged(node: Node, controller: Controller) -> None:
    """The textfile goes, which a killed daemon leaves; the lock stays, which a `kickwatch trial` may hold."""
    passive = {"workload": {"enabled": False}, "metrics": {"listen": "", "textfile": TEXTFILE}}
    node.write("/run/systemd/system/kickwatch.service.d/textfile.conf", "[Service]\nReadWritePaths=-/var/lib/node\n")
    node.run("mkdir", "/var/lib/node")
    ran = controller.run(version="1.2.4", config=BUSY | passive, without_engine=True)
    assert ran.failed == 0, ran.output
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "restart", "kickwatch.service", timeout_s=120)
    await_file(node.path(TEXTFILE))
    node.run("systemctl", "kill", "--signal=KILL", "kickwatch.service")
    assert node.path(TEXTFILE).exists()
    lock = node.out("stat", "--format=%i", "/run/kickwatch.lock")

    by_hand = f"{CONFIG}.1.2020-01-01@00:00:00~"
    node.write(by_hand, "# mine\n")
    node.run("install", "-D", "/dev/null", "/usr/local/share/man/man1/kickwatch.1")  # as `deploy/install` does
    theirs = "systemd-run --scope --slice=kickwatchcontainers.slice --unit=theirs.scope sleep 300 >/dev/null 2>&1 &"
    node.run("sh", "-c", f"{theirs} until systemctl --quiet is-active theirs.scope; do sleep 0.1; done")
    ran = controller.run("--extra-vars", "kickwatch_purge=false", state="absent")  # a string, so true in Jinja
    assert ran.failed == 0, ran.output
    assert "kickwatchcontainers.slice stays" in ran.output
    node.run("systemctl", "--quiet", "is-active", "theirs.scope")
    node.run("systemctl", "stop", "theirs.scope", "kickwatchcontainers.slice")
    assert sorted(node.out("find", "/etc/kickwatch", "-type", "f").splitlines()) == [CONFIG, by_hand]
    assert node.out("ls", "/var/lib/kickwatch")
    assert not node.path("/var/lib/kickwatch/textfile").exists()
    assert node.out("stat", "--format=%i", "/run/kickwatch.lock") == lock
    kept = ("/etc/kickwatch", "/var/lib/kickwatch")
    assert [path for path in files(node) if "kickwatch" in path and not path.startswith(kept)] == []
    assert node.run("systemctl", "cat", "kickwatch.service", check=False).returncode != 0
    assert "kickwatch" not in node.out("journalctl", "--list-catalog")
    assert node.out("docker", "ps", "--all", "--quiet") == ""
    again = controller.run(state="absent")
    assert (again.changed, again.failed) == (0, 0), again.output

    node.write(OCI_DROP_IN, "# mine\n")
    node.write(TEXTFILE, "# HELP kickwatch_up Up.\n")
    node.write("/var/lib/kickwatch/textfile", TEXTFILE)
    controller.run(state="absent", purge=True)
    assert node.out("stat", "--format=%i", "/run/kickwatch.lock") == lock
    assert [path for path in files(node) if "kickwatch" in path] == [str(Path(OCI_DROP_IN).parent), OCI_DROP_IN]
    node.run("rm", "-r", str(Path(OCI_DROP_IN).parent))


def test_check_mode_reports_missing_packages(node: Node, controller: Controller, first: Path) -> None:
    """Works without python3-apt, which Ansible's apt module needs in check mode."""
    node.run("dpkg", "--remove", "--force-depends", "python3-venv")
    before = files(node)
    ran = controller.run("--check", wheel=first)
    assert (ran.changed, ran.failed) == (3, 0), ran.output
    assert re.search(r'"_kickwatch_lacking": \[\s*"python3-venv"\s*\]', ran.output), ran.output
    assert files(node) == before
