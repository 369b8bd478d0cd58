"""The heat map: requests by CPU over time. Pure."""

from typing import Any

from kickwatch.report.history_text import moment
from kickwatch.report.html.plots import (
    SERIES,
    SINCE,
    Plot,
    chart,
    figure,
    kernel_rules,
    layer,
    shown_ends,
    time_axis,
    tooltips,
)

MOST_COLUMNS = 60
ShownBin = tuple[dict[str, Any], float]  # a bin, and where it ends on the time axis, ms


def heat_map(found: dict[str, Any]) -> Plot:
    """Requests by CPU over time, per container."""
    cells, rows = _heat_cells(found)
    x = time_axis()
    y = {"field": "cpu", "type": "nominal", "title": "CPU", "sort": None, "axis": {"labelOverlap": True}}
    opacity = {
        "field": "each",
        "type": "quantitative",
        "scale": {"range": [0.04, 1], "domainMin": 0},
        "legend": {"title": "requests per container"},
    }
    tips = [*tooltips(cpu="CPU", each="requests per container"), SINCE]
    mark = {"type": "rect", "color": SERIES[0]}
    cpus = len({cell["cpu"] for cell in cells})
    spec = chart(
        max(90, min(480, 26 * cpus)),
        layer(cells, mark, x=x, x2={"field": "to"}, y=y, opacity=opacity, tooltip=tips),
        *kernel_rules(found),
    )
    return Plot(
        "cpus",
        "Requests by CPU",
        "Requests that each CPU received, per container, beyond the rate without containers. An even column is what a"
        " broadcast looks like; a single dark row is a CPU that work was sent to.",
        ("from", "CPU", "requests per container"),
        rows,
        spec if cells else None,
        "Not known: requests by CPU were not counted (records of an older release, or no probe).",
    )


def _heat_cells(found: dict[str, Any]) -> tuple[list[dict[str, Any]], list[tuple[str, str, str]]]:
    known = [
        (one, end) for one, end in zip(found["bins"], shown_ends(found), strict=True) if one["per_cpu"] is not None
    ]
    cells, rows = [], []
    per_row = found["cpus_per_item"]
    for group in _columns(known):
        width = max(len(one["per_cpu"]) for one, _ in group)
        containers = sum(one["containers"] for one, _ in group) or 1
        for row in range(width):
            amount = sum(
                (one["per_cpu"][row] if row < len(one["per_cpu"]) else 0.0) * one["containers"] for one, _ in group
            )
            each = round(max(0.0, amount / containers / per_row), 2)
            cpu = str(row) if per_row == 1 else f"{row * per_row}-{row * per_row + per_row - 1}"
            since = moment(group[0][0]["first_unix_s"])
            span = {"from": group[0][0]["first_unix_s"] * 1000.0, "to": group[-1][1]}
            cells.append(span | {"cpu": cpu, "each": each})
            rows.append((since, cpu, figure(each, 2)))
    return cells, rows


def _columns(known: list[ShownBin]) -> list[list[ShownBin]]:
    """Neighbouring bins as columns. None spans two kernels or a gap, unless the history changes too often for that."""
    step = max(1, -(-len(known) // MOST_COLUMNS))
    columns: list[list[ShownBin]] = []
    for one, end in known:
        if not columns or len(columns[-1]) >= step or _parted(columns[-1][-1], one):
            columns.append([])
        columns[-1].append((one, end))
    if len(columns) <= 2 * MOST_COLUMNS:
        return columns
    return [known[first : first + step] for first in range(0, len(known), step)]


def _parted(before: ShownBin, one: dict[str, Any]) -> bool:
    return bool(before[0]["kernel"] != one["kernel"] or before[1] < one["first_unix_s"] * 1000.0)
