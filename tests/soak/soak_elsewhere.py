"""Broadcasts from a worker, switched on and off: trials until the coin convicts them, and until it lets go again.

A daemon whose containers run a program that sets SO_TIMESTAMP (6 broadcasts each, by a worker) until it alerts; then a
daemon with kickwatch's own image on the same state directory until it recovers.

    usage: soak_elsewhere.py

Needs root and a Docker Engine. Exits 1 when a promise is missed.
"""

import sys
import tempfile
from collections import Counter
from pathlib import Path

from daemon_log import daemon

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from timestamping import image

COMMON = ("workload.containers_per_trial=4", "trial.window_s=0.5", "trial.interval_s=0", "trial.canary_memcgs=0")
DETECTED, ENDED = "kickwatch.elsewhere_detected", "kickwatch.elsewhere_ended"
CONVICTED_WITHIN, GIVE_UP = 45, 90  # the threshold of `stress` takes at least 39 trials


def until(event: str, *settings: str) -> tuple[int, Counter[str], Counter[str]]:
    """Trials until the event comes, all events on the way, and the verdicts with their reasons."""
    events, verdicts, trials = Counter[str](), Counter[str](), 0
    with daemon(*settings) as records:
        for record in records:
            events[record["event"]] += 1
            if record["event"] == "kickwatch.trial_finished":
                trials += 1
                verdicts[f"{record['verdict']} {' '.join(record['reasons'])}".strip()] += 1
            if record["event"] == event or trials >= GIVE_UP:
                break
    return trials, events, verdicts


def main() -> int:
    """The fault, then none."""
    with tempfile.TemporaryDirectory() as state, image() as name:
        place = f"state.directory={state}"
        convicted, first, told = until(DETECTED, place, f"workload.image={name}", "workload.hold_s=0.5", *COMMON)
        print(f"convicted after {convicted} trials: {dict(told)}, {dict(first)}", flush=True)
        recovered, second, told = until(ENDED, place, *COMMON)
        print(f"recovered after {recovered} trials: {dict(told)}, {dict(second)}", flush=True)
    kept = first[DETECTED] == 1 and second[ENDED] == 1 and convicted <= CONVICTED_WITHIN
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
