"""`kickwatch --help` at a terminal of 80 columns: whole lines, and no command is loaded to be listed."""

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from kickwatch.cli import COMMANDS, cli


def test_every_command_has_one_whole_line() -> None:
    shown = CliRunner().invoke(cli, ["--help"], terminal_width=80).output
    for name, (_, line) in COMMANDS.items():
        assert any(row.split() == [name, *line.split()] for row in shown.splitlines()), f"{name} in {shown}"
    assert not [row for row in shown.splitlines() if row.endswith("...") and "Usage" not in row]


def test_every_command_is_there_and_explains_itself() -> None:
    for name in COMMANDS:
        done = CliRunner().invoke(cli, [name, "--help"])
        assert done.exit_code == 0, done.output
        assert f"Usage: cli {name}" in done.output


EACH = pytest.mark.parametrize("name", COMMANDS)
HEAVY = ("docker", "requests", "rich", "prometheus_client", "aiofiles", "altair", "kickwatch.service.daemon")


@EACH
def test_help_has_two_examples_that_fit_80_columns(name: str) -> None:
    shown = CliRunner().invoke(cli, [name, "--help"], terminal_width=80, max_content_width=80).output
    assert max(map(len, shown.splitlines())) <= 80
    _, _, examples = shown.partition("Examples:\n")
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    assert len(lines) >= 2
    for line in lines:
        assert line.split()[:2] == ["kickwatch", name]


@EACH
def test_the_examples_name_options_that_exist(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    _, _, examples = (command.epilog or "").partition("Examples:\n")
    lines = [line.partition("|")[0].partition(">")[0] for line in examples.splitlines()]
    used = {word for line in lines for word in line.split() if word.startswith("-") and word != "-"}
    assert used <= known


@EACH
def test_help_loads_nothing_that_takes_time(name: str) -> None:
    """So that it is there within 0.3 s; tests/benchmarks/bench_start.py measures that."""
    arguments = f"['{name}', '--help']"
    script = f"import sys; from kickwatch.cli import cli; cli({arguments}, standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(done.stdout.splitlines()[-1].split())


def test_listing_them_loads_none() -> None:
    script = (
        "import sys; from kickwatch.cli import cli; cli(['--help'], standalone_mode=False); print(sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1]
    for module in ("docker", "prometheus_client", "rich", "kickwatch.detect", "kickwatch.service", "kickwatch.observe"):
        assert f"'{module}'" not in loaded


def test_watch_explains_itself_with_examples_and_loads_nothing_that_draws() -> None:
    script = (
        "import sys; from kickwatch.cli import cli; cli(['watch', '--help'], standalone_mode=False);"
        " print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *shown, loaded = done.stdout.splitlines()
    assert sum(line.strip().startswith("kickwatch watch") for line in shown) >= 2, shown
    assert not [name for name in loaded.split() if name.partition(".")[0] in {"rich", "docker", "prometheus_client"}]
