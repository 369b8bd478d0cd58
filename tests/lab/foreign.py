"""Lets this machine run programs of another architecture (qemu-user, binfmt_misc), and undoes what that sets."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archive import Architecture
from shell import LabError, run

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_HANDLER = {Architecture.ARM64: "qemu-aarch64"}
_MACHINE = {"x86_64": Architecture.AMD64, "aarch64": Architecture.ARM64}
_PROGRAMS = ("update-binfmts", "arch-test", "aarch64-linux-gnu-gcc", "qemu-system-aarch64")


@contextmanager
def runnable(architecture: Architecture) -> Iterator[None]:
    """Register the handler of the package qemu-user-static if there is none, and remove it at the end."""
    handler = _HANDLER.get(architecture)
    if handler is None or _MACHINE.get(os.uname().machine) is architecture:
        yield
        return
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        raise LabError(f"no {', '.join(missing)} for {architecture}: deploy/setup arm64-packages")
    mounted = (_BINFMT / "register").exists()
    if not mounted:
        run(["mount", "-t", "binfmt_misc", "binfmt_misc", _BINFMT])
    registered = (_BINFMT / handler).exists()
    try:
        if not registered:
            run(["update-binfmts", "--enable", handler])
        yield
    finally:
        if not registered:
            run(["update-binfmts", "--disable", handler])
        if not mounted:
            run(["umount", _BINFMT])
