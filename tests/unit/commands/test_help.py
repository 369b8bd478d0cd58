"""`kickwatch --help` at a terminal of 80 columns: whole lines, and no command is loaded to be listed."""

import subprocess
import sys

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


def test_listing_them_loads_none() -> None:
    script = (
        "import sys; from kickwatch.cli import cli; cli(['--help'], standalone_mode=False); print(sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1]
    for module in ("docker", "prometheus_client", "kickwatch.detect", "kickwatch.service", "kickwatch.observe"):
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
