"""The host's directories come in as one value."""

import re
from pathlib import Path

from kickwatch.node.roots import HOST, HostRoots

PACKAGE = Path(__file__).parents[3] / "daemon" / "kickwatch"
# The journal is below every other room, and the address of its socket is part of systemd's protocol.
NAMES_A_ROOT = {"node/roots.py", "journal/native.py"}


def test_the_roots_of_a_tree_are_below_it(tmp_path: Path) -> None:
    tree = HostRoots.below(tmp_path)
    for name in ("root", "proc", "sys", "run", "etc"):
        assert getattr(tree, name) == tmp_path / getattr(HOST, name).relative_to("/")


def test_the_environment_of_a_container_names_the_hosts_proc() -> None:
    assert HostRoots.named({"KICKWATCH_HOST_PROC": "/host/proc"}) == HostRoots(proc=Path("/host/proc"))
    assert HostRoots.named({"KICKWATCH_HOST_PROC": ""}) == HostRoots.named({}) == HostRoots()


def test_no_other_module_names_a_root() -> None:
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search(r'Path\("/(proc|sys|run|etc)["/]', path.read_text(encoding="utf-8"))
    }
    assert found == NAMES_A_ROOT
