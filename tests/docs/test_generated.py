"""What is made from the code: every command, key, metric, reason and event has its place, and roff is clean."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from doc_blocks import ROOT
from kickwatch.attribution.reasons import REASONS
from kickwatch.cli import COMMANDS
from kickwatch.configuration.loading import known_keys
from kickwatch.journal.events import Event
from kickwatch.outlets.metrics.registry import Metrics


def made(kind: str, directory: Path) -> dict[str, str]:
    """What `docs/generate.py` writes, by path."""
    subprocess.run([sys.executable, ROOT / "docs/generate.py", kind, directory], check=True)
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return made("pages", tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module")
def man(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return made("man", tmp_path_factory.mktemp("man"))


def test_every_command_has_a_page_of_each_kind(pages: dict[str, str], man: dict[str, str]) -> None:
    for name, (_, summary) in COMMANDS.items():
        assert f"| [`kickwatch {name}`](kickwatch-{name}.md) | {summary} |" in pages["commands/index.md"]
        assert "`--help`" in pages[f"commands/kickwatch-{name}.md"]
        assert r"\-\-help" in man[f"man1/kickwatch-{name}.1"]
        escaped = name.replace("-", r"\-")
        assert rf".BR kickwatch\-{escaped} (1)" in man["man1/kickwatch.1"]


def test_every_key_of_the_configuration_is_on_both(pages: dict[str, str], man: dict[str, str]) -> None:
    for key in known_keys():
        name = key.partition(".")[2]
        assert f"| `{name}` | `" in pages["configuration.md"]
        assert f".B {name} = " in man["man5/kickwatch.toml.5"]
    assert ": a number" not in pages["configuration.md"]


def test_every_metric_reason_and_event_has_a_row(pages: dict[str, str]) -> None:
    for family in Metrics("0").registry.collect():
        assert f"| `{family.name}" in pages["metrics.md"]
    for reason in REASONS:
        assert f"| `{reason.name}` |" in pages["reasons.md"]
    for event in Event:
        assert f"## `{event}`" in pages["schema.md"]


def test_every_machine_of_the_atlas_has_its_rows(pages: dict[str, str]) -> None:
    machines = json.loads((ROOT / "docs/atlas.json").read_text())["machines"]
    assert len(machines) >= 10
    for machine in machines:
        assert pages["atlas.md"].count(f"| {machine['machine']} |") >= 2
        if machine["requests"] is None:
            start = f"| {machine['machine']} | {machine['runtime']} |"
            (row,) = [line for line in pages["atlas.md"].splitlines() if line.startswith(start)]
            assert "not known" in row


def test_a_second_run_removes_what_is_no_longer_made(tmp_path: Path) -> None:
    stale = tmp_path / "man1" / "kickwatch-gone.1"
    stale.parent.mkdir()
    stale.write_text("")
    made("man", tmp_path)
    assert not stale.exists()


def test_groff_has_nothing_to_warn_about(man: dict[str, str]) -> None:
    for name, text in man.items():
        checked = subprocess.run(
            ["groff", "-man", "-Tutf8", "-ww", "-z"], input=text, capture_output=True, text=True, check=True
        )
        assert checked.stderr == "", name
