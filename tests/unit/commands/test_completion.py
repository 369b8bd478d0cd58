"""Shell completion: what a shell runs and what it gets, without loading a command to list them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from kickwatch.cli import COMMANDS, cli
from kickwatch.commands.completion import SHELLS, VARIABLE

PROGRAM = "from kickwatch.cli import main; main()"


def completed(words: str, position: int) -> list[str]:
    """What bash gets for a line of words, the cursor at one of them."""
    environment = {**os.environ, VARIABLE: "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=True, timeout=60
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_commands_and_options_are_completed() -> None:
    assert completed("kickwatch ", 1) == list(COMMANDS)
    assert completed("kickwatch re", 1) == [name for name in COMMANDS if name.startswith("re")]
    assert completed("kickwatch trial --until", 2) == ["--until-decided"]
    assert completed("kickwatch completion ", 2) == list(SHELLS)
    assert "--help" in completed("kickwatch --", 1)


def test_listing_the_commands_loads_none() -> None:
    script = f"import atexit, sys; atexit.register(lambda: print(*sys.modules)); {PROGRAM}"
    environment = {**os.environ, VARIABLE: "bash_complete", "COMP_WORDS": "kickwatch ", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True, timeout=60
    )
    assert not [name for name in done.stdout.splitlines()[-1].split() if name.startswith("kickwatch.commands.t")]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_one_that_the_shell_reads(shell: str, tmp_path: Path) -> None:
    script = CliRunner().invoke(cli, ["completion", shell]).output
    assert f"{VARIABLE}={shell}_complete" in script
    assert shutil.which(shell), f"deploy/setup test-packages installs {shell}"
    file = tmp_path / "script"
    file.write_text(script, encoding="utf-8")
    flag = "--no-execute" if shell == "fish" else "-n"
    assert subprocess.run([shell, flag, file], check=False, capture_output=True).returncode == 0


def test_bash_completes_with_it(tmp_path: Path) -> None:
    """As when somebody presses Tab: the function that the script installs, with bash's variables."""
    program = tmp_path / "kickwatch"
    program.write_text(f"#!{sys.executable}\n{PROGRAM}\n", encoding="utf-8")
    program.chmod(0o755)
    line = (
        f"source <({program} completion bash); COMP_WORDS=(kickwatch tri); COMP_CWORD=1;"
        f" _kickwatch_completion {program} tri kickwatch; echo ${{COMPREPLY[@]}}"
    )
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["trial"]


def test_an_unknown_shell_is_a_usage_error() -> None:
    assert CliRunner().invoke(cli, ["completion", "tcsh"]).exit_code == 2
