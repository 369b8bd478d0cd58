"""`deploy/install` on a real node: what it installs, that a second run changes nothing, that it removes everything."""

import pytest
from systemd_node import OCI_DROP_IN, OCI_SHIPPED, SOURCE, SYS_ADMIN_DROP_IN, SYS_ADMIN_SHIPPED, Node

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(600)]

# Paths that change by themselves on any node.
MOVING = "/proc /sys /dev /run /tmp /var/tmp /var/lib/docker /var/lib/containerd /var/lib/systemd /var/log /root"
LOCK = "/run/kickwatch.lock"

# What bash does at Tab after `kickwatch tri`.
COMPLETE = (
    "source /usr/share/bash-completion/completions/kickwatch; COMP_WORDS=(kickwatch tri); COMP_CWORD=1;"
    " _kickwatch_completion kickwatch tri kickwatch; echo ${COMPREPLY[@]}"
)


def files(node: Node) -> set[str]:
    """Every path of the node, except those that change by themselves."""
    pruned = " -o ".join(f"-path {path}" for path in MOVING.split())
    return set(node.out("sh", "-c", f"find / \\( {pruned} \\) -prune -o -print").splitlines())


def state(node: Node, unit: str) -> list[str]:
    """Whether the unit is active, and whether it is enabled."""
    return [node.run("systemctl", verb, unit, check=False).stdout.strip() for verb in ("is-active", "is-enabled")]


def test_install_and_removal(bare: Node) -> None:
    before = files(bare)

    output = bare.install()
    assert "file: /usr/local/lib/systemd/system/kickwatch.service" in output
    assert "configuration: /etc/kickwatch/kickwatch.toml, with every key at its default" in output
    assert "`systemctl enable --now kickwatch` starts it" in output
    assert state(bare, "kickwatch") == ["inactive", "disabled"]
    assert bare.out("kickwatch", "--version")
    assert bare.run("kickwatch", "check-config", "/etc/kickwatch/kickwatch.toml").returncode == 0
    assert "kickwatch" in bare.out("journalctl", "--list-catalog")
    assert bare.run("ls", "/usr/local/share/man/man1/kickwatch-trial.1").returncode == 0
    assert "file: /usr/share/bash-completion/completions/kickwatch" in output
    assert "trial" in bare.out("bash", "-c", COMPLETE)
    assert bare.out("stat", "--format=%a", "/run/kickwatch", "/run/kickwatch.lock").split() == ["755", "600"]

    again = bare.install().splitlines()
    assert [line.partition(":")[0] for line in again] == ["program", "configuration", "service"]
    assert "up to date" in again[0]
    assert "stays as it is" in again[1]

    # Also that doctor reads the drop-in that it recommends.
    asked = "from kickwatch.node.service_unit import *; print(*sorted(one.name for one in service_capabilities()))"
    assert bare.out("/opt/kickwatch/bin/python", "-c", asked) == "BPF KILL PERFMON SYSLOG"
    bare.run("install", "-D", "-m", "644", SYS_ADMIN_SHIPPED, SYS_ADMIN_DROP_IN)
    bare.run("systemctl", "daemon-reload")
    assert bare.out("/opt/kickwatch/bin/python", "-c", asked) == "BPF KILL PERFMON SYSLOG SYS_ADMIN"
    bare.run("install", "-D", "-m", "644", OCI_SHIPPED, OCI_DROP_IN)
    bare.install("--remove", "--purge")
    after = files(bare)
    assert sorted(after - before) == []
    assert sorted(before - after) == []
    assert bare.run("systemctl", "cat", "kickwatch", check=False).returncode != 0
    assert "kickwatch" not in bare.out("journalctl", "--list-catalog")
    assert bare.install("--remove").splitlines() == []


@pytest.mark.long
@pytest.mark.parametrize("arguments", [(), ("--purge",)])
def test_a_removal_leaves_the_file_of_the_lock_which_another_may_hold(bare: Node, arguments: tuple[str, ...]) -> None:
    """A `kickwatch trial`, for example: a new file would be another lock, and two would experiment at once."""
    bare.install()
    before = bare.out("stat", "--format=%i", LOCK)
    bare.install("--remove", *arguments)
    assert bare.out("stat", "--format=%i", LOCK) == before
    assert bare.run("ls", "-d", "/run/kickwatch", check=False).returncode != 0


@pytest.mark.long
def test_a_removal_leaves_what_a_running_trial_needs(bare: Node) -> None:
    """Without the state of its bundles it cannot remove its containers."""
    bare.install()
    bare.write("/run/kickwatch/oci/state", "")
    output = bare.run("flock", LOCK, f"{SOURCE}/deploy/install", "--remove", "--purge").stderr
    assert "data: /run/kickwatch stays, since another kickwatch uses it" in output
    assert bare.out("ls", "/run/kickwatch/oci") == "state"
    bare.install("--remove")
    assert bare.run("ls", "-d", "/run/kickwatch", check=False).returncode != 0


@pytest.mark.long
def test_a_removal_spares_a_unit_of_others_in_the_slice(bare: Node) -> None:
    """Such as `docker run --cgroup-parent=kickwatchcontainers.slice`; what a killed daemon left there is stopped."""
    left = f"docker-{'0123456789abcdef' * 4}.scope"
    bare.install()
    bare.write("/run/kickwatch/containers", f"{'0123456789abcdef' * 4}\n")
    for unit in ("theirs.scope", left):
        start = f"systemd-run --scope --slice=kickwatchcontainers.slice --unit={unit} sleep 300 >/dev/null 2>&1 &"
        bare.run("sh", "-c", start)
        bare.run("sh", "-c", f"until systemctl --quiet is-active {unit}; do sleep 0.1; done")
    output = bare.install("--remove", "--purge")
    assert "kickwatchcontainers.slice stays, since others have units in it" in output
    assert [state(bare, unit)[0] for unit in ("theirs.scope", left)] == ["active", "inactive"]
    bare.run("systemctl", "stop", "theirs.scope", "kickwatchcontainers.slice")


@pytest.mark.long
def test_a_removal_keeps_what_an_operator_wrote(bare: Node) -> None:
    bare.install()
    bare.run("install", "-D", "-m", "644", OCI_SHIPPED, OCI_DROP_IN)
    assert OCI_DROP_IN not in bare.install()
    bare.write(OCI_DROP_IN, "[Service]\nCapabilityBoundingSet=CAP_SYS_ADMIN\n")
    assert f"{OCI_DROP_IN} differs from this release's" in bare.install()
    bare.write("/etc/kickwatch/kickwatch.toml", "[budget]\ncontainers_per_hour = 30\n")
    bare.write("/var/lib/kickwatch/history.sqlite", "")
    assert "stays as it is" in bare.install()

    output = bare.install("--remove")
    assert "/etc/kickwatch/kickwatch.toml stays" in output
    assert "/var/lib/kickwatch stays" in output
    assert f"{OCI_DROP_IN} stays, since it was edited" in output
    bare.run("rm", "-r", OCI_DROP_IN.rpartition("/")[0])
    assert bare.out("cat", "/etc/kickwatch/kickwatch.toml") == "[budget]\ncontainers_per_hour = 30"

    bare.install("--remove", "--purge")
    assert bare.run("ls", "/etc/kickwatch", "/var/lib/kickwatch", check=False).stdout == ""


@pytest.mark.long
@pytest.mark.parametrize(("text", "stays"), [("# HELP kickwatch_up Up.", False), ("# HELP node_load1 Load.", True)])
def test_a_removal_takes_the_textfile_that_a_killed_daemon_left(bare: Node, text: str, stays: bool) -> None:
    """It is where the daemon recorded it. What another has written there since stays."""
    bare.install()
    bare.write("/var/lib/metrics/kickwatch.prom", f"{text}\n")
    bare.write("/var/lib/kickwatch/textfile", "/var/lib/metrics/kickwatch.prom")
    output = bare.install("--remove", "--purge")
    assert ("file: removing /var/lib/metrics/kickwatch.prom" in output) is not stays
    assert (bare.run("ls", "/var/lib/metrics").stdout.split() == ["kickwatch.prom"]) is stays
    bare.run("rm", "-r", "/var/lib/metrics")


def test_refusals_are_one_line_and_change_nothing(bare: Node) -> None:
    for arguments, message in (
        (("--wheel", "/nowhere.whl"), "install: /nowhere.whl cannot be read"),
        (("--purge",), "usage: install"),
        (("--sideways",), "usage: install"),
    ):
        refused = bare.run(f"{SOURCE}/deploy/install", *arguments, check=False)
        assert refused.returncode == 1
        assert message in refused.stderr
        assert len(refused.stderr.splitlines()) == 1

    bare.write("/usr/local/bin/kickwatch", "of another program\n")
    taken = bare.run(f"{SOURCE}/deploy/install", check=False)
    assert taken.returncode == 1
    assert taken.stderr == "install: /usr/local/bin/kickwatch exists and does not belong to kickwatch: move it away\n"
    bare.install("--remove")
    assert bare.out("cat", "/usr/local/bin/kickwatch") == "of another program"

    bare.run("rm", "/usr/local/bin/kickwatch")
    bare.write("/opt/kickwatch/diary", "of another program\n")
    taken = bare.run(f"{SOURCE}/deploy/install", check=False)
    assert taken.stderr == "install: /opt/kickwatch exists and is not a virtual environment: move it away\n"
    bare.install("--remove")
    assert bare.out("cat", "/opt/kickwatch/diary") == "of another program"
