"""The Debian packages on clean nodes with a real systemd: install, run, upgrade, remove, purge, and nothing is left."""

import time
from collections.abc import Iterator
from pathlib import Path

import packages
import pytest
from systemd_node import Node, base, booted

from kickwatch.journal.journal import Event
from slowness import SLOWNESS

pytestmark = [pytest.mark.long, pytest.mark.systemd, pytest.mark.kernel, pytest.mark.timeout(900)]

TOML, OCI = "/etc/kickwatch/kickwatch.toml", "/etc/kickwatch/oci.conf"
SYS_ADMIN = "/etc/kickwatch/sys-admin.conf"
DROP_IN = "/etc/systemd/system/kickwatch.service.d"
TEXTFILE = "/var/lib/node/kickwatch.prom"
EDIT = "# Edited on this node.\n"
# Paths that change by themselves on any node, and what dpkg and apt keep about every package.
MOVING = """
/proc /sys /dev /run /tmp /var/tmp /var/lib/docker /var/lib/containerd /var/log /root /var/lib/systemd/timers
/var/lib/systemd/timesync /var/lib/dpkg /var/lib/apt /var/cache/apt /var/cache/debconf /var/cache/ldconfig /opt/debs
"""
# The administrator's own file, which no package touches: short trials without a pause.
SETTINGS = """
KICKWATCH_BUDGET_PRESET=stress
KICKWATCH_GUARD_ENABLED=false
KICKWATCH_TRIAL_CANARY_MEMCGS=20
KICKWATCH_TRIAL_INTERVAL_S=0
KICKWATCH_TRIAL_SETTLE_S=0
KICKWATCH_TRIAL_WINDOW_S=0.3
KICKWATCH_WORKLOAD_CONTAINERS_PER_TRIAL=5
"""
# What bash does at Tab after `kickwatch tri`.
COMPLETE = (
    "source /usr/share/bash-completion/completions/kickwatch; COMP_WORDS=(kickwatch tri); COMP_CWORD=1;"
    " _kickwatch_completion kickwatch tri kickwatch; echo ${COMPREPLY[@]}"
)
TRIALS = "import sqlite3; print(*(row[0] for row in sqlite3.connect('/var/lib/kickwatch/history.db').execute({!r})))"


@pytest.fixture(params=packages.SUITES)
def node(
    request: pytest.FixtureRequest, versions: tuple[packages.Built, packages.Built], tmp_path: Path
) -> Iterator[Node]:
    """A clean node of a suite, which has its packages in /opt/debs, and deploy/install."""
    with booted(base(request.param), tmp_path, f"kw-deb-{request.param}") as node:
        # The test's base leaves manuals and documents out, which belong to the package.
        node.run("sh", "-c", "grep -l path-exclude /etc/dpkg/dpkg.cfg.d/* | xargs rm -f")
        debs = node.path("/opt/debs")
        debs.mkdir()
        for built in versions:
            (debs / f"{built.version}.deb").write_bytes(built.packages[request.param].read_bytes())
        (debs / "install").write_bytes((packages.ROOT / "deploy/install").read_bytes())
        (debs / "install").chmod(0o755)
        yield node


def apt(node: Node, *arguments: str, check: bool = True) -> str:
    """apt-get as a script runs it: no question, and an edited file of the configuration stays."""
    kept = [f"--option=Dpkg::Options::=--force-{one}" for one in ("confdef", "confold")]
    command = ("apt-get", "--yes", "--no-install-recommends", *kept, *arguments)
    done = node.run(*command, check=check, timeout_s=120 * SLOWNESS, DEBIAN_FRONTEND="noninteractive")
    return done.stdout + done.stderr


def files(node: Node) -> set[str]:
    """Every path of the node with its type and mode, except those that change by themselves."""
    pruned = " -o ".join(f"-path {path}" for path in MOVING.split())
    return set(node.out("sh", "-c", f"find / \\( {pruned} \\) -prune -o -printf '%y %m %p\\n'").splitlines())


def trials(node: Node) -> list[str]:
    """The identities of the trials in the history, oldest first."""
    return node.out(
        "/usr/lib/kickwatch/bin/python3", "-c", TRIALS.format("SELECT trial FROM trials ORDER BY id")
    ).split()


def state(node: Node) -> list[str]:
    return [
        node.run("systemctl", verb, "kickwatch", check=False).stdout.strip() for verb in ("is-active", "is-enabled")
    ]


def append(node: Node, path: str, text: str) -> None:
    with node.path(path).open("a") as file:
        file.write(text)


def finished(node: Node, since: int) -> None:
    """Wait for a trial in which every container ran."""
    found = node.awaited(f"MESSAGE_ID={Event.TRIAL_FINISHED.message_id}", since=since, timeout_s=60 * SLOWNESS)
    assert (found["KICKWATCH_CONTAINERS"], found["KICKWATCH_FAILURES"]) == ("5", "[]")


def test_a_package_is_installed_runs_is_upgraded_and_purged(
    node: Node, versions: tuple[packages.Built, packages.Built]
) -> None:
    this, later = versions
    before = files(node)
    refused_beside_deploy_install(node, this)
    assert files(node) == before

    apt(node, "install", f"/opt/debs/{this.version}.deb")
    assert state(node) == ["inactive", "disabled"]
    check_what_is_installed(node, this)
    # On Debian 12 an edited configuration and an untouched drop-in, on Debian 13 the other way round.
    edited, untouched = (TOML, OCI) if "bookworm" in node.name else (OCI, TOML)
    append(node, edited, EDIT)
    node.run("sh", "-c", f"mkdir {DROP_IN} && ln -s {OCI} {SYS_ADMIN} {DROP_IN}")
    append(node, "/etc/default/kickwatch", SETTINGS)

    since = node.now()
    node.run("systemctl", "enable", "--now", "kickwatch", timeout_s=120 * SLOWNESS)
    finished(node, since)
    quiet = (f"MESSAGE_ID={Event.TRIAL_FINISHED.message_id}", "KICKWATCH_VERDICT=quiet")
    node.awaited(*quiet, since=since, timeout_s=120 * SLOWNESS)
    shown = node.show("kickwatch")
    assert f"{DROP_IN}/oci.conf" in shown["DropInPaths"]
    kept, since = trials(node), node.now()

    apt(node, "install", f"/opt/debs/{later.version}.deb")
    started = node.awaited(f"MESSAGE_ID={Event.STARTED.message_id}", since=since)
    assert started["KICKWATCH_VERSION"] == later.version
    assert node.show("kickwatch")["MainPID"] != shown["MainPID"]
    assert state(node) == ["active", "enabled"]
    finished(node, int(started["__REALTIME_TIMESTAMP"]))
    assert len(kept) > 0
    assert trials(node)[: len(kept)] == kept
    assert node.path(edited).read_text().endswith(EDIT)
    assert node.path(untouched).read_text().endswith(packages.ADDED)
    assert node.path(f"{edited}.dpkg-dist").read_text().endswith(packages.ADDED)

    refused = node.run("/opt/debs/install", "--remove", "--purge", check=False)
    assert refused.stderr == "install: kickwatch is installed here as a Debian package: use apt-get remove or purge\n"
    lock = killed_with_a_textfile(node)
    theirs = "systemd-run --scope --slice=kickwatchcontainers.slice --unit=theirs.scope sleep 300 >/dev/null 2>&1 &"
    node.run("sh", "-c", f"{theirs} until systemctl --quiet is-active theirs.scope; do sleep 0.1; done")
    assert "kickwatchcontainers.slice stays" in apt(node, "remove", "kickwatch")
    node.run("systemctl", "--quiet", "is-active", "theirs.scope")
    node.run("systemctl", "stop", "theirs.scope", "kickwatchcontainers.slice")
    assert not node.path(TEXTFILE).exists()
    assert not node.path("/var/lib/kickwatch/textfile").exists()
    assert node.out("stat", "--format=%i", "/run/kickwatch.lock") == lock
    node.path(TEXTFILE).parent.rmdir()
    assert node.out("docker", "ps", "--all", "--quiet") == ""
    assert node.run("systemctl", "cat", "kickwatch.service", check=False).returncode != 0
    assert node.path("/var/lib/kickwatch/history.db").exists()
    assert node.path(edited).read_text().endswith(EDIT)
    assert not node.path("/usr/lib/kickwatch").exists()
    node.path("/etc/default/kickwatch").unlink()

    apt(node, "purge", "kickwatch")
    after = files(node)
    assert sorted(after - before) == []
    assert sorted(before - after) == []
    assert node.run("sh", "-c", "ls -d /run/kickwatch*", check=False).stdout == ""
    assert "kickwatch" not in node.out("journalctl", "--list-catalog")
    assert node.out("systemctl", "--failed", "--plain", "--no-legend") == ""


def killed_with_a_textfile(node: Node) -> str:
    """Kill a passive daemon, which has no containers, once it has its textfile. Returns the inode of the lock."""
    node.write("/run/systemd/system/kickwatch.service.d/textfile.conf", "[Service]\nReadWritePaths=-/var/lib/node\n")
    node.path(TEXTFILE).parent.mkdir()
    append(node, "/etc/default/kickwatch", f"KICKWATCH_WORKLOAD_ENABLED=false\nKICKWATCH_METRICS_TEXTFILE={TEXTFILE}\n")
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "restart", "kickwatch", timeout_s=120 * SLOWNESS)
    deadline = time.monotonic() + 60 * SLOWNESS
    while not node.path(TEXTFILE).exists():
        assert time.monotonic() < deadline, "no textfile"
        time.sleep(0.3)
    node.run("systemctl", "kill", "--signal=KILL", "kickwatch")
    assert node.path(TEXTFILE).exists()
    return node.out("stat", "--format=%i", "/run/kickwatch.lock")


def refused_beside_deploy_install(node: Node, built: packages.Built) -> None:
    """A unit in /usr/local would hide the package's: nothing is installed, and the message has the remedy."""
    node.write("/usr/local/lib/systemd/system/kickwatch.service", "")
    output = apt(node, "install", f"/opt/debs/{built.version}.deb", check=False)
    assert "`deploy/install --remove`, which keeps an edited configuration and the history" in output
    node.run("rm", "-r", "/usr/local/lib/systemd")
    apt(node, "purge", "kickwatch", check=False)


def check_what_is_installed(node: Node, built: packages.Built) -> None:
    """The program, the configuration, manuals, completion, the catalog, what systemd-tmpfiles makes."""
    assert node.out("kickwatch", "--version") == f"kickwatch, version {built.version}"
    assert node.run("kickwatch", "check-config", TOML).returncode == 0
    assert "kickwatch" in node.out("journalctl", "--list-catalog")
    assert "trial" in node.out("bash", "-c", COMPLETE)
    assert node.out("stat", "--format=%a", "/run/kickwatch", "/run/kickwatch.lock").split() == ["755", "600"]
    assert node.path("/usr/share/man/man1/kickwatch-trial.1.gz").exists()
    document = node.show("kickwatch")["Documentation"].removeprefix("file://")
    assert node.path(document).exists()
    assert node.out("sh", "-c", "find /usr/lib/kickwatch -name '*.pyc' | head -n 1") != ""
    assert "grpclib" in node.out("/usr/lib/kickwatch/bin/python3", "-c", "import grpclib; print(grpclib.__name__)")
