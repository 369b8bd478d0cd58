"""The removals stop the slice of kickwatch's containers only if nothing of others is in it. systemctl is a mock."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
SLICE = "kickwatchcontainers.slice"
OURS, THEIRS = "0123456789abcdef" * 4, "fedcba9876543210" * 4
STAYS = f"{SLICE} stays, since others have units in it"
# Takes what it stops out of every hierarchy, as systemd does.
SYSTEMCTL = """#!/bin/sh
[ "$1" != --quiet ] || exit 0
echo "$@" >>{root}/calls
find {root} -name "$2" -prune -exec rm -r {{}} +
"""


def function(script: str) -> str:
    """The script's function that stops the slice, and a call of it."""
    text = (DEPLOY / script).read_text(encoding="utf-8")
    body = text.partition("stop_slice() {")[2].partition("\n}\n")[0]
    return f"set -e\nsay() {{ echo $* >&2; }}\nstop_slice() {{{body}\n}}\nstop_slice"


def task() -> str:
    """The command of the role's task."""
    tasks = yaml.safe_load((DEPLOY / "ansible/roles/kickwatch/tasks/absent.yml").read_text(encoding="utf-8"))
    return str(next(one["ansible.builtin.shell"]["cmd"] for one in tasks if "ansible.builtin.shell" in one))


REMOVALS = {
    "deploy/install": (["bash", "-uc"], function("install")),
    "package": (["sh", "-uc"], function("debian/package/prerm")),
    "role": (["sh", "-uc"], task()),
}


@dataclass
class Node:
    """The directories of a node. `v2`: cgroup v2, else two hierarchies of v1."""

    root: Path
    v2: bool

    def prepare(self) -> None:
        for name in ("systemctl", "deb-systemd-invoke"):
            (self.root / name).write_text(SYSTEMCTL.format(root=self.root))
            (self.root / name).chmod(0o755)
        self.add("")

    def add(self, unit: str) -> None:
        for mount in ("",) if self.v2 else ("cpuset", "systemd"):
            (self.root / "cgroup" / mount / SLICE / unit).mkdir(parents=True)

    def record(self, *ids: str) -> None:
        (self.root / "containers").write_text("".join(f"{one}\n" for one in ids))

    def remove(self, removal: str) -> tuple[str, list[str]]:
        """What it prints, and what is stopped."""
        shell, script = REMOVALS[removal]
        for path, fake in (("/sys/fs/cgroup", "cgroup"), ("/run/kickwatch/containers", "containers")):
            assert path in script
            script = script.replace(path, str(self.root / fake))
        given = os.environ | {"PATH": f"{self.root}:{os.environ['PATH']}"}
        done = subprocess.run([*shell, script], env=given, capture_output=True, text=True, check=True)
        calls = self.root / "calls"
        return done.stdout + done.stderr, calls.read_text().splitlines() if calls.exists() else []


@pytest.fixture(params=[True, False], ids=["v2", "v1"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Node:
    made = Node(tmp_path, v2=request.param)
    made.prepare()
    return made


@pytest.mark.parametrize("removal", REMOVALS)
def test_an_empty_slice_is_stopped(node: Node, removal: str) -> None:
    said, stopped = node.remove(removal)
    assert "stays" not in said
    assert stopped == [f"stop {SLICE}"]


@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("recorded", [(), (OURS,)])
@pytest.mark.parametrize("unit", [f"docker-{THEIRS}.scope", "run-u7.scope"])
def test_a_slice_with_a_unit_of_others_stays(node: Node, removal: str, recorded: tuple[str, ...], unit: str) -> None:
    """Such as `docker run --cgroup-parent=kickwatchcontainers.slice`: the removal of kickwatch killed it."""
    node.add(unit)
    node.record(*recorded)
    said, stopped = node.remove(removal)
    assert STAYS in said
    assert stopped == []


@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("others", [True, False])
def test_what_a_killed_kickwatch_left_is_stopped_beside_others_and_alone(
    node: Node, removal: str, *, others: bool
) -> None:
    node.add(f"docker-{OURS}.scope")
    if others:
        node.add(f"docker-{THEIRS}.scope")
    node.record(OURS, "1" * 64)
    said, stopped = node.remove(removal)
    assert (STAYS in said) is others
    assert stopped == [f"stop docker-{OURS}.scope", *([] if others else [f"stop {SLICE}"])]
