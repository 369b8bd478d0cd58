"""The fault module, built for one kernel with the compiler of that kernel's suite, and switched in a guest."""

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
    """The module's file for `kernel`; built where this source has not been built for it yet."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(SOURCE.iterdir()))).hexdigest()[:12]
    wanted = cache / "fault" / f"{kernel.release}_{kernel.version}_{digest}.ko"
    if not wanted.exists():
        root = headers_root(kernel, cache)
        place = root / "root" / NAME
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(SOURCE, place)
        try:
            said = inside(root, "make", "-C", f"/root/{NAME}", f"KERNEL={kernel.release}")
        except LabError as error:
            # By 6.12 it had no user left on x86; a kernel that no longer exports it gets its body under another name.
            if "kick_all_cpus_sync" not in str(error):
                raise
            said = inside(
                root, "make", "-C", f"/root/{NAME}", f"KERNEL={kernel.release}", "KCFLAGS=-DKICKFAULT_OWN_KICK"
            )
        made = place / f"{NAME}.ko"
        if not made.exists():
            raise LabError(f"{NAME} for {kernel.release} was not made: {said}")
        wanted.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made, wanted)
    return wanted


def load(guest: Guest, module: Path) -> None:
    """Bring it in and load it; all its faults are off."""
    guest.write(f"/run/{NAME}.ko", module.read_bytes())
    guest.run("insmod", f"/run/{NAME}.ko")


def switch(guest: Guest, **faults: int) -> None:
    """From now on each new memory cgroup costs so many of these, and none of the others."""
    values = {**dict.fromkeys(FAULTS, 0), **faults}
    guest.shell("\n".join(f"echo {value} >{_PARAMETERS}/{name}" for name, value in values.items()))


def counts(guest: Guest) -> dict[str, int]:
    """What the module has done since it was loaded."""
    names = ("memcgs", "kicked", "kicked_by_worker", "caches_made", "keys_flipped")
    told = guest.out("sh", "-c", f"cd {_PARAMETERS} && cat {' '.join(names)}").split()
    return dict(zip(names, map(int, told), strict=True))
