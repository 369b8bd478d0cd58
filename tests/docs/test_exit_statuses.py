"""The page of exit statuses says what the commands do."""

import re

import pytest

from doc_blocks import ROOT
from kickwatch.cli import COMMANDS
from kickwatch.commands.common import BISECT_STATUS, EXIT_STATUS
from kickwatch.commands.doctor import BLIND_STATUS
from kickwatch.commands.status import EXIT_STATUS as STATUS_OF_CONDITION

HEAD = ("command", "0", "3", "4", "other")


def rows() -> dict[str, dict[str, str]]:
    """The cells of each command's row by exit status."""
    text = (ROOT / "docs/exit-statuses.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert tuple(cells[0]) == HEAD
    return {
        row[0].strip("`").removeprefix("kickwatch "): dict(zip(HEAD[1:], row[1:], strict=True)) for row in cells[1:]
    }


def test_every_row_is_a_command() -> None:
    assert {name.partition(" ")[0] for name in rows()} <= set(COMMANDS)
    assert len(rows()) >= 9


@pytest.mark.parametrize("command", ["trial", "replay"])
def test_a_verdict_is_in_the_column_of_its_status(command: str) -> None:
    for verdict, status in EXIT_STATUS.items():
        assert rows()[command][str(status)].startswith(verdict)


def test_a_condition_is_in_the_column_of_its_status() -> None:
    for condition, status in STATUS_OF_CONDITION.items():
        assert condition in rows()["status"][str(status)]


def test_bisect_and_blind() -> None:
    row = rows()["trial --bisect"]
    words = {
        "quiet": row["0"],
        **dict(reversed(pair.split(" ", 1)) for pair in re.findall(r"\d+ [a-z ]+", row["other"])),
    }
    assert words["quiet"] == "quiet"
    assert {verdict.value: status for verdict, status in BISECT_STATUS.items()} == {
        "quiet": 0,
        "broadcasting": int(words["broadcasting"]),
        "unknown": int(words["cannot tell"]),
    }
    assert rows()["doctor"][str(BLIND_STATUS)] == "blind"
