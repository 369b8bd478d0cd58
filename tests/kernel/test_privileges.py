"""Dropped capabilities are gone for the thread, for threads started later, and for programs run later."""

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
def test_capabilities_for_attaching_are_gone_for_threads_and_children(more: dict[str, int]) -> None:
    """`more` is what reading the maps requires on this kernel."""
    needed = str(sum(1 << bit for bit in more.values()))
    done = subprocess.run([sys.executable, "-c", SCRIPT, needed], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    kept = EVER | more
    assert result["kept"] == sorted(kept)
    mask = sum(1 << bit for bit in kept.values())
    assert result["own"] == result["thread"] == result["child"] == mask


def test_dropping_is_refused_while_there_are_other_threads() -> None:
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
