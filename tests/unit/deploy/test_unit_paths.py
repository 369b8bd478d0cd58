"""Units, drop-ins and those in the documents: a path that may be missing must not stop the service (226/NAMESPACE)."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
FILES = (
    *sorted((ROOT / "systemd").iterdir()),
    *sorted((ROOT / "docs").rglob("*.md")),
    *(path for path in sorted((ROOT / "deploy").rglob("*")) if path.suffix in {".md", ".yml", ".conf", ".service"}),
    ROOT / "README.md",
    ROOT / "deploy/install",
)
PATHS = re.compile(r"^\s*(?:ReadWrite|ReadOnly|Inaccessible|Exec|NoExec|BindReadOnly|Bind)Paths=(.*)$", re.MULTILINE)
# Where no `-` is needed: what the kernel and systemd make, and StateDirectory= and RuntimeDirectory= of the unit.
PRESENT = {
    "/sys",
    "/sys/fs/cgroup",
    "/proc/sys",
    "/tmp",
    "/var/tmp",
    "/dev/shm",
    "/run/kickwatch",
    "/var/lib/kickwatch",
}


def needed(text: str) -> Iterator[str]:
    """The paths without which systemd would not start the service."""
    for line in PATHS.findall(text):
        yield from (path for path in line.split() if not path.startswith("-"))


def test_a_path_that_may_be_missing_has_a_dash() -> None:
    found = {str(file.relative_to(ROOT)): set(needed(file.read_text(encoding="utf-8"))) - PRESENT for file in FILES}
    assert {file: paths for file, paths in found.items() if paths} == {}


def test_the_directories_without_a_dash_are_made_by_the_unit() -> None:
    unit = (ROOT / "systemd/kickwatch.service").read_text(encoding="utf-8")
    assert {"StateDirectory=kickwatch", "RuntimeDirectory=kickwatch"} <= set(unit.splitlines())


def test_it_finds_what_would_stop_the_service() -> None:
    text = "```ini\n[Service]\nReadWritePaths=/var/lib/prometheus -/absent /sys\n"
    assert set(needed(text)) - PRESENT == {"/var/lib/prometheus"}
