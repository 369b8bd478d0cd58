"""The bill of a trial as a table: the creation path and broadcasts first, the background in one line."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from kickwatch.detect.bill import share, trial_rows
from kickwatch.detect.figures import counted
from kickwatch.model import Cell, Trial
from kickwatch.report.run_words import asker_of, call_chain
from kickwatch.terminal.layout import figures

WIDE_COLUMNS = 140
_WIDE_HEAD = ("path", "origin", "calls", "sweeps", "idle/s", "call chain")
_NUMBERS = frozenset({"broadcasts", "requests", "isolated", "calls", "sweeps", "idle/s"})
_NAMES = frozenset({"the CPUs run", "asked by"})
_NAMED = 3  # functions that the line of the background names
_GUILTY, _BACKGROUND = "bold red", "dim"


@dataclass(frozen=True)
class _Row:
    """A cell, and its requests per container above the quiet window; None if no container counts."""

    cell: Cell
    each: float | None
    idle_hz: float

    @property
    def matters(self) -> bool:
        """Broadcasts, the creation path, and what reached isolated CPUs."""
        return bool(self.cell.broadcasts or self.cell.on_creation_path or self.cell.isolated)


def bill_rows(trial: Trial) -> list[_Row]:
    """What matters most first: broadcasts of the creation path, other broadcasts, the creation path, then by size."""
    sums = trial_rows(trial, lambda cell: cell.identity)
    count, quiet_s = len(counted(trial)), trial.quiet.duration_ns / 1e9
    rows = []
    for cell in trial.churn.cells:
        of = sums[cell.identity]
        rows.append(_Row(cell, share(of.above_quiet, count), of.quiet_requests / quiet_s if quiet_s else 0.0))
    return sorted(rows, key=_order)


def _order(row: _Row) -> tuple[bool, int, bool, bool, float]:
    cell = row.cell
    guilty = bool(cell.on_creation_path and cell.broadcasts)
    return (not guilty, -cell.broadcasts, not cell.on_creation_path, not cell.isolated, -(row.each or 0.0))


def bill_table(trial: Trial, columns: int, *, everything: bool = False) -> list[Table]:
    """Figures per container. `everything`: a line for each cell of the background as well."""
    rows, wide, split = bill_rows(trial), columns >= WIDE_COLUMNS, bool(trial.isolated_cpus)
    shown = rows if everything else [row for row in rows if row.matters]
    names = ("the CPUs run", "asked by", *(_WIDE_HEAD if wide else ("for",))) if shown else ()
    head = (*_figure_heads(split), *names)
    lines = [(_cells(trial, row, wide=wide, split=split), _style(row)) for row in shown]
    numbers = [index for index, name in enumerate(head) if name in _NUMBERS]
    whole = [index for index, name in enumerate(head) if name in _NAMES]
    parts = [figures(head, lines, numbers=numbers, whole=whole)]
    if folded := [row for row in rows if not everything and not row.matters]:
        parts.append(_folded(folded, split=split))
    return parts


def _figure_heads(split: bool) -> tuple[str, ...]:
    return ("broadcasts", "requests", *(("isolated",) if split else ()))


def _cells(trial: Trial, row: _Row, *, wide: bool, split: bool) -> tuple[str, ...]:
    cell, count = row.cell, len(counted(trial))
    others = max(1, trial.node.cpus_online - 1)
    first = (
        _number(share(cell.broadcasts, count), 2),
        _number(row.each, 2),
        *((_number(None if cell.isolated is None else share(cell.isolated, count), 2),) if split else ()),
        cell.reason,
        asker_of(cell.stack),
    )
    if not wide:
        return (*first, f"{cell.path}, {cell.origin}")
    sweeps = None if row.each is None else row.each / others
    return (
        *first,
        cell.path.value,
        cell.origin.value,
        str(cell.calls),
        _number(sweeps, 2),
        f"{row.idle_hz:.1f}",
        call_chain(cell),
    )


def _folded(rows: Sequence[_Row], *, split: bool) -> Table:
    """One line for the background: its sum, and the names of its largest parts, aligned with the table above it."""
    known = [row.each for row in rows if row.each is not None]
    by_size = sorted(rows, key=lambda row: -abs(row.each or 0.0))  # with a minus too, or the sum looks wrong
    largest = [f"{row.cell.reason} {_number(row.each, 0)}" for row in by_size[:_NAMED]]
    more = f", {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    reached = "not known" if any(row.cell.isolated is None for row in rows) else "0"
    grid = Table.grid(padding=(0, 2, 0, 0))
    for name in _figure_heads(split):
        grid.add_column(justify="right", no_wrap=True, min_width=len(name))
    grid.add_column(overflow="fold")
    total = sum(known) if known else None
    noise = "; less than without containers, by chance" if total is not None and total < 0 else ""
    text = f"background, none of it a broadcast: {', '.join(largest)}{more}{noise} (--all)"
    grid.add_row("0", _number(total, 2), *((reached,) if split else ()), text, style=_BACKGROUND)
    return grid


def _style(row: _Row) -> str:
    cell = row.cell
    if cell.on_creation_path and cell.broadcasts:
        return _GUILTY
    return "" if row.matters else _BACKGROUND


def _number(figure: float | None, digits: int) -> str:
    return "not known" if figure is None else "0" if figure == 0 else f"{figure:.{digits}f}"
