"""Capabilities given up for good: by the thread, by threads born later, by programs that are run later."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.kernel

SCRIPT = """
import json, subprocess, sys, threading
from pathlib import Path
from kickwatch.node.privileges import LinuxCapability, give_up, held

def effective():
    status = Path("/proc/thread-self/status").read_text()
    return int(status.partition("CapEff:")[2].split()[0], 16)

needed = int(sys.argv[1])
kept = give_up(lambda: effective() & needed == needed)
later = []
thread = threading.Thread(target=lambda: later.append(held()))
thread.start()
thread.join()
child = subprocess.run(["grep", "CapPrm", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
print(json.dumps({"kept": sorted(kept), "own": held(), "thread": later[0], "child": int(child.split()[1], 16)}))
"""
EVER = {"DAC_OVERRIDE": 1, "DAC_READ_SEARCH": 2, "KILL": 5, "SYSLOG": 34}


@pytest.mark.parametrize("more", [{}, {"BPF": 39}, {"SYS_ADMIN": 21}])
def test_what_attaching_took_is_gone_for_threads_and_children(more: dict[str, int]) -> None:
    """`more` is what reading the maps takes on this kernel."""
    needed = str(sum(1 << bit for bit in more.values()))
    done = subprocess.run([sys.executable, "-c", SCRIPT, needed], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    kept = EVER | more
    assert told["kept"] == sorted(kept)
    mask = sum(1 << bit for bit in kept.values())
    assert told["own"] == told["thread"] == told["child"] == mask


def test_other_threads_would_keep_them_so_it_is_refused() -> None:
    script = """
import threading, time
from kickwatch.errors import KickwatchError
from kickwatch.node.privileges import give_up, held
before = held()
threading.Thread(target=time.sleep, args=(1,), name="sleeper").start()
try:
    give_up(lambda: True)
except KickwatchError as error:
    print(error, held() == before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "sleeper" in done.stdout
    assert done.stdout.strip().endswith("True")
