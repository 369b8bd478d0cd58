"""The documentation builds without a warning, from the command on the page, and every page is in it."""

import re
import subprocess

import pytest

from doc_blocks import PAGES, ROOT

SITE = ROOT / "build/docs"


@pytest.mark.long
@pytest.mark.timeout(400)
def test_the_site_builds_without_a_warning() -> None:
    """The generator is installed by the command itself, from the package index, if it is not there."""
    built = subprocess.run(["make", "docs"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    for page in PAGES:
        if page.is_relative_to(ROOT / "docs"):
            assert (SITE / page.relative_to(ROOT / "docs")).with_suffix(".html").is_file(), page
    assert (SITE / "generated/commands/kickwatch-trial.html").is_file()
    loaded = re.findall(
        r'<(?:script|link rel="stylesheet")[^>]*(?:src|href)="([^"]*)"', (SITE / "index.html").read_text()
    )
    assert loaded
    assert not [address for address in loaded if "//" in address], "the site must work without a network"
