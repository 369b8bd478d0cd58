"""Logging loads no `rich` and no `greenlet`, although they are installed here and structlog would load them."""

import subprocess
import sys

import pytest


def loaded(*statements: str) -> set[str]:
    script = "; ".join(["import sys", *statements, "print(*sys.modules)"])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("package", ["rich", "greenlet"])
def test_structlog_by_itself_loads(package: str) -> None:
    """Else the hiding is no longer needed."""
    assert package in loaded("import structlog")


@pytest.mark.parametrize(
    "room", ["kickwatch.journal.journal", "kickwatch.journal.limits", "kickwatch.service.daemon", "kickwatch.cli"]
)
def test_nothing_that_the_daemon_imports_loads_them(room: str) -> None:
    modules = loaded(f"import {room}")
    assert "structlog" in modules
    assert not [name for name in modules if name.partition(".")[0] in {"rich", "markdown_it", "pygments", "greenlet"}]


def test_rich_can_be_loaded_afterwards_and_before() -> None:
    assert {"structlog", "rich.console"} <= loaded("import kickwatch.journal", "import rich.console")
    assert {"structlog", "rich.console"} <= loaded("import rich.console", "import kickwatch.journal")
