"""Real probes whose maps may no longer be read: every read is an error, and arming would keep the capability."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

TESTS = Path(__file__).parents[1] / "support"
SCRIPT = """
import asyncio, json, sys
from kickwatch.service.arming import _works
from kickwatch.errors import ObserveError
from kickwatch.experiment.armed_observers import ArmedObservers
from namespaces import refuse_bpf

async def main():
    armed = await ArmedObservers.open()
    results = {"control": armed.control.passed, "works": _works(armed), "ipis": armed.observatory.observers.ipis}
    refuse_bpf()
    results["works_refused"] = _works(armed)
    for name, read in (
        ("sample", armed.observatory.sample),
        ("between", armed.observatory.between_windows),
        ("settle", lambda: asyncio.to_thread(armed.observatory.creation_broadcasts)),
        ("cost", lambda: asyncio.to_thread(armed.observatory.requests.cost)),
    ):
        try:
            await read()
            results[name] = "read"
        except ObserveError as error:
            results[name] = str(error)
    await armed.prove()
    results["control_refused"] = [armed.control.passed, armed.control.detail]
    armed.close()
    print(json.dumps(results))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def results() -> Any:
    script = f"import sys; sys.path.insert(0, {str(TESTS)!r})\n{SCRIPT}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_everything_is_read_before(results: Any) -> None:
    assert (results["control"], results["works"]) == (True, True)


@pytest.mark.parametrize("reading", ["sample", "between", "settle", "cost"])
def test_a_refused_read_is_an_error(results: Any, reading: str) -> None:
    assert "EPERM" in results[reading], results[reading]
    assert "BPF map" in results[reading] or "BPF program" in results[reading]


def test_arming_would_keep_the_capability(results: Any) -> None:
    assert results["works_refused"] is False


def test_the_control_fails_with_the_reason(results: Any) -> None:
    passed, detail = results["control_refused"]
    assert not passed
    assert "EPERM" in detail
