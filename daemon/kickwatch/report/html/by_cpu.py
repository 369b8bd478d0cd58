"""The heat map: requests by CPU over time. Pure."""

from collections.abc import Iterator
from typing import Any

from kickwatch.report.history_text import moment
from kickwatch.report.html.plots import (
    SERIES,
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
    tips = tooltips(cpu="CPU", each="requests per container", since="from")
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
        "requests by CPU were not counted in these trials (records of an older release, or no probe)",
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
            cells.append(span | {"cpu": cpu, "each": each, "since": since})
            rows.append((since, cpu, figure(each, 2)))
    return cells, rows


def _columns(known: list[tuple[dict[str, Any], float]]) -> Iterator[list[tuple[dict[str, Any], float]]]:
    """Neighbouring bins as columns, about MOST_COLUMNS at most; none spans two kernels or a gap."""
    step = -(-len(known) // MOST_COLUMNS)
    group: list[tuple[dict[str, Any], float]] = []
    for one, end in known:
        parted = group and (group[-1][0]["kernel"] != one["kernel"] or group[-1][1] < one["first_unix_s"] * 1000.0)
        if parted or len(group) >= step:
            yield group
            group = []
        group.append((one, end))
    if group:
        yield group
