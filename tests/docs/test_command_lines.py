"""Every `kickwatch` and `make` on a page is one that exists, with options that exist and keys that the loader takes."""

import re
import subprocess
from pathlib import Path

import click
import pytest

from doc_blocks import PAGES, ROOT, Block, blocks, command_lines, inline_lines
from kickwatch.cli import COMMANDS, cli
from kickwatch.configuration.loading import load

BLOCKS = [block for page in PAGES for block in blocks(page)]
# Words of a page that stand for a value.
PLACEHOLDERS = {"N": "23", "KEY=VALUE": "trial.seed=1", "section.key=value": "trial.seed=1"}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split())  # type: ignore[index]
VARIABLES = {*re.findall(r"^([A-Z_]+) \?=", MAKEFILE, re.MULTILINE), "PYTHON", "ARCH"} | {
    *re.findall(r"KICKWATCH_LAB_[A-Z]+", (ROOT / "tests/lab/matrix.py").read_text() + MAKEFILE),
    *(f"KICKWATCH_LAB_{word}" for word in ("MACHINES", "CONTAINERS", "LONG")),
    *re.findall(r"KICKWATCH_PASSIVE_[A-Z]+", (ROOT / "tests/benchmarks/bench_passive.py").read_text()),
}


def checked(words: list[str]) -> None:
    """Raise if this line would be refused."""
    program, *arguments = words
    if program == "make":
        _checked_make(arguments)
    elif arguments and not arguments[0].startswith("-") and arguments[0] != "COMMAND":
        name, *rest = arguments
        assert name in COMMANDS, f"there is no `kickwatch {name}`"
        _checked_command(name, [PLACEHOLDERS.get(word, word) for word in rest])


def _checked_command(name: str, arguments: list[str]) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    needed = [one for one in command.params if one.required]
    words = [word for one in needed for word in ((one.opts[0], "FILE") if isinstance(one, click.Option) else ("FILE",))]
    try:  # a command that is only named lacks what it needs
        context = command.make_context(name, list(arguments) or words)
    except click.exceptions.Exit:  # --help
        return
    load(None, context.params.get("sets") or ())


def _checked_make(arguments: list[str]) -> None:
    for word in arguments:
        variable, equals, _ = word.partition("=")
        assert (variable in VARIABLES) if equals else (word in TARGETS), f"make does not know {word}"


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_a_block_that_begins_with_a_command_says_how_it_is_tested(block: Block) -> None:
    assert set(block.words) - {"v1", f"exit={block.status}"} <= {"run", "parse"}
    if command_lines(block.text.partition("\n")[0]):
        assert {"run", "parse"} & set(block.words), f"{block.where}: write `sh run` or `sh parse`"


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_the_lines_of_blocks_are_accepted(block: Block) -> None:
    for words in command_lines(block.text):
        checked(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_lines_in_the_text_are_accepted(page: Path) -> None:
    for words in inline_lines(page.read_text(encoding="utf-8")):
        checked(words)


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_the_lines_of_help_are_accepted(name: str) -> None:
    command = cli.get_command(click.Context(cli), name) if name else cli
    assert command is not None
    text = f"{command.help or ''}\n{command.epilog or ''}"
    for words in [*command_lines(text.partition("Examples:")[2]), *inline_lines(text)]:
        checked(words)


def test_what_does_not_exist_is_refused() -> None:
    for line in ("kickwatch trail", "make tset", "make test NOTHING=1"):
        with pytest.raises(AssertionError):
            checked(line.split())
    with pytest.raises(click.UsageError):
        checked(["kickwatch", "trial", "--wide-open"])
    with pytest.raises(Exception, match=r"workload\.netwerk"):
        checked(["kickwatch", "trial", "--set", "workload.netwerk=none"])


def test_the_pages_have_command_lines() -> None:
    assert len([words for block in BLOCKS for words in command_lines(block.text)]) > 25
    assert sum(len(inline_lines(page.read_text(encoding="utf-8"))) for page in PAGES) > 60


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_every_block_is_shell(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
