"""Run all machines of the laboratory, three at a time on two CPUs: `matrix.py [pytest arguments]`.

Each machine has its own pytest process, whose output is in build/lab/ with the measurements. Prints a line when a
machine is done, and the tables at the end. Exits with 1 if any test failed. KICKWATCH_LAB_MACHINES selects machines,
KICKWATCH_LAB_JOBS how many run in parallel.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))  # this is a script, not a test

import results
from bench import DISK_OF, OTHER_MACHINE, OTHERS, RESULTS, architecture_of, machines, sharing
from foreign import runnable
from shell import cache
from userland import build_wheel, installed

from cached_root import locked

HERE = Path(__file__).parent
_OF_MACHINES = sorted({path.name for path in HERE.glob("test_*.py")} - set(OTHERS.values()))
# If this process is killed, pytest stops its guest and removes the guest's directory.
_ENDS_WITH_US = ("setpriv", "--pdeathsig", "INT", "--")
_QUIET = ["-q", "-p", "no:cacheprovider", "-m", "lab", "--durations=12", "-o", "console_output_style=classic"]


def main(arguments: Sequence[str]) -> int:
    """Run them all; 1 if any failed."""
    began, wanted = time.monotonic(), machines()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell, and its children, ignore it
    # A guest has one thread for all its CPUs and is idle for a third of the time. More guests make each other slower: a
    # container's life takes longer, and with it the halves of its pair.
    jobs = int(os.environ.get("KICKWATCH_LAB_JOBS", (os.cpu_count() or 1) * 3 // 2))
    _print(f"laboratory: {len(wanted)} machines, {jobs} at a time, in {cache()}")
    for architecture in sorted({architecture_of(machine) for machine in wanted if machine not in OTHERS}):
        with tempfile.TemporaryDirectory() as wheel, locked(cache() / "lock"), runnable(architecture):
            built = installed(build_wheel(Path(wheel), architecture), cache(), architecture)
        os.environ[DISK_OF[architecture]] = str(built)
    _print(f"laboratory: the user land is ready after {time.monotonic() - began:.0f} s")
    RESULTS.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(jobs) as pool:
        done = pool.map(lambda one: _run(one, arguments, sharing(wanted)), wanted)
        failed = [machine for machine, passed in done if not passed]
    results.main(RESULTS)
    minutes = (time.monotonic() - began) / 60
    _print(f"laboratory: {len(wanted) - len(failed)} of {len(wanted)} machines passed in {minutes:.1f} min")
    return 1 if failed else 0


def _run(machine: str, arguments: Sequence[str], shared: str) -> tuple[str, bool]:
    """Run one machine's tests; return whether all passed. `shared`: that which has what is tested on one only."""
    began, log = time.monotonic(), RESULTS / f"{machine.replace(':', '-')}.log"
    environment = {**os.environ, "KICKWATCH_LAB": "1", "KICKWATCH_LAB_MACHINES": machine, "KICKWATCH_REQUIRE": ""}
    if shared not in {machine, ""}:
        environment[OTHER_MACHINE] = shared
    tests = (OTHERS[machine],) if machine in OTHERS else _OF_MACHINES
    command = [sys.executable, "-m", "pytest", *_QUIET, *(str(HERE / name) for name in tests), *arguments]
    with log.open("wb") as output:
        done = subprocess.run([*_ENDS_WITH_US, *command], env=environment, stdout=output, stderr=output, check=False)
    text = log.read_text(encoding="utf-8", errors="replace")
    last = next(reversed(re.findall(r"^\S.* in [\d.]+s.*$", text, re.MULTILINE)), f"no result: see {log}")
    _print(f"{machine}: {last} ({(time.monotonic() - began) / 60:.1f} min)")
    if done.returncode:
        _print("\n".join(line for line in text.splitlines() if line.startswith(("FAILED", "ERROR"))) or f"see {log}")
    return machine, done.returncode == 0


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
