"""User CPU of the commands that people and scripts call often, from the start of Python to the exit.

Run: .venv/bin/python tests/benchmarks/bench_start.py. Exit status 1 where a median exceeds its budget. Python's own
start and the import of click, which no command can avoid, are measured beside them as yardsticks. Bytecode is cached in
a directory of this run, as pip caches it on a node.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from spread import spread

from kickwatch.cli import COMMANDS as NAMES

ROUNDS = 15
BUDGET_S = 0.25
CONFIG = Path(__file__).parents[2] / "deploy/kickwatch.toml"
YARDSTICKS = {"python -c pass": ["-c", "pass"], "python -c 'import click'": ["-c", "import click"]}
# `status` may end with any of its statuses: whether a daemon runs here is not the question.
HELP = {f"kickwatch {name} --help": ([name, "--help"], {0}) for name in NAMES}
COMMANDS = {
    "kickwatch --help": (["--help"], {0}),
    "kickwatch status": (["status"], {0, 1, 3, 4}),
    "kickwatch watch --once": (["watch", "--once"], {0, 1, 3, 4}),
    "kickwatch check-config": (["check-config", str(CONFIG)], {0}),
    **HELP,
}


def user_s(words: list[str], environment: dict[str, str], expected: set[int]) -> float:
    """User CPU seconds of one run of Python, its children included. Raises SystemExit on an unexpected status."""
    command = [sys.executable, *words]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        errors = process.stderr.read().decode(errors="replace")
        _, wait_status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(wait_status)
    if process.returncode not in expected:
        sys.exit(f"{' '.join(command)}: exit status {process.returncode}: {errors}")
    return usage.ru_utime


def measured() -> dict[str, list[float]]:
    """Seconds of each, interleaved round by round; a first round that fills the cache is left out."""
    runs = {name: (words, {0}) for name, words in YARDSTICKS.items()}
    runs |= {name: (["-m", "kickwatch", *words], statuses) for name, (words, statuses) in COMMANDS.items()}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    with tempfile.TemporaryDirectory() as cache:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = cache
        for number in range(ROUNDS + 1):
            for name, (words, statuses) in runs.items():
                seconds = user_s(words, environment, statuses)
                if number:
                    taken[name].append(seconds)
    return taken


def main() -> int:
    """Print min / median / max of each; 1 where a command exceeds the budget."""
    spreads = {name: spread(taken) for name, taken in measured().items()}
    click.echo(f"user CPU in {ROUNDS} runs, interleaved; min / median / max, s; budget {BUDGET_S} s")
    over = []
    for name, figures in spreads.items():
        exceeds = name in COMMANDS and figures[1] > BUDGET_S
        over += [name] * exceeds
        click.echo(f"  {name:33s}" + " / ".join(f"{figure:.3f}" for figure in figures) + ": OVER" * exceeds)
    return int(bool(over))


if __name__ == "__main__":
    sys.exit(main())
