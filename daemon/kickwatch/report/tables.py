"""A table of plain text: columns as wide as needed."""

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with columns as wide as needed, and numbers right-aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        shown = [
            cell.rjust(width) if _is_number(cell) or not cell else cell.ljust(width)
            for cell, width in zip(cells, widths, strict=True)
        ]
        return "  " + "  ".join(shown).rstrip()

    heading = "  ".join(
        name.rjust(width) if any(_is_number(row[column]) for row in rows) else name.ljust(width)
        for column, (name, width) in enumerate(zip(head, widths, strict=True))
    )
    return "\n".join(["  " + heading.rstrip(), *map(line, rows)])


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdigit()
