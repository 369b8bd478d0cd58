"""The report as text: what matters first, at most 80 columns, `not known` where no probe looked."""

import pytest
from msgspec.structs import replace

import builders
from kickwatch.model import ContentionRung, IpiRung, Observers
from kickwatch.report.history_text import history_text
from report_history import faulty_history, report_on


@pytest.fixture(scope="module")
def text() -> str:
    return history_text(report_on(list(faulty_history(8))))


def test_the_verdict_comes_first(text: str) -> None:
    assert text.splitlines()[0] == "VERDICT: broadcasting (creation_path_broadcasts)"


def test_no_line_is_wider_than_a_terminal(text: str) -> None:
    assert [line for line in text.splitlines() if len(line) > 80] == []
    node = replace(builders.trial().node, kernel="6.18.44-" + "x" * 90, engine="docker " + "1" * 60, boot_id="b" * 64)
    long = builders.trial(node=node)
    assert [line for line in history_text(report_on([long])).splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("title", ["ALARMS", "KERNELS", "NODE", "VERDICT OVER TIME", "ENGINES", "BOOTS", "SLAB_MUTEX"])
def test_every_table_is_there(text: str, title: str) -> None:
    assert any(line.startswith(title) for line in text.splitlines())


def test_what_is_not_known_is_not_zero() -> None:
    blind = Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE)
    text = history_text(report_on([builders.trial(observers=blind)]))
    assert "creation path: not known broadcasts per container" in text
    assert "not known: no probe attributed them" in text
    assert "waits not known: not observed, or lost" in text


def test_no_trials() -> None:
    assert "the history has no trials" in history_text(report_on([]))
