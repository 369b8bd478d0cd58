"""One plot of the page: its Vega-Lite specification, what it says in words, and the same figures as a table. Pure.

Colours are CSS variables, so the page can change its theme, and be printed, without drawing the plots again.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

Row = Sequence[Any]
MOST_RULES = 30
_TIMES = {"year": "%Y", "month": "%b %Y", "date": "%b %d", "day": "%b %d", "hours": "%H:%M", "minutes": "%H:%M"}
GREY = "var(--muted)"
# What a pointer shows of a time axis.
SINCE = {"field": "from", "type": "temporal", "title": "time (UTC)", "timeUnit": "utcyearmonthdatehoursminutes"}
SERIES = tuple(f"var(--c{number})" for number in range(1, 9))


class Plot(NamedTuple):
    """`spec` is None where there is nothing to draw; `absent` then says why. `help`: how to read it."""

    ident: str
    title: str
    help: str
    head: Row
    rows: Sequence[Row]
    spec: dict[str, Any] | None
    absent: str = ""


def chart(height: int, *layers: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A layered chart as wide as the page."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "layer": list(layers),
        **fields,
    }


def layer(values: Sequence[dict[str, Any]] | None, mark: str | dict[str, Any], **encoding: Any) -> dict[str, Any]:
    """One layer; `values` is None for the data of the whole chart, which several layers share."""
    data = {} if values is None else {"data": {"values": list(values)}}
    return data | {"mark": mark, "encoding": encoding}


def shared(values: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The data of a whole chart."""
    return {"values": list(values)}


def time_axis() -> dict[str, Any]:
    """The time axis of all plots over time, in UTC."""
    return {
        "field": "from",
        "type": "temporal",
        "title": "time (UTC)",
        "scale": {"type": "utc", "nice": False},
        "axis": {"labelOverlap": True, "tickCount": 8, "grid": False, "format": _TIMES},
    }


def colours(domain: Sequence[str], colour_of: Sequence[str], title: str | None = None) -> dict[str, Any]:
    """A colour for each of a few names."""
    return {
        "field": "series",
        "type": "nominal",
        "scale": {"domain": list(domain), "range": list(colour_of)[: len(domain)]},
        "legend": {"title": title},
    }


def fits(field: str, char_px: float) -> dict[str, Any]:
    """Shows a label only where its rectangle, a `share` of the plot's width, has room for it."""
    test = f"datum.share * width > {char_px} * length(datum.{field}) + 8"
    return {"condition": {"test": test, "value": 1}, "value": 0}


def tooltips(**titles: str) -> list[dict[str, Any]]:
    """field=title; what a pointer shows."""
    return [{"field": field, "title": title} for field, title in titles.items()]


def kernel_rules(found: dict[str, Any]) -> list[dict[str, Any]]:
    """A rule and the release's name wherever the kernel changes; invisible points that make all time axes equal."""
    x = time_axis()
    ends = [{"from": found[end] * 1000.0} for end in ("first_unix_s", "last_unix_s")]
    whole = layer(ends, {"type": "point", "opacity": 0, "tooltip": None}, x=x)
    spans = found["spans"]["kernel"]
    length = max(1.0, found["last_unix_s"] - found["first_unix_s"])
    until = [*(span["first_unix_s"] for span in spans[2:]), found["last_unix_s"]]
    changes = [
        {"from": span["first_unix_s"] * 1000.0, "label": span["value"], "share": (end - span["first_unix_s"]) / length}
        for span, end in zip(spans[1:], until, strict=False)
    ][:MOST_RULES]
    rule = {"type": "rule", "strokeDash": [4, 3], "color": GREY}
    text = {"type": "text", "align": "left", "baseline": "bottom", "dx": 3, "y": -2, "color": "var(--soft)"}
    named = layer(changes, text | {"fontSize": 11}, x=x, text={"field": "label"}, opacity=fits("label", 6.2))
    return [whole, layer(changes, rule, x=x), named] if changes else [whole]


def shown_ends(found: dict[str, Any]) -> list[float]:
    """Where each bin ends on the time axis, ms: at the next bin, unless no trial ran in between."""
    gaps = {gap["first_unix_s"] for gap in found["gaps"]}
    bins = found["bins"]
    ends = []
    for one, after in zip(bins, [*bins[1:], None], strict=True):
        end = one["last_unix_s"]
        if after is not None and end not in gaps:
            end = max(end, after["first_unix_s"])
        ends.append(end * 1000.0)
    return ends


def figure(value: float | None, digits: int = 3) -> str:
    """A figure in a table."""
    if value is None:
        return "not known"
    return f"{value:,.{digits}f}".rstrip("0").rstrip(".") if isinstance(value, float) else f"{value:,}"
