"""Sphinx: Markdown by MyST, theme furo. Writes the generated pages first, so that a build always shows today's code."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402 -- beside this file

from kickwatch import __version__  # noqa: E402

generate.write(generate.pages(), HERE / "generated")

project = "kickwatch"
version = release = __version__
extensions = ["myst_parser"]
exclude_patterns = ["generators"]
nitpicky = True
highlight_language = "none"
myst_heading_anchors = 4
myst_links_external_new_tab = False

html_theme = "furo"
html_title = f"kickwatch {release}"
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]
