"""One word, one meaning, in plain English: class names are unique, and replaced names and phrases do not come back."""

import ast
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PACKAGE = PROJECT / "daemon" / "kickwatch"

# Replaced names, and what to use instead.
CLASSES_GONE = {
    "Purse": "BudgetLedger",
    "Patience": "EngineBackoff",
    "Eyes": "ArmedObservers",
    "CsdSample": "RequestSample",
    "Place": "ContainerProcess",
    "Here": "BundleHost",
    "Known": "EngineNames",
    "Ending": "Shutdown",
}
FUNCTIONS_GONE = {
    "finish": "run_shielded",
    "within": "timeout",
    "apart": "detached_group",
    "told": "error_fields",
    "told_drained": "drain_reported",
    "settled": "a word for the state that is meant: resolved, quiesced, charged, certain",
    "hurry": "shorten_timeouts",
    "completed": "fill_unnamed",
}
IDENTIFIERS_GONE = {
    **CLASSES_GONE,
    "told_drained": "drain_reported",
    "UNEXPLAINED": "ELSEWHERE",
    "HURRIED_S": "SHUTDOWN_CALL_TIMEOUT_S",
    "SERIAL_BY_FORCE": "FORCED_SERIAL",
    "CONDITION_OF": "STREAMS",
    "SWAPPED": "STREAMS",
    "SilenceTest": "QuietTest",
    "flush_silence": "flush_zeros",
    "batch_heard": "zero_is_certain",
    "Telemetry": "PrometheusOutlet, SummaryOutlet",
    "Board": "StatusFileOutlet",
}
TEXTS_GONE = {
    r"kickwatch-help": "kw-helper",
    r"Event\.NOTE\b": "an event for each condition",
}
FILES_GONE = {
    "whole.py": "atomic_file.py",
    "shielded.py": "cancellation.py",
    "once.py": "one_shot.py",
    "recorded.py": "record_reader.py",
    "words.py": "a name that says what is in it",
    "probehelper.c": "helper.c",
    "choose.py": "engine_choice.py",
    "handed_on.py": "subtree_control.py",
}
BPF_FUNCTIONS_GONE = {
    "ones": "hweight64",
    "one": "count_single",
    "chosen": "count_conditional",
    "here": "this_cpu_call",
}

# Phrases that make a reader stumble, as regular expressions, and the plain ones.
PHRASES_GONE = {
    r"anew": "again, afresh",
    r"whence": "from where",
    r"likewise": "also, as above",
    r"thereby": "so, by that",
    r"somebody else": "another process, others",
    r"be it": "whether it is",
    r"hinder(s|ed)?": "prevent, block",
    r"befall(s|en)?": "happen to, affect",
    r"lawful(ly)?": "expected",
    r"in truth": "actually",
    r"so long the": "seconds the",
    r"so many the": "the number of",
    r"mend(s|ed|ing)?": "fix",
    r"of its own accord": "by itself",
    r"told(?! apart)": "logged, reported, given",
    r"said": "logged, reported",
    r"not nothing": "something",
}

# Where prose is checked.
CHECKED = (
    "Makefile",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "daemon/kickwatch",
    "deploy",
    "docs",
    "systemd",
    "tests",
)
PROSE_SUFFIXES = {".md", ".toml", ".catalog", ".service", ".slice", ".conf", ".preset", ".tmpfiles", ".c", ".h", ".yml"}
THIS_FILE = Path(__file__)


def sources(*suffixes: str) -> list[Path]:
    """The files of daemon/, systemd/ and deploy/ with one of these suffixes, or all."""
    found = [path for room in ("daemon", "systemd", "deploy") for path in (PROJECT / room).rglob("*") if path.is_file()]
    built = {"__pycache__", "bin"}
    return sorted(
        path
        for path in found
        if not built & set(path.parts) and path.suffix != ".o" and (not suffixes or path.suffix in suffixes)
    )


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every name in a module, without leading underscores, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name.lstrip("_")
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield node.lineno, name.lstrip("_")
            case ast.alias(name=name):
                yield node.lineno, name.rpartition(".")[2].lstrip("_")


def functions(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every function, method and imported name, without leading underscores, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.alias):
            yield node.lineno, node.name.rpartition(".")[2].lstrip("_")


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def prose(path: Path) -> str:
    """Comments and strings of a Python file, the whole of another file; line breaks become spaces.

    Strings of one word are keys or values, not prose, and neither are expressions in f-strings.
    """
    if path.suffix == ".py":
        with tokenize.open(path) as file:
            kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
            parts = (token.string for token in tokenize.generate_tokens(file.readline) if token.type in kinds)
            sentences = (part for part in parts if not re.fullmatch(r"['\"]\w+['\"]", part))
            text = " ".join(re.sub(r"\{[^{}]*\}", "{}", part) for part in sentences)
    else:
        text = path.read_text(encoding="utf-8")
    return " ".join(word for word in text.split() if word not in {"#", "*", "//"})


def prose_files(room: str) -> list[Path]:
    path = PROJECT / room
    if path.is_file():
        return [path]
    found = (file for file in path.rglob("*") if file.suffix in PROSE_SUFFIXES | {".py"})
    return sorted(file for file in found if "__pycache__" not in file.parts and file != THIS_FILE)


def test_no_two_public_classes_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{path.relative_to(PROJECT)}:{node.lineno}")
    assert len(places) > 100
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_replaced_names_do_not_come_back() -> None:
    for path in sources(".py"):
        tree = parsed(path)
        for gone, names in ((IDENTIFIERS_GONE, identifiers(tree)), (FUNCTIONS_GONE, functions(tree))):
            for line, name in names:
                assert name not in gone, f"{path}:{line}: {name}, use {gone[name]}"


def test_replaced_texts_do_not_come_back() -> None:
    for path in sources():
        text = path.read_text(encoding="utf-8")
        for pattern, instead in TEXTS_GONE.items():
            assert not re.search(pattern, text), f"{path}: {pattern}, use {instead}"


def test_the_retired_event_is_named_only_where_it_is_retired() -> None:
    lines = [line for path in sources() for line in path.read_text().splitlines() if "kickwatch.note" in line]
    assert len(lines) == 1
    assert lines[0].startswith("RETIRED = {")


def test_replaced_files_do_not_come_back() -> None:
    found = {path.name for path in sources()} & set(FILES_GONE)
    assert not found, {name: FILES_GONE[name] for name in found}


@pytest.mark.parametrize("path", sorted((PACKAGE / "observe" / "probes").glob("*.[ch]")), ids=lambda path: path.name)
def test_the_probes_use_the_kernels_words(path: Path) -> None:
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for name, instead in BPF_FUNCTIONS_GONE.items():
        assert not re.search(rf"\b{name}\s*\(", code), f"{name}, use {instead}"


@pytest.mark.parametrize("room", CHECKED)
def test_prose_is_plain_english(room: str) -> None:
    files = prose_files(room)
    assert files, f"{room} has no prose to check"
    for path in files:
        text = prose(path)
        for phrase, instead in PHRASES_GONE.items():
            found = re.search(rf"(?:\S+ )?\b{phrase}\b(?: \S+)?", text, re.IGNORECASE)
            assert not found, f"{path}: `{found[0] if found else ''}`, use {instead}"
