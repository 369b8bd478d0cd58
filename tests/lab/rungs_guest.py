"""A guest for the rungs: one of Debian's kernels over this machine's own root, by virtme-ng, in QEMU without KVM.

Needs `vng` (virtme-ng from PyPI), qemu-system-x86_64 and a static busybox on PATH, and unpacked kernel packages: those
of the laboratory's cache, or of the directories that KICKWATCH_LAB_KERNELS names, separated by colons.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kickwatch-tests/lab/kernels"
_INSIDE = Path(__file__).with_name("rungs_inside.py")
_LIMIT_S = 900
# With multi-threaded TCG live text patching under load panics the guest.
_QEMU = "-cpu max -accel tcg,thread=single"


def missing() -> str:
    """What there is not; empty if a guest can be booted."""
    absent = [name for name in ("vng", "qemu-system-x86_64", "busybox") if shutil.which(name) is None]
    return f"feature: no {', '.join(absent)}" if absent else ""


def image(series: str) -> Path | None:
    """The kernel image of a series (`6.12`), the newest where there are several; None where there is none."""
    named = os.environ.get("KICKWATCH_LAB_KERNELS")
    roots = [Path(root) for root in named.split(":")] if named else [*_CACHE.glob("*")]
    found = [path for root in roots for path in root.glob(f"boot/vmlinuz-{series}.*")]
    return max(found, key=lambda path: [int(word) for word in re.findall(r"\d+", path.name)], default=None)


def answer(kernel: Path, task: str, *, cpus: int = 4, environment: str = "") -> dict[str, Any]:
    """What `rungs_inside.py TASK` answers in a guest; `environment` is `NAME=VALUE ...` for it."""
    inner = f"{environment} {shlex.quote(sys.executable)} {_INSIDE} {task}"
    # `--verbose` brings the console, by which the answer comes where the guest finds no other line out.
    command = ["vng", "--verbose", "-r", str(kernel), "--cpus", str(cpus), "--memory", "3G", "--disable-kvm"]
    command += [f"--qemu-opts={_QEMU}", "--", f"sh -c {shlex.quote(inner)}"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LIMIT_S, check=False, errors="replace"
    )
    told = re.search(r"^RUNGS (\{.*\})\s*$", done.stdout + done.stderr, re.MULTILINE)
    assert told, f"{shlex.join(command)}: no answer\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    found: dict[str, Any] = json.loads(told[1])
    assert "error" not in found, found["trace"]
    return found
