"""Our threads leave isolated CPUs: all of them, and what is started later; unless there is no other CPU."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kickwatch.node.housekeeping import leave_isolated_cpus


@pytest.fixture
def affinity() -> Iterator[set[int]]:
    """The CPUs this process may use, and uses again after the test."""
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        pytest.skip("feature: needs two CPUs")
    yield before
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), before)


def test_every_thread_and_every_program_that_is_started_later_leaves_them(affinity: set[int]) -> None:
    isolated, *others = sorted(affinity)
    started, end, seen = threading.Event(), threading.Event(), list[set[int]]()

    def other_thread() -> None:
        started.set()
        end.wait(10)
        seen.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=other_thread)
    thread.start()
    started.wait(10)
    assert leave_isolated_cpus([isolated]) == tuple(others)
    end.set()
    thread.join()
    assert os.sched_getaffinity(0) == set(others)
    assert seen == [set(others)]
    program = "import os; print(sorted(os.sched_getaffinity(0)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(others)


def test_nothing_changes_without_isolated_cpus_or_without_others(affinity: set[int]) -> None:
    assert leave_isolated_cpus(()) == tuple(sorted(affinity))
    assert leave_isolated_cpus(range(10_000)) == tuple(sorted(affinity))
    assert os.sched_getaffinity(0) == affinity


def test_if_threads_cannot_be_listed_the_calling_one_leaves(affinity: set[int], tmp_path: Path) -> None:
    isolated, *others = sorted(affinity)
    assert leave_isolated_cpus([isolated], tmp_path) == tuple(others)
    assert os.sched_getaffinity(0) == set(others)
