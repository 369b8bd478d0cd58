"""Makes the pictures of the report in docs/images, from the history of tests/support/report_history.py.

Run it: `python tests/browser/screenshots.py`. Needs Debian's chromium.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))  # the history

from kickwatch.report.html.page import page as html_page
from report_history import faulty_history, report_on

IMAGES = Path(__file__).parents[2] / "docs" / "images"
WIDTH = 1280
# Scheme, and which sections are shown.
PICTURES = {"report-light": ("light", None, "#broadcasts"), "report-dark": ("dark", "#evidence", "#bill")}


def main() -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory(prefix="kickwatch-report-") as directory:
        file = Path(directory) / "report.html"
        file.write_text(html_page(report_on(list(faulty_history()))))
        with sync_playwright() as engine:
            flags = ["--headless", "--no-sandbox", "--disable-gpu"]
            browser = engine.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
            for name, (scheme, first, last) in PICTURES.items():
                page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme=scheme)
                page.goto(file.as_uri())
                page.wait_for_function("document.documentElement.dataset.drawn !== undefined")
                top = page.locator(first).bounding_box()["y"] - 12 if first else 0
                bottom = page.locator(last).bounding_box()
                clip = {"x": 0, "y": top, "width": WIDTH, "height": bottom["y"] + bottom["height"] + 12 - top}
                page.screenshot(path=IMAGES / f"{name}.png", full_page=True, clip=clip)
            browser.close()


if __name__ == "__main__":
    main()
