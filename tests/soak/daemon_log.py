"""Start `kickwatch run` and read its log; shared by the soak scripts."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ALERTS = (
    "kickwatch.broadcast_detected",
    "kickwatch.contention_detected",
    "kickwatch.elsewhere_detected",
    "kickwatch.isolation_broken",
    "kickwatch.observer_blind",
)


@contextmanager
def daemon(*settings: str) -> Iterator[Iterator[dict[str, Any]]]:
    """Yields the records of a daemon's log as they arrive; at the end the daemon is stopped, which must succeed."""
    always = ("log.format=json", "budget.preset=stress", "guard.enabled=false", "metrics.enabled=false")
    words = [word for setting in (*always, *settings) for word in ("--set", setting)]
    process = subprocess.Popen([sys.executable, "-m", "kickwatch", "run", *words], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        yield (json.loads(line) for line in process.stderr if line.startswith("{"))
    finally:
        process.terminate()
        process.stderr.read()
        process.stderr.close()
        if process.wait() != 0:
            sys.exit(f"the daemon ended with status {process.returncode}")
