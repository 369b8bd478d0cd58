"""Every package that `deploy/setup` installs is in the table of docs/howto/roll-out.md."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_table_names_every_package() -> None:
    """It lacked busybox, udev, the compiler for arm64, runsc, plugins and fonts."""
    setup = (ROOT / "deploy/setup").read_text(encoding="utf-8")
    functions = re.findall(r"^missing_\w+\(\) \{\n(.*?)^\}", setup, re.MULTILINE | re.DOTALL)
    packages = {name for function in functions for name in re.findall(r"\|\| echo (\S+)", function)}
    assert packages >= {"gcc", "crun", "qemu-system-arm"}
    page = (ROOT / "docs/howto/roll-out.md").read_text(encoding="utf-8")
    table = {word for line in page.splitlines() if line.startswith("| `make ") for word in re.split(r"[ ,;()|]+", line)}
    assert packages - table == set()
