"""Build the fault module for a kernel with the compiler of its suite, and control its faults in a guest."""

import hashlib
import shutil
from pathlib import Path

from archive import Kernel, headers_root
from guest import Guest
from shell import LabError
from userland import inside

SOURCE = Path(__file__).with_name("fault")
NAME = "kickfault"
FAULTS = ("kick", "worker", "caches", "key")
_PARAMETERS = f"/sys/module/{NAME}/parameters"


def build(kernel: Kernel, cache: Path) -> Path:
    """The module's file for `kernel`; built if this source has not been built for it yet."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(SOURCE.iterdir()))).hexdigest()[:12]
    wanted = cache / "fault" / f"{kernel.release}_{kernel.version}_{digest}.ko"
    if not wanted.exists():
        root = headers_root(kernel, cache)
        source = root / "root" / NAME
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(SOURCE, source)
        try:
            output = inside(root, "make", "-C", f"/root/{NAME}", f"KERNEL={kernel.release}")
        except LabError as error:
            # By 6.12 it has no user on x86. For a kernel that does not export it, the module has a copy.
            if "kick_all_cpus_sync" not in str(error):
                raise
            output = inside(
                root, "make", "-C", f"/root/{NAME}", f"KERNEL={kernel.release}", "KCFLAGS=-DKICKFAULT_OWN_KICK"
            )
        made = source / f"{NAME}.ko"
        if not made.exists():
            raise LabError(f"{NAME} for {kernel.release} was not made: {output}")
        wanted.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made, wanted)
    return wanted


def load(guest: Guest, module: Path) -> None:
    """Copy it into the guest and load it, unless it is loaded, with all faults off."""
    if guest.shell(f"test -d {_PARAMETERS}", check=False).status:
        guest.write(f"/run/{NAME}.ko", module.read_bytes())
        guest.run("insmod", f"/run/{NAME}.ko")
    switch(guest)


def switch(guest: Guest, **faults: int) -> None:
    """Set how many times each new memory cgroup triggers these faults; the others are off."""
    values = {**dict.fromkeys(FAULTS, 0), **faults}
    guest.shell("\n".join(f"echo {value} >{_PARAMETERS}/{name}" for name, value in values.items()))


def counts(guest: Guest) -> dict[str, int]:
    """The module's counters since it was loaded."""
    names = ("memcgs", "kicked", "kicked_by_worker", "caches_made", "keys_flipped")
    values = guest.out("sh", "-c", f"cd {_PARAMETERS} && cat {' '.join(names)}").split()
    return dict(zip(names, map(int, values), strict=True))
