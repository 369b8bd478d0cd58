"""Wait until the running daemon is fit: `gate.py control|verdict SECONDS`. Prints one line; exit status 0 or 1.

`control`: its probes have counted the positive control exactly. `verdict`: it has also reached one, and it is not
`broadcasting`. Python 3.11, no other part of kickwatch: the daemon may be of another version.
"""

import json
import subprocess
import sys
import time

FIT = ("quiet", "contended")
POLL_S = 1.0
LATE_S = 20.0  # the daemon writes its status every 5 s


def seen() -> dict:
    """The status of the daemon, or {"why": ...} if none runs."""
    done = subprocess.run(
        ["/opt/kickwatch/bin/kickwatch", "status", "--json"], capture_output=True, text=True, check=False
    )
    try:
        return json.loads(done.stdout)
    except ValueError:
        return {"why": done.stderr.strip() or f"kickwatch status ended with {done.returncode}"}


def judged(kind: str, status: dict) -> tuple[bool | None, str]:
    """(whether it is fit, None while that is open; why)."""
    if "why" in status:
        return None, status["why"]
    late_s = time.time() - status.get("updated_unix_s", 0.0)
    if late_s > LATE_S:
        return None, f"no news from the daemon for {late_s:.0f} s"
    condition = status["condition"]
    reasons = ", ".join(status.get("reasons", ()))
    text = f"positive control {'passed' if status.get('control_passed') else 'not passed'}, {condition}" + (
        f" ({reasons})" if reasons else ""
    )
    if condition == "broadcasting":
        return False, text
    if not status.get("control_passed"):
        return None, text
    if kind == "control" or condition in FIT:
        return True, text
    return None, text


def main() -> int:
    kind, seconds = sys.argv[1], float(sys.argv[2])
    ends = time.monotonic() + seconds
    while True:
        fit, why = judged(kind, seen())
        if fit is not None or time.monotonic() >= ends:
            break
        time.sleep(POLL_S)
    print(why if fit is not None else f"not decided within {seconds:g} s: {why}")
    return 0 if fit else 1


sys.exit(main())
