"""Broadcasts from a kernel worker, on and then off: the number of trials until the alarm, and until the recovery.

First a daemon whose containers set SO_TIMESTAMP (6 broadcasts each, by a worker) runs until it alarms. Then a daemon
with kickwatch's image runs on the same state directory until it recovers.

    usage: soak_elsewhere.py

Needs root and a Docker Engine. Exits with 1 if a promise is missed.
"""

import sys
import tempfile
from collections import Counter
from pathlib import Path

from daemon_log import daemon

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from timestamping import image

COMMON = ("trial.window_s=0.5", "trial.interval_s=0", "trial.canary_memcgs=0")
FAULTY = ("workload.containers_per_trial=23", "workload.hold_s=0.5", *COMMON)
HEALED = ("workload.containers_per_trial=4", *COMMON)
DETECTED, ENDED = "kickwatch.elsewhere_detected", "kickwatch.elsewhere_ended"
CONVICTED_WITHIN, GIVE_UP = 3, 90


def until(event: str, *settings: str) -> tuple[int, Counter[str], Counter[str]]:
    """The number of trials until the event, all events until then, and the verdicts with their reasons."""
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
    """Run with the fault, then without it."""
    with tempfile.TemporaryDirectory() as state, image() as name:
        state_setting = f"state.directory={state}"
        convicted, first, verdicts = until(DETECTED, state_setting, f"workload.image={name}", *FAULTY)
        print(f"convicted after {convicted} trials: {dict(verdicts)}, {dict(first)}", flush=True)
        recovered, second, verdicts = until(ENDED, state_setting, *HEALED)
        print(f"recovered after {recovered} trials: {dict(verdicts)}, {dict(second)}", flush=True)
    kept = first[DETECTED] == 1 and second[ENDED] == 1 and convicted <= CONVICTED_WITHIN
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
