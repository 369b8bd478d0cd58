"""`git bisect run` over two kernels, each booted by virtme-ng and `deploy/gate-kernel`, lands on the bad one.

Debian's 6.1 is good. Its 6.12 is bad, since it loads the fault module with the fault of 2017. A commit names a kernel.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from shlex import quote

import fault_module
import pytest
from archive import Archive, Suite
from bench import RESULTS
from shell import cache

from cached_root import locked

ROOT = Path(__file__).parents[2]
VNG = "virtme-ng==1.42"
REPORTS = RESULTS / "bisect"  # a directory for each commit that was tried
pytestmark = [pytest.mark.lab, pytest.mark.timeout(3600)]

BISECT = 'git bisect start HEAD HEAD~3 && git bisect run "$SCRIPT"'
# virtme-ng finds the modules of a kernel beside its image, so nothing is mounted or linked on this node.
SCRIPT = """#!/bin/sh
. ./kernel
export GATE_BEFORE
"$ROOT/deploy/gate-kernel" "$kernel" "$RESULTS/$(git rev-parse HEAD)" --time-limit 600
case $? in
0) exit 0 ;;
3) exit 1 ;;
*) exit 125 ;;
esac
"""


def git(repository: Path, *arguments: str) -> str:
    names = ("-c", "user.name=laboratory", "-c", "user.email=laboratory@localhost", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", repository, *names, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def vng() -> Path:
    """virtme-ng in an environment of its own."""
    home = cache() / "virtme-ng"
    if not (home / "bin" / "vng").exists():
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([home / "bin" / "pip", "install", "--quiet", VNG], check=True)
    return home / "bin" / "vng"


@pytest.fixture
def environment(vng: Path, tmp_path: Path) -> Mapping[str, str]:
    """What the script reads, and a history of two good and two bad kernels in tmp_path/kernels."""
    with locked(cache() / "lock"):
        good, bad = (Archive(suite, cache()).unpacked() for suite in (Suite.BOOKWORM, Suite.TRIXIE))
        module = fault_module.build(bad, cache())
    repository, script = tmp_path / "kernels", tmp_path / "bisect.sh"
    repository.mkdir()
    git(repository, "init", "--quiet")
    before = {good: ":", bad: f"insmod {quote(str(module))} kick=1"}
    for number, kernel in enumerate((good, good, bad, bad)):
        line = f"kernel={quote(str(kernel.image))} GATE_BEFORE={quote(before[kernel])}\n"
        (repository / "kernel").write_text(f"# {number}\n{line}")
        git(repository, "add", "kernel")
        git(repository, "commit", "--quiet", "--message", f"{number} {kernel.release}")
    script.write_text(SCRIPT)
    script.chmod(0o755)
    return {
        "PATH": f"{vng.parent}:{os.environ['PATH']}",
        "KICKWATCH": str(ROOT / ".venv/bin/kickwatch"),
        "GATE_KVM": "no",
        "GATE_QEMU": "-smbios type=1,product=kickwatch-laboratory",  # the fault module asks for it
        "GATE_LIMIT_S": "900",
        "ROOT": str(ROOT),
        "RESULTS": str(REPORTS),
        "SCRIPT": str(script),
    }


def test_the_bisection_lands_on_the_bad_kernel(environment: Mapping[str, str], tmp_path: Path) -> None:
    repository = tmp_path / "kernels"
    shutil.rmtree(REPORTS, ignore_errors=True)
    first_bad, last_good = (git(repository, "rev-parse", f"HEAD~{back}") for back in (1, 2))
    done = subprocess.run(
        ["sh", "-c", BISECT],
        cwd=repository,
        env=os.environ | dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    said = f"{done.stdout[-6000:]}{done.stderr[-3000:]}"
    assert done.returncode == 0, said
    assert f"{first_bad} is the first bad commit" in done.stdout, said
    good, bad = (json.loads((REPORTS / commit / "gate.json").read_text()) for commit in (last_good, first_bad))
    assert (good["verdict"], bad["verdict"]) == ("quiet", "broadcasting")
    (failed,) = [check for check in bad["checks"] if check["outcome"] == "failed"]
    assert failed["name"] == "creation_path"
    assert "kick_all_cpus_sync" in failed["text"]
