"""DETECTION.md's table of streams says what the code does."""

from pathlib import Path

from kickwatch.detect.monitor import RELATIVE, Monitor
from kickwatch.detect.rates import Pace
from kickwatch.detect.streams import CONDITION_OF, SWAPPED, Name, allowance_of
from kickwatch.model import AlarmKind

PAGE = Path(__file__).parents[3] / "DETECTION.md"
HEAD = "| stream | hears | one observation per | allowance | clip | alarm |"


def rows() -> dict[str, list[str]]:
    """The table's cells by stream."""
    lines = PAGE.read_text(encoding="utf-8").split(f"{HEAD}\n")[1].splitlines()[1:]
    table = [line for line in lines[: lines.index("")] if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_every_stream_has_a_row_and_no_other() -> None:
    assert list(rows()) == [*(name.value for name in Name), RELATIVE]
    assert list(rows()) == [share.name for share in Monitor(Pace(23, 1380.0)).shares]


def test_allowances_clips_and_alarms_are_those_of_the_code() -> None:
    for name in Name:
        _, _, allowed, clip, alarm = rows()[name.value]
        assert alarm == CONDITION_OF[name].value
        if name in SWAPPED:
            assert (allowed, clip) == ("a coin", "1")
        else:
            allowance = allowance_of(name)
            assert (float(allowed), float(clip)) == (allowance.mean, allowance.clip)
    assert rows()[RELATIVE][-1] == AlarmKind.REGRESSED.value


def test_the_default_thresholds_are_those_of_the_code() -> None:
    thresholds = {share.name: share.threshold for share in Monitor(Pace(23, 1380.0)).shares}
    page = PAGE.read_text(encoding="utf-8")
    shown = [f"{thresholds[name]:.1e}".replace("+0", "") for name in ("attributed", RELATIVE, "elsewhere")]
    cells = f"{shown[1]} for each of the 32 cells that\n*relative* watches at most"
    assert f"A is {shown[0]} for *attributed*, {cells}, and {shown[2]} for the others" in page
