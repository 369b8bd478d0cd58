"""The report in a real browser: every plot drawn, figures equal to the history's, accessible, light and dark.

Debian's chromium, headless, through playwright; axe-core checks accessibility. Nothing is loaded from a network: the
page is opened as a file, and a request that leaves it fails the test.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from kickwatch.commands.report import collected
from kickwatch.configuration.types import Config
from kickwatch.report.compare import comparison
from kickwatch.report.html.compare_page import compare_page
from kickwatch.report.html.page import page as html_page
from report_history import faulty_history, report_on, store
from slowness import SLOWNESS

pytestmark = [pytest.mark.browser, pytest.mark.long, pytest.mark.timeout(300)]

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run"),
)
WIDE, NARROW = 1280, 400
WAIT_MS = 90_000 * SLOWNESS
READY = "document.documentElement.dataset.drawn !== undefined"


class Opened:
    """A page, and what went wrong on it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.troubles: list[str] = []
        page.on("console", lambda message: self.troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("request", self._asked)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("file:", "blob:", "data:")):
            self.troubles.append(f"asks the network for {request.url}")


@pytest.fixture(scope="module")
def browser(file: Path, compared: Path) -> Iterator[Browser]:
    """Started after the files were written: playwright keeps an event loop running, where kickwatch may not block."""
    with sync_playwright() as engine:
        program = shutil.which("chromium")
        started = engine.chromium.launch(executable_path=program, args=list(FLAGS), timeout=WAIT_MS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report on a state directory with a fault and kernel changes."""
    directory = tmp_path_factory.mktemp("state")
    store(directory, faulty_history(30))
    return collected(directory, Config())


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, found: dict[str, Any]) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(html_page(found))
    return path


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ("4.19.1-patched", "4.19.1")
    records = list(faulty_history(20))
    sides = [report_on([one for one in records if one.node.kernel == name]) for name in names]
    path = tmp_path_factory.mktemp("compared") / "compare.html"
    path.write_text(compare_page(comparison(sides[0], sides[1], names)))
    return path


@contextmanager
def opened(browser: Browser, file: Path, *, width: int = WIDE, scheme: str = "light") -> Iterator[Opened]:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    context.set_default_timeout(WAIT_MS)
    try:
        shown = Opened(context.new_page())
        shown.page.goto(file.as_uri())
        shown.page.wait_for_function(READY)
        yield shown
    finally:
        context.close()


def numbers(page: Page, section: str) -> list[list[str]]:
    """The cells of a section's table, without the thousands' commas."""
    script = "rows => rows.map(row => [...row.cells].map(cell => cell.textContent.replaceAll(',', '')))"
    return page.locator(f"#{section} tbody tr").evaluate_all(script)  # type: ignore[no-any-return]


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_plot_is_drawn_and_nothing_is_wrong(browser: Browser, file: Path, width: int, scheme: str) -> None:
    with opened(browser, file, width=width, scheme=scheme) as shown:
        page = shown.page
        assert page.evaluate("document.documentElement.dataset.drawn") == "11"
        marks = page.locator(".plot").evaluate_all(
            "plots => plots.map(plot => plot.querySelectorAll('svg .mark-rect path, svg .mark-symbol path').length)"
        )
        assert all(count > 0 for count in marks), marks
        # nothing sticks out of the page to the right, and no plot is wider than its place
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert shown.troubles == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(browser: Browser, file: Path, scheme: str) -> None:
    with opened(browser, file, scheme=scheme) as shown:
        if scheme == "light":  # once is enough for the tables, which take most of the time
            shown.page.get_by_role("button", name="Show all tables").click()
        results = Axe().run(shown.page)
        assert results.violations_count == 0, results.generate_report()
        assert len(results.response["passes"]) > 20


def test_the_figures_are_the_historys(browser: Browser, file: Path) -> None:
    records = list(faulty_history(30))
    lives = [life for one in records for life in one.containers]
    with opened(browser, file) as shown:
        page = shown.page
        cards = page.locator(".card dd").all_inner_texts()
        assert [re.sub(r"\D.*", "", card.replace(",", ""), flags=re.DOTALL) for card in cards[:2]] == [
            str(len(records)),
            str(len(lives)),
        ]
        bill = {tuple(row[1:4]): row for row in numbers(page, "bill")}
        own = [
            cell
            for one in records
            for cell in one.churn.cells
            if (cell.reason, cell.origin, cell.path) == ("kick_all_cpus_sync", "slab", "create")
        ]
        row = bill["kick_all_cpus_sync", "slab", "create"]
        assert row[0] == "yes"
        assert [int(cell) for cell in row[6:9]] == [
            sum(cell.requests for cell in own),
            sum(cell.calls for cell in own),
            sum(cell.broadcasts for cell in own),
        ]
        kernels = {row[0]: row for row in numbers(page, "kernels")}
        for name, shown_row in kernels.items():
            mine = [one for one in records if one.node.kernel == name]
            assert int(shown_row[1]) == len(mine)
            assert int(shown_row[3]) == sum(len(one.containers) for one in mine)


def test_the_plots_have_the_figures_of_the_data(browser: Browser, file: Path, found: dict[str, Any]) -> None:
    """The rectangles that were drawn, as Vega describes them, against the report's own figures."""
    with opened(browser, file) as shown:
        page = shown.page
        data = json.loads(page.locator("#kickwatch-data").text_content() or "")
        assert data == json.loads(json.dumps(found))
        heights = page.locator("#plot-broadcasts .mark-rect path").evaluate_all(
            "paths => paths.map(path => path.getBBox().height)"
        )
        expected = [
            one[name]
            for one in found["bins"]
            for name in ("creation_path_broadcasts_per_container", "other_broadcasts_per_container")
        ]
        assert len(heights) == len(expected)
        scale = max(heights) / max(expected)
        assert all(abs(height - each * scale) < 1.0 for height, each in zip(heights, expected, strict=True))


def test_keyboard_alone(browser: Browser, file: Path) -> None:
    with opened(browser, file) as shown:
        page = shown.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        seen = []
        for _ in range(60):
            page.keyboard.press("Tab")
            seen.append(page.evaluate("document.activeElement.tagName"))
        assert {"SUMMARY", "BUTTON", "DIV"} <= set(seen)  # tables to open, to copy, to scroll
        page.locator("#timeline summary").focus()
        page.keyboard.press("Enter")
        assert page.locator("#timeline table").is_visible()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "copy"
        page.keyboard.press("Enter")
        page.wait_for_function("document.getElementById('announced').textContent === 'The table was copied.'")


def test_the_switch_turns_light_to_dark_and_print_is_light(browser: Browser, file: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, file) as shown:
        page = shown.page
        switch = page.get_by_role("button", name="Dark theme")
        assert switch.get_attribute("aria-pressed") == "false"
        light = page.evaluate(ground)
        label = page.locator("#plot-evidence .mark-text.role-axis-label text").first
        before = label.evaluate("text => getComputedStyle(text).fill")
        switch.press("Enter")
        assert switch.get_attribute("aria-pressed") == "true"
        assert page.evaluate(ground) != light
        assert label.evaluate("text => getComputedStyle(text).fill") != before  # plots follow without being drawn again
        page.emulate_media(media="print")
        assert page.evaluate(ground) == "rgb(255, 255, 255)"
        assert not page.locator("nav").is_visible()


def test_a_comparison(browser: Browser, compared: Path) -> None:
    with opened(browser, compared) as shown:
        assert shown.page.evaluate("document.documentElement.dataset.drawn") == "1"
        assert Axe().run(shown.page).violations_count == 0
        assert shown.troubles == []
