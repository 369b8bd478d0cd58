"""The rooms of the package and the directions in which they import one another: no arrow runs back up."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "daemon" / "kickwatch"
LOOSE = {"__main__", "cli", "errors", "model"}

# Room by room, what it may import. A room's first lines say the same in words.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "model": set(),
    "configuration": {"errors"},
    "node": {"errors", "model"},
    "process": {"errors"},
    "journal": {"process"},
    "detect": {"errors", "model"},
    "native": {"errors", "process"},
    "attribution": {"model"},
    "history": {"detect", "errors", "model"},
    "outlets": {"attribution", "configuration", "detect", "errors", "journal", "model", "node", "process"},
    "simulate": {"detect", "errors", "model"},
    "observe": {"attribution", "errors", "model", "native", "node", "process"},
    "workload": {"configuration", "errors", "journal", "model", "native", "node", "process"},
    "metrics": {
        *{"attribution", "configuration", "detect", "errors", "journal", "model", "node", "observe", "outlets"},
        "process",
    },
    "report": {"attribution", "detect", "errors", "model", "outlets"},
    "trace": {"attribution", "errors", "model", "observe"},
    "experiment": {
        *{
            "attribution",
            "configuration",
            "detect",
            "errors",
            "journal",
            "model",
            "native",
            "node",
            "observe",
            "process",
            "trace",
        },
        "workload",
    },
}
MAY_IMPORT["terminal"] = {
    *{"attribution", "configuration", "detect", "errors", "experiment", "journal", "model", "outlets", "process"},
    "report",
}
MAY_IMPORT["service"] = set(MAY_IMPORT) - {"native", "report", "simulate", "terminal", "trace"}
MAY_IMPORT["commands"] = set(MAY_IMPORT)
MAY_IMPORT["cli"] = {"commands", "errors", "journal", "process"}
MAY_IMPORT["__main__"] = {"cli"}


def room_of(module: str) -> str:
    """`kickwatch.outlets.metrics.serve` is in the room `metrics`."""
    parts = module.split(".")[1:]
    if parts[:2] in (["detect", "simulate"], ["outlets", "metrics"]):
        return parts[1]
    return parts[0]


def modules() -> Iterator[tuple[str, Path]]:
    """Every module by its dotted name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), path


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, also for typing alone and inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kickwatch."):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("kickwatch.")}
    return found


@pytest.mark.parametrize(("module", "path"), [pytest.param(*one, id=one[0]) for one in modules()])
def test_imports_go_down(module: str, path: Path) -> None:
    room = room_of(f"{module}.")
    if module == "kickwatch":
        return
    above = {name for name in imported(path) if room_of(name) not in MAY_IMPORT[room] | {room}}
    assert not above, f"{module} may not import {', '.join(sorted(above))}"


def test_nothing_lies_loose_and_every_room_says_what_it_is_for() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == LOOSE | {"__init__"}
    for room in sorted(PACKAGE.rglob("__init__.py")):
        if room.parent == PACKAGE:
            continue
        said = (ast.get_docstring(ast.parse(room.read_text(encoding="utf-8"))) or "").splitlines()
        assert len(said) >= 3, f"{room} does not say in two lines what the room is for and what it must not import"


def test_the_rule_itself_has_no_circle() -> None:
    left = {room: set(below) - {room} for room, below in MAY_IMPORT.items()}
    while left:
        ground = {room for room, below in left.items() if not below & left.keys()}
        assert ground, f"these rooms may import one another in a circle: {sorted(left)}"
        left = {room: below for room, below in left.items() if room not in ground}


def test_unit_tests_mirror_the_package() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    tests = {path.name for path in (Path(__file__).parent).iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert tests - {"deploy"} <= rooms
