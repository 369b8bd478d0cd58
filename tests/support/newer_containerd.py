"""containerd of a later Debian than this machine's, as a command: its programs and libraries, this machine's kernel.

mmdebstrap only unpacks the packages, so that no package's script runs and the tree is there within 15 s; it is cached.
"""

import json
import os
import subprocess
from pathlib import Path

from cached_root import cached_root
from slowness import SLOWNESS

SUITE, VERSION = "trixie", "1.7."
_PACKAGES = ("base-files", "containerd", "mount")  # runc comes with containerd
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_BUILD_S = 300 * SLOWNESS
# The CRI copies these two into each sandbox.
_FILES = {"etc/hosts": "127.0.0.1 localhost\n", "etc/resolv.conf": ""}
# The tree is a mount point, because pivot_root(2), which runc calls, refuses a root that is none. $2 is at the same
# place for it and for this machine, so that sockets and pipes in it are the same for both.
_ENTER = """
tree=$1 shared=$2
shift 2
mount --bind "$tree" "$tree"
mount -t tmpfs tmpfs "$tree/run"
mkdir -p "$tree$shared"
mount --bind "$shared" "$tree$shared"
for place in proc sys dev; do mount --rbind /$place "$tree/$place"; done
exec env -i PATH=/usr/sbin:/usr/bin chroot "$tree" containerd "$@"
"""


def newer_containerd(shared: Path) -> tuple[str, ...]:
    """The command, without arguments. Its process, its shims and its mounts see `shared`, a directory that exists.

    It has a mount namespace of its own, which ends with its last process.
    """
    return ("unshare", "--mount", "--propagation=private", "sh", "-ec", _ENTER, "sh", str(_tree()), str(shared))


def _tree() -> Path:
    recipe = json.dumps([SUITE, _PACKAGES, _LEFT_OUT, _FILES, os.uname().machine])
    return cached_root(f"containerd-{SUITE}", recipe, _build)


def _build(target: Path) -> None:
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=extract", f"--include={','.join(_PACKAGES)}"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
    subprocess.run([*command, SUITE, str(target)], stdin=subprocess.DEVNULL, check=True, timeout=_BUILD_S)
    for name, text in _FILES.items():
        (target / name).write_text(text, encoding="ascii")
