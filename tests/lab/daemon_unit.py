"""The daemon in a guest in a separate unit, as a service would run, with short trials without a pause."""

import json
from typing import Any

from bench import ENGINE

LOG = "/run/watch.log"
UNIT = "watch"
_KEYS = (
    *("workload.containers_per_trial=2", "trial.window_s=0.5", "trial.settle_s=3", "trial.interval_s=0"),
    *("trial.canary_memcgs=0", "budget.preset=stress", "guard.enabled=false", "metrics.enabled=false"),
)


def start(trials: int, *more: str) -> str:
    """A script that starts it for `trials` trials with the log LOG. `more`: further configuration keys."""
    sets = " ".join((*ENGINE, "--set log.format=json", *(f"--set {key}" for key in (*_KEYS, *more))))
    return f"""rm -f {LOG}; touch {LOG}
        systemd-run --quiet --collect --unit={UNIT} --property=StandardError=file:{LOG} \\
        /usr/local/bin/kickwatch run --trials {trials} {sets}"""


def records(log: str) -> list[dict[str, Any]]:
    """The records of a log, in order."""
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]
