"""What all screens are made of: labelled rows, tables, command lines; and how they become text."""

import re
from collections.abc import Iterable, Sequence

from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from kickwatch.terminal.shell_lines import shell_lines

LABEL = "bold"
HEAD = "bold"
_TRAILING = re.compile(r" +((?:\x1b\[[0-9;]*m)*)$", re.MULTILINE)


def labelled(rows: Iterable[tuple[str, str | Text]], *, indent: int = 2) -> Table:
    """Rows of a label and its text; the text wraps beside its label."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style=LABEL)
    grid.add_column(overflow="fold")
    for label, text in rows:
        grid.add_row(" " * indent + label, text)
    return grid


def figures(
    head: Sequence[str], rows: Iterable[tuple[Sequence[str], str]], *, numbers: Sequence[int], whole: Sequence[int] = ()
) -> Table:
    """A table of (cells, style). `numbers`: right-aligned columns. These and `whole` wrap only if nothing else can."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style=HEAD)
    for index, name in enumerate(head):
        right = index in numbers
        justify: JustifyMethod = "right" if right else "left"
        table.add_column(name, justify=justify, no_wrap=right or index in whole, overflow="fold")
    for cells, style in rows:
        table.add_row(*cells, style=style)
    return table


def command(line: str, columns: int, *, indent: int = 4) -> Group:
    """A command line to copy: a word that is longer than a line stays whole. (A group, since printing joins texts.)"""
    return Group(Text("\n".join(shell_lines(line, columns, indent)), no_wrap=True, overflow="ignore"))


def as_text(console: Console, parts: Iterable[RenderableType]) -> str:
    """The parts as printed on `console`, without spaces at the end of a line."""
    with console.capture() as capture:
        for part in parts:
            console.print(part, crop=False)
    return _TRAILING.sub(r"\1", capture.get())
