"""The kernel laboratory: each machine is booted once for all tests. Collected only if KICKWATCH_LAB is set.

KICKWATCH_LAB_MACHINES="trixie:v2:4 bookworm:v1:16 trixie:v2:4:arm64 engines" selects machines by suite, cgroup version,
CPUs and, if it is not amd64, architecture;
KICKWATCH_LAB_CONTAINERS how many containers a healthy run takes. What was measured is written to build/lab/, a file for
each machine, from which `results.py` makes the table.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the modules beside this one, which pytest does not look for

from archive import Architecture, Archive, Suite
from bench import DISK_OF, OTHERS, RESULTS, Bench, architecture_of, machines
from foreign import runnable
from guest import CgroupVersion, Machine, booted
from shell import cache
from userland import bootable, build_wheel, installed

from cached_root import locked

_PROGRAMS = ("qemu-system-x86_64", "mmdebstrap", "depmod", "mke2fs", "unshare")

if "KICKWATCH_LAB" not in os.environ:
    collect_ignore_glob = ["test_*.py"]


Disks = Callable[[Architecture], Path]


@pytest.fixture(scope="session")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Disks:
    """The guests' disk of an architecture: a Debian with this tree's wheel installed."""
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        pytest.fail(f"the laboratory needs root and {', '.join(missing) or 'nothing else'}: deploy/setup lab-packages")

    def disk(architecture: Architecture) -> Path:
        if ready := os.environ.get(DISK_OF[architecture]):  # built for all machines by matrix.py
            return Path(ready)
        with locked(cache() / "lock"), runnable(architecture):
            return installed(build_wheel(tmp_path_factory.mktemp("wheel"), architecture), cache(), architecture)

    return disk


@pytest.fixture(scope="session", params=[one for one in machines() if one not in OTHERS])
def bench(request: pytest.FixtureRequest, disks: Disks) -> Iterator[Bench]:
    """The machine that `request` names, booted, with the fault module built but not loaded."""
    from fault_module import build  # noqa: PLC0415 -- not needed to list the tests

    suite, cgroup, cpus = request.param.split(":")[:3]
    wanted, architecture = CgroupVersion(cgroup), architecture_of(request.param)
    disk = disks(architecture)
    with locked(cache() / "lock"), runnable(architecture):
        kernel = Archive(Suite(suite), cache(), architecture).unpacked()
        if wanted is CgroupVersion.V1 and kernel.has("CONFIG_MEMCG_V1=n"):
            pytest.skip(f"feature: Debian builds {kernel.release} without CONFIG_MEMCG_V1")
        boot, module = bootable(kernel, disk, cache()), build(kernel, cache())
    with booted(Machine(boot, int(cpus), wanted)) as guest:
        bench = Bench(guest, wanted, module)
        bench.remember()
        took = {"boot_s": guest.boot_s, "boot_cpu_s": guest.boot_cpu_s}
        bench.keep("machine", {"kernel": kernel.release, "cpus": int(cpus), "cgroup": cgroup, **took})
        yield bench
        (RESULTS / f"{guest.machine.name}.console").write_text(guest.console(), encoding="utf-8")
