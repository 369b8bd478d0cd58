"""Two histories side by side, on samples whose difference is known."""

from typing import Any

import pytest

import builders
from kickwatch.model import Trial
from kickwatch.report.compare import comparison
from kickwatch.report.compare_text import comparison_text
from report_history import faulty_history, report_on


def history(*, broadcasts: int = 0, count: int = 20, trials: int = 30) -> list[Trial]:
    cells = (builders.kick(broadcasts),) if broadcasts else ()
    return [builders.trial(*cells, count=count, started_unix_s=70.0 * number) for number in range(trials)]


def rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["figure"]: row for row in found["rows"]}


def test_equal_histories_do_not_differ() -> None:
    found = comparison(report_on(history()), report_on(history()), ("a", "b"))
    assert not any(row["differs"] for row in found["rows"])
    assert {row["difference"]["value"] for row in found["rows"]} == {0.0}
    assert {row["superiority"] for row in found["rows"]} == {0.5}


def test_a_known_fault_is_the_difference() -> None:
    found = comparison(report_on(history()), report_on(history(broadcasts=40)), ("a", "b"))
    row = rows(found)["creation-path broadcasts"]
    assert (row["a"]["value"], row["b"]["value"], row["difference"]["value"]) == (0.0, 2.0, 2.0)
    assert row["differs"]
    assert row["superiority"] == 1.0
    assert row["ratio"]["value"] is None  # nothing to divide by
    assert rows(found)["requests: kick_all_cpus_sync"]["difference"]["value"] == 6.0
    assert not rows(found)["create, ms"]["differs"]


def test_the_order_turns_the_sign() -> None:
    found = comparison(report_on(history(broadcasts=40)), report_on(history()), ("a", "b"))
    row = rows(found)["creation-path broadcasts"]
    assert (row["difference"]["value"], row["superiority"]) == (-2.0, 0.0)


def test_recordings_of_4_19_with_and_without_the_patch() -> None:
    records = list(faulty_history(20))
    sides = [report_on([one for one in records if one.node.kernel == name]) for name in ("4.19.1-patched", "4.19.1")]
    found = comparison(sides[0], sides[1], ("4.19.1-patched", "4.19.1"))
    assert rows(found)["creation-path broadcasts"]["differs"]
    share = found["shares"][0]
    assert (share["a"]["hits"], share["b"]["hits"], share["differs"]) == (0, share["b"]["of"], True)
    assert rows(found)["slab_mutex waits"]["a"]["value"] is None  # nothing watched them


@pytest.mark.parametrize("trials", [1, 30])
def test_the_text_fits_and_states_its_method(trials: int) -> None:
    found = comparison(report_on(history(trials=trials)), report_on(history(broadcasts=40, trials=trials)), ("a", "b"))
    text = comparison_text(found)
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert "bootstrap" in text
    assert "Clopper-Pearson" in text
    assert ("?" in text.partition("creation-path broadcasts")[2].splitlines()[0]) == (trials == 1)
