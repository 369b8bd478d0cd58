"""The page as a file: self-contained, small, a table for every plot, the exact data. `tests/browser` draws it."""

import json
import re
import sys
from html.parser import HTMLParser
from typing import Any

import pytest
from msgspec.structs import replace

import builders
from kickwatch.errors import KickwatchError
from kickwatch.model import ContentionRung, IpiRung, Observers, Origin
from kickwatch.report.compare import comparison
from kickwatch.report.html import page as pages
from kickwatch.report.html.compare_page import compare_page
from report_history import faulty_history, report_on

MOST_BYTES = 3 * 1024 * 1024


class Elements(HTMLParser):
    """Which elements a page has, and what they load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.loads += [
            value or "" for name, value in attrs if name in {"src", "srcset"} or (name, tag) == ("href", "link")
        ]


def elements(page: str) -> Elements:
    parsed = Elements()
    parsed.feed(page)
    return parsed


def embedded(page: str, ident: str) -> Any:
    return json.loads(re.search(rf'id="{ident}">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return report_on(list(faulty_history(8)))


@pytest.fixture(scope="module")
def page(found: dict[str, Any]) -> str:
    return pages.page(found)


def test_it_needs_no_network(page: str) -> None:
    assert elements(page).loads == []
    assert "@import" not in page
    assert len(page.encode()) < MOST_BYTES


def test_it_has_the_exact_data(page: str, found: dict[str, Any]) -> None:
    assert embedded(page, "kickwatch-data") == json.loads(json.dumps(found))


def test_every_plot_has_a_place_and_a_table(page: str) -> None:
    parsed = elements(page)
    names = embedded(page, "kickwatch-plots").keys()
    assert len(names) == 11
    assert {f"plot-{name}" for name in names} <= set(parsed.ids)
    assert parsed.tags.count("table") >= len(names) + 4
    assert len(parsed.ids) == len(set(parsed.ids))


def test_words_of_a_record_are_no_markup() -> None:
    evil = "</script><script>alert(1)</script><!--{{DATA}}"
    one = builders.trial(node=replace(builders.trial().node, kernel=evil, engine=evil))
    shown = pages.page(report_on([one]))
    assert evil not in shown
    assert elements(shown).tags.count("script") == 4
    assert embedded(shown, "kickwatch-data")["kernels"][0]["kernel"] == evil


def test_nothing_known_is_a_page_too() -> None:
    blind = Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE)
    shown = pages.page(report_on([builders.trial(observers=blind)]))
    assert shown.count("Not known: no probe") >= 4
    assert "no trials" in pages.page(report_on([]))


@pytest.mark.long
def test_a_large_machine_with_a_wild_history_stays_small() -> None:
    """512 CPUs, another kernel, boot and engine with every trial, thousands of stacks."""
    node = replace(builders.trial().node, cpus_online=512)
    records = []
    for number in range(600):
        cells = tuple(
            replace(
                builders.kick(40 + each),
                origin=Origin.SLAB,
                reason=f"function_with_a_long_name_{each % 30}",
                stack=tuple(f"frame_{number % 50}_{each}_{depth}_of_the_kernel" for depth in range(30)),
            )
            for each in range(40)
        )
        churn = builders.window("churn", *cells, per_cpu=tuple(range(512)))
        quiet = builders.window("quiet", per_cpu=(0,) * 512)
        place = replace(
            node, kernel=f"6.{number}.0-a-long-name-amd64", boot_id=f"boot {number}", engine=f"docker {number}"
        )
        records.append(builders.trial(node=place, churn=churn, quiet=quiet, started_unix_s=9000.0 * number))
    assert len(pages.page(report_on(records)).encode()) < MOST_BYTES


def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    pages.vega_bundle.cache_clear()
    with pytest.raises(KickwatchError) as raised:
        pages.page(found)
    assert str(raised.value) == "plots need the extra `report`: pip install 'kickwatch[report]'"
    assert raised.value.exit_status == 1


def test_a_comparison_is_a_page(found: dict[str, Any]) -> None:
    shown = compare_page(comparison(found, found, ("A <b>", "B")))
    assert elements(shown).loads == []
    assert "A <b>" not in shown
    assert embedded(shown, "kickwatch-data")["rows"]
    assert embedded(shown, "kickwatch-plots")["ratios"]["layer"]
