"""The screen of `trial`: no line wider than the terminal, the verdict first, the same words in each width."""

import io
import os
import re
from collections.abc import Callable

import pytest

import captures_as_trials
from builders import containers, kick, trial, wait, window, with_isolated
from kickwatch.detect.single import one_shot
from kickwatch.model import (
    ContentionRung,
    Control,
    IpiRung,
    Observers,
    Trial,
)
from kickwatch.terminal.trial_screen import ScreenView, trial_screen
from screens import judged, screen
from watching import flips, lives, paired, serial

RECORDED = captures_as_trials.trials()
CREATION = serial(3, number=12)
TRIALS: dict[str, tuple[Trial, ...]] = {
    "healthy": (serial(0, number=23),),
    "creation path": (CREATION,),
    "elsewhere, open": (serial(0, flips(138), number=23),),
    "elsewhere, proven": (paired(*[6] * 23), paired(*[6] * 23)),
    "isolated": (with_isolated(serial(3, number=12)),),
    "blind": (serial(0, observers=Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE), number=23),),
    "control failed": (serial(0, control=Control(passed=False, detail="0 of 23"), number=23),),
    "void": (serial(3, void="tracing_toggled,suspended", number=12),),
    "notes": (serial(0, notes=("a note that is long enough to need more than one line of a narrow terminal",) * 2),),
    "failures": (serial(0, containers=(*lives(3, 0), *containers(0, failed=9))),),
    "waits": (serial(0, churn=window("churn", waits=(wait(7), wait(90, holder="a holder's name"))), number=23),),
    "a burst": (trial(kick(36), concurrency=8),),
    **{f"recorded {name}": (one,) for name, one in RECORDED.items()},
}
EACH = pytest.mark.parametrize("name", TRIALS)
WIDTHS = pytest.mark.parametrize("columns", [60, 80, 200])


@EACH
@WIDTHS
@pytest.mark.parametrize("everything", [False, True])
def test_no_line_is_wider_than_the_terminal(name: str, columns: int, everything: bool) -> None:
    lines = screen(*TRIALS[name], columns=columns, everything=everything).splitlines()
    assert max(map(len, lines)) <= columns
    assert not [line for line in lines if line != line.rstrip()]


@EACH
@WIDTHS
def test_the_verdict_comes_first_and_the_next_step_last(name: str, columns: int) -> None:
    text = screen(*TRIALS[name], columns=columns)
    assert text.startswith(f"verdict: {judged(TRIALS[name]).verdict.value}")
    assert text.count("verdict: ") == 1
    last = text.rpartition("\n\n")[2]
    assert last.startswith("next: ")


@EACH
def test_the_words_are_those_of_any_width(name: str) -> None:
    """But for the columns that only a wide terminal has."""

    def words(columns: int) -> set[str]:
        text = screen(*TRIALS[name], columns=columns)
        answer, _, rest = text.partition("\nIPIs to other CPUs")
        facts = rest.partition("\nslab_mutex")[2]
        return set(" ".join([answer, facts]).replace("\\\n", " ").split())

    assert words(80) == words(200)


@EACH
def test_without_a_terminal_there_is_no_escape_code(name: str) -> None:
    assert "\x1b" not in screen(*TRIALS[name], columns=80)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def at_a_terminal(*trials: Trial, columns: int = 80) -> str:
    return trial_screen(trials, judged(trials), one_shot(trials), Terminal(), ScreenView(columns=columns))


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("COLORTERM", raising=False)


@EACH
@pytest.mark.usefixtures("colours")
def test_colours_add_nothing_to_the_words(name: str) -> None:
    shown = at_a_terminal(*TRIALS[name])
    assert "\x1b[1;3" in shown.splitlines()[0]  # bold, in the colour of the verdict
    assert re.sub(r"\x1b\[[0-9;]*m", "", shown) == screen(*TRIALS[name], columns=80)


def no_color() -> None:
    os.environ["NO_COLOR"] = "1"


def dumb() -> None:
    os.environ["TERM"] = "dumb"


@pytest.mark.parametrize("plain", [no_color, dumb])
@pytest.mark.usefixtures("colours")
def test_a_terminal_without_colours_gets_no_escape_code(
    plain: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    plain()
    assert at_a_terminal(CREATION) == screen(CREATION, columns=80)


@pytest.mark.parametrize("columns", [80, 200])
def test_what_matters_comes_first_and_the_background_in_one_line(columns: int) -> None:
    docker = RECORDED["4.19-slab-docker-unpatched: churn"]
    bill = screen(docker, columns=columns).partition("IPIs to other CPUs")[2].partition("\n\nslab_mutex")[0]
    rows = [line for line in bill.splitlines()[2:] if re.match(r" *[0-9]", line)]
    assert "kick_all_cpus_sync" in rows[0]  # the creation path, although do_drain is more frequent
    assert "do_drain" in rows[1]
    assert "background, none of it a broadcast" in rows[-1]
    assert len(rows) < len(docker.churn.cells)
    total = sum(float(row.split()[1]) for row in rows)
    everything = (
        screen(docker, columns=columns, everything=True).partition("IPIs to other CPUs")[2].partition("\n\nslab")[0]
    )
    each = [line.split() for line in everything.splitlines()[2:] if re.match(r" *[0-9.]+ +[0-9.-]+ ", line)]
    assert len(each) == len(docker.churn.cells)
    assert total == pytest.approx(sum(float(row[1]) for row in each), abs=0.02 * len(each))


def test_wide_has_calls_and_stacks_whatever_the_width() -> None:
    text = screen(CREATION, columns=80, wide=True)
    assert re.search(r"sweeps +idle/s +call chain\n", text)
    assert "kthread > worker_thread > __do_tune_cpucache > kick_all_cpus_sync" in text
    assert 80 < max(map(len, text.splitlines())) <= 160
    assert "call chain\n" not in screen(CREATION, columns=80)


def test_the_last_of_several_trials_has_the_figures() -> None:
    text = screen(*TRIALS["elsewhere, proven"])
    assert "per container, last of 2 trials; requests above the idle rate\n" in text
    assert "in 46 of 46 pairs the half with a container had more" in text


def test_own_work_is_shown_where_it_is_known() -> None:
    text = screen(CREATION, own_work="isolated CPUs 2-3: arming 132 interrupts")
    assert "own work     isolated CPUs 2-3: arming 132 interrupts\n" in text or "own work    isolated" in text
    assert "own work" not in screen(CREATION)


def test_a_long_file_name_is_not_broken() -> None:
    file = "/tmp/" + "long/" * 20 + "trial.jsonl"
    assert screen(CREATION, columns=80, recorded=file).endswith(f"    kickwatch report --bug \\\n      {file}\n")


def test_no_container_counts_and_nothing_is_per_container() -> None:
    text = screen(trial(kick(3), containers=containers(0, failed=3)))
    assert "not known" in text
    assert "failed" in text
