"""Cost of a report on a long history: time, memory and size of the HTML file for 100,000 trials.

Run it: `python tests/benchmarks/bench_report.py [TRIALS]`. Each trial is a real one, 20 containers on Linux 6.18 with
all their cells and stacks; some have a broadcast. It fails at 30 s of CPU, 400 MiB or 3 MiB of HTML. Needs the extra
`report`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from time import perf_counter

import click

sys.path.insert(0, str(Path(__file__).parent))

from bench_replay import TRIALS, keep_all

from kickwatch.history.history import History, Retention

LIMIT_S = 30.0
MOST_MIB = 400.0
MOST_FILE_MIB = 3.0
# The peak is the process's own: what wait4 tells includes that of the process it was forked from.
REPORT = """
import atexit, sys
from pathlib import Path
from kickwatch.commands.report import report
atexit.register(lambda: sys.stderr.write(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]))
report()
"""


def reported(path: Path, html: Path) -> tuple[float, float, float]:
    """Seconds, seconds of CPU and MiB of `kickwatch report --html`, in a process of its own."""
    before, begin = getrusage(RUSAGE_CHILDREN), perf_counter()
    command = [sys.executable, "-c", REPORT, "--html", str(html), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"report failed: {done.stdout[-500:]} {done.stderr}")
    after = getrusage(RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return perf_counter() - begin, cpu_s, int(done.stderr) / 1024.0


def main() -> int:
    """Print the figures; 1 if a limit is exceeded."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else TRIALS
    with tempfile.TemporaryDirectory(prefix="kickwatch-bench-") as directory:
        history, html = History(Path(directory), Retention(age_s=1e12, size_bytes=1 << 50)), Path(directory) / "r.html"
        begin = perf_counter()
        keep_all(history, count)
        click.echo(f"made {count} trials in {perf_counter() - begin:.0f} s, {history.path.stat().st_size >> 20} MiB")
        seconds, cpu_s, mib = reported(history.path, html)
        file_mib = html.stat().st_size / 2**20
    click.echo(f"report --html of {count} trials: {cpu_s:.1f} s of CPU, {seconds:.1f} s in all, {mib:.0f} MiB")
    click.echo(f"the file: {file_mib:.2f} MiB")
    too_slow = cpu_s * TRIALS / count >= LIMIT_S  # elapsed time would measure what else runs here
    return int(too_slow or mib >= MOST_MIB or file_mib >= MOST_FILE_MIB)


if __name__ == "__main__":
    sys.exit(main())
