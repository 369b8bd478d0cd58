"""A comparison as an HTML page: the ratios with their intervals as a plot, everything as a table, and the data."""

from html import escape
from typing import Any

from kickwatch import __version__
from kickwatch.report.compare_text import mark, number, with_interval
from kickwatch.report.history_text import moment
from kickwatch.report.html.page import as_json, filled, page_resource, plot_section, section, table_html, vega_bundle
from kickwatch.report.html.plots import GREY, SERIES, Plot, chart, colours, layer, shared, tooltips

_DIFFERS = {True: "differs", False: "no difference shown", None: "no interval"}
TITLE = "kickwatch comparison"


def compare_page(found: dict[str, Any]) -> str:
    """The whole file. `found`: from `compare.comparison`. Raises KickwatchError without the extra `report`."""
    bundle = vega_bundle()
    plot = _ratios(found)
    parts = {
        "TITLE": TITLE,
        "STYLE": page_resource("style.css"),
        "HEADER": _header(found),
        "NAVIGATION": '<li><a href="#ratios">Ratios</a></li><li><a href="#figures">Figures</a></li>',
        "SECTIONS": plot_section(plot) + _figures(found),
        "FOOTER": f"Made by kickwatch {escape(__version__)}.",
        "DATA": as_json(found),
        "PLOTS": as_json({plot.ident: plot.spec} if plot.spec is not None else {}),
        "SCRIPT": page_resource("page.js"),
        "VEGA": bundle,
    }
    return filled(page_resource("template.html"), parts)


def _header(found: dict[str, Any]) -> str:
    sides = "".join(_side(letter.upper(), found[letter]) for letter in ("a", "b"))
    return f'<dl class="cards">{sides}</dl><p class="help">{escape(found["method"])}</p>'


def _side(letter: str, side: dict[str, Any]) -> str:
    span = f"{moment(side['first_unix_s'])} to {moment(side['last_unix_s'])} UTC"
    counts = f"{side['verdict']}; {side['trials']} trials, {side['containers']} containers"
    name = f"{letter}: {side['name']}"
    shown = f"<small>{escape(counts)}</small><small>{escape(span)}</small>"
    return f'<div class="card"><dt>{escape(name)}</dt><dd>{shown}</dd></div>'


def _ratios(found: dict[str, Any]) -> Plot:
    """B over A, on a logarithmic axis."""
    values = [
        {
            "figure": row["figure"],
            "ratio": row["ratio"]["value"],
            "low": row["ratio"]["low"],
            "high": row["ratio"]["high"],
            "series": _DIFFERS[row["differs"]],
        }
        for row in found["rows"]
        if row["ratio"]["value"] is not None and min(filter(None, row["ratio"].values()), default=0.0) > 0.0
    ]
    values = [value for value in values if value["ratio"] and value["low"] != 0.0]
    y = {"field": "figure", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 260}}

    def x(field: str) -> dict[str, Any]:
        return {"field": field, "type": "quantitative", "title": "B / A (log scale)", "scale": {"type": "log"}}

    colour = colours(list(_DIFFERS.values()), ("var(--alarm)", SERIES[0], GREY))
    tips = tooltips(figure="figure", ratio="B / A", low="low", high="high")
    bar = layer(None, {"type": "rule", "strokeWidth": 3}, x=x("low"), x2={"field": "high"}, y=y, color=colour)
    dot = layer(None, {"type": "point", "filled": True, "size": 70}, x=x("ratio"), y=y, color=colour, tooltip=tips)
    one = layer([{"ratio": 1}], {"type": "rule", "strokeDash": [4, 3], "color": GREY}, x=x("ratio"))
    spec = chart(40 + 26 * len(values), bar, dot, one, data=shared(values)) if values else None
    rows = [(row["figure"], *(number(row["ratio"][end]) for end in ("value", "low", "high"))) for row in found["rows"]]
    return Plot(
        "ratios",
        "Ratios",
        "B over A with its interval of 95 %. On the dashed line nothing differs. A figure that is 0 on one side has no"
        " ratio: see the table of figures.",
        ("figure", "B / A", "low", "high"),
        rows,
        spec,
        "No figure has a ratio.",
    )


def _figures(found: dict[str, Any]) -> str:
    head = ("figure", "unit", "A", "B", "B - A [95 %]", "P(B > A)", "differs")
    rows = [
        (
            row["figure"],
            row["unit"],
            number(row["a"]["value"]),
            number(row["b"]["value"]),
            with_interval(row["difference"]),
            number(row["superiority"]),
            {"*": "yes", "?": "not known", "": "no"}[mark(row["differs"])],
        )
        for row in found["rows"]
    ]
    shares = [
        (
            f"{letter.upper()}: {share['figure']}",
            *(share[letter][name] for name in ("hits", "of")),
            *(number(share[letter][name]) for name in ("value", "low", "high")),
        )
        for share in found["shares"]
        for letter in ("a", "b")
    ]
    second = table_html("Shares of containers", ("figure", "containers", "of", "share", "low", "high"), shares)
    return section("figures", "Figures", table_html("Figures", head, rows)) + section("shares", "Shares", second)
