"""The page: verdict, key figures, plots with their tables, and the exact data, in one file without a network."""

import json
from collections.abc import Iterable
from functools import cache
from html import escape
from importlib import resources
from typing import Any

from kickwatch import __version__
from kickwatch.errors import KickwatchError
from kickwatch.report.history_text import known, moment
from kickwatch.report.html import by_cpu, distributions, over_time
from kickwatch.report.html.plots import Plot, Row, figure
from kickwatch.report.passive_totals import only_passive, records_of

_MARKS = {"quiet": "&#10003;", "broadcasting": "&#9888;", "unknown": "?"}
_WORDS = {
    "quiet": "At the end of this history, creating containers does not make the kernel broadcast.",
    "broadcasting": "At the end of this history, creating containers makes the kernel interrupt every other CPU.",
    "unknown": "At the end of this history it is not known whether creating containers makes the kernel broadcast.",
}


def page(found: dict[str, Any], title: str = "kickwatch report") -> str:
    """The whole file. `found`: from `overview`. Raises KickwatchError without the extra `report`."""
    bundle = vega_bundle()
    plots = plots_of(found) if found["first_unix_s"] is not None else []
    sections = [plot_section(plot) for plot in plots]
    order = [*sections[:4], *tables_of(found), *sections[4:]]
    parts = {
        "TITLE": escape(title),
        "STYLE": page_resource("style.css"),
        "HEADER": _header(found),
        "NAVIGATION": _navigation(plots),
        "SECTIONS": "\n".join(order),
        "FOOTER": f"Made by kickwatch {escape(__version__)} from {found['replay']['trials']} trial records.",
        "DATA": as_json(found),
        "PLOTS": as_json({plot.ident: plot.spec for plot in plots if plot.spec is not None}),
        "SCRIPT": page_resource("page.js"),
        "VEGA": bundle,
    }
    return filled(page_resource("template.html"), parts)


@cache
def vega_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, from vl-convert-python."""
    try:
        from vl_convert import javascript_bundle  # noqa: PLC0415 -- an extra, and 30 MB of it
    except ImportError as error:
        raise KickwatchError("plots need the extra `report`", "pip install 'kickwatch[report]'") from error
    bundle = str(javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def filled(template: str, parts: dict[str, str]) -> str:
    """The template with each `{{NAME}}` replaced once; nothing inside a part is replaced."""
    pieces = template.split("{{")
    return pieces[0] + "".join(parts[name] + rest for name, _, rest in (piece.partition("}}") for piece in pieces[1:]))


def as_json(value: Any) -> str:
    """JSON that may stand in a script element."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def plots_of(found: dict[str, Any]) -> list[Plot]:
    """All plots, in the order of the page."""
    return [
        over_time.timeline(found),
        over_time.broadcasts(found),
        over_time.requests(found),
        over_time.evidence(found),
        distributions.icicle(found, "broadcasts"),
        distributions.icicle(found, "requests"),
        distributions.waits(found),
        distributions.latency(found),
        by_cpu.heat_map(found),
        distributions.churn_quiet(found),
        distributions.pairs(found),
    ]


def tables_of(found: dict[str, Any]) -> list[str]:
    """The tables without a plot: bill, kernels, nodes, alarms."""
    sections = [_bill(found), _kernels(found), _passive(found), _nodes(found), _alarms(found)]
    return [section for section in sections if section]


def _header(found: dict[str, Any]) -> str:
    verdict, total = found["verdict"], found["total"]
    why = ", ".join((*found["reasons"], *found["findings"]))
    span = "no trials"
    if found["first_unix_s"] is not None:
        span = f"{moment(found['first_unix_s'])} to {moment(found['last_unix_s'])} UTC"
    kernels = ", ".join(row["kernel"] for row in found["kernels"][-3:]) or "none"
    facts = [
        ("trials", figure(total["trials"]), f"{total['void_trials']} void"),
        ("containers", figure(total["containers"]), f"{total['failed']} failed"),
        (
            "creation-path broadcasts per container",
            known(total["creation_path_broadcasts_per_container"]),
            f"{known(total['creation_path_broadcasts'])} in all",
        ),
        (
            "slab_mutex waits per container",
            known(total["slab_mutex_waits_per_container"]),
            f"{known(total['slab_mutex_wait_ms'])} ms in all",
        ),
    ]
    if only_passive(found):
        facts = _passive_facts(found)
    cards = "".join(
        f'<div class="card"><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>'
        for name, value, more in facts
    )
    return (
        f'<p class="verdict {escape(verdict)}"><span aria-hidden="true">{_MARKS[verdict]}</span>'
        f" <strong>{escape(verdict)}</strong></p>"
        f'<p class="lead">{_WORDS[verdict]}</p>'
        f'<p class="sub">{escape(span)} &middot; kernels: {escape(kernels)}'
        f"{' &middot; ' + escape(why) if why else ''}</p>"
        f'<dl class="cards">{cards}</dl>'
    )


def _passive_facts(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What there is to say where no trial was made."""
    rows = found["passive"]
    counts = [(row["own_broadcasts"], row["other_broadcasts"]) for row in rows if row["own_broadcasts"] is not None]
    own, others = map(sum, zip(*counts, strict=True)) if counts else (None, None)
    return [
        ("records of passive mode", figure(records_of(found)), f"{found['total']['void_trials']} void"),
        ("containers of others", figure(sum(row["containers"] for row in rows)), "in these records"),
        ("creation-path broadcasts", figure(own), f"of the containers' tasks; {figure(others)} of others"),
    ]


def _navigation(plots: Iterable[Plot]) -> str:
    links = [(plot.ident, plot.title) for plot in plots]
    links[4:4] = [("bill", "Bill"), ("kernels", "Kernels"), ("nodes", "Node"), ("alarms", "Alarms")]
    return "".join(f'<li><a href="#{ident}">{escape(title)}</a></li>' for ident, title in links)


def plot_section(plot: Plot) -> str:
    """A plot, or why there is none, with its table."""
    if plot.spec is None:
        body = f'<p class="absent">{escape(plot.absent)}</p>'
    else:
        label = f"{plot.title}. The table below the plot has its figures."
        drawn = f'<div class="plot" id="plot-{plot.ident}" aria-hidden="true"></div>'
        body = f'<div role="img" aria-label="{escape(label)}">{drawn}</div>'
    rows = table_html(plot.title, plot.head, plot.rows)
    hidden = f"<details><summary>{escape(plot.title)} as a table</summary>{rows}</details>" if plot.rows else ""
    return section(plot.ident, plot.title, f'<p class="help">{escape(plot.help)}</p>{body}{hidden}')


def section(ident: str, title: str, body: str) -> str:
    """A part of the page under its heading."""
    return f'<section id="{ident}" aria-labelledby="{ident}-h"><h2 id="{ident}-h">{escape(title)}</h2>{body}</section>'


def table_html(title: str, head: Row, rows: Iterable[Row]) -> str:
    """A table that scrolls by itself, with a button that copies it as tab-separated text."""
    texts = [[str(cell) for cell in row] for row in rows]
    numeric = [any(_is_number(row[column]) for row in texts) for column in range(len(head))]
    heads = "".join(_cell("th", str(cell), number=number) for cell, number in zip(head, numeric, strict=True))
    body = "".join(f"<tr>{''.join(_cell('td', cell, number=_is_number(cell)) for cell in row)}</tr>" for row in texts)
    name = escape(title)
    return (
        f'<div class="tools"><button type="button" class="copy">Copy table<span class="visually-hidden">: {name}'
        "</span></button></div>"
        f'<div class="scroll" role="region" tabindex="0" aria-label="{name}, table">'
        f"<table><caption>{name}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "", 1).lstrip("-").isdigit()


def _cell(tag: str, text: str, *, number: bool) -> str:
    scope = ' scope="col"' if tag == "th" else ""
    aligned = ' class="n"' if number else ""
    return f"<{tag}{scope}{aligned}>{escape(text)}</{tag}>"


def _bill(found: dict[str, Any]) -> str:
    title = "Bill: what one container makes the other CPUs run"
    if found["bill"] is None:
        return section("bill", title, '<p class="absent">Not known: no probe attributed requests.</p>')
    rows = [
        (
            "yes" if row["creation_path"] else "",
            row["reason"],
            row["origin"],
            row["path"],
            figure(row["requests_per_container"], 2),
            figure(row["broadcasts_per_container"], 3),
            figure(row["requests"]),
            figure(row["calls"]),
            figure(row["broadcasts"]),
            figure(row["under_slab_mutex"]),
        )
        for row in found["bill"]
    ]
    head: Row = (
        *("creation path", "function", "source", "path", "requests per container", "broadcasts per container"),
        *("requests", "multi-CPU calls", "broadcasts", "under slab_mutex"),
    )
    help_text = (
        "Requests per container are above the rate of the windows without containers; the other columns are counts."
    )
    return section("bill", title, f'<p class="help">{help_text}</p>' + table_html(title, head, rows))


def _passive(found: dict[str, Any]) -> str:
    """The containers of others; nothing where no record of passive mode is."""
    names = ("kernel", "records", "containers", "own_broadcasts_per_container", "other_broadcasts_per_cgroup")
    rows = [
        (row["kernel"], *(figure(row[name]) for name in (*names[1:], "slab_mutex_waits"))) for row in found["passive"]
    ]
    head: Row = (
        *("kernel", "records", "containers of others", "creation-path broadcasts of their tasks per container"),
        *("of other tasks per cgroup made", "slab_mutex waits in all"),
    )
    title = "Passive mode"
    return section("passive", title, table_html(title, head, rows)) if rows else ""


def _kernels(found: dict[str, Any]) -> str:
    head: Row = (
        *("kernel", "trials", "void", "containers", "creation-path broadcasts per container"),
        *("requests per container", "slab_mutex waits per container", "create p50, ms", "start p50, ms"),
    )
    rows = [
        (
            row["kernel"],
            figure(row["trials"]),
            figure(row["void_trials"]),
            figure(row["containers"]),
            figure(row["creation_path_broadcasts_per_container"]),
            figure(row["requests_per_container"]),
            figure(row["slab_mutex_waits_per_container"]),
            *(figure(row["latency_ms"][step]["p50"]) for step in ("create", "start")),
        )
        for row in found["kernels"]
    ]
    return section("kernels", "Kernels", table_html("Kernels", head, rows))


def _nodes(found: dict[str, Any]) -> str:
    head = (
        "kernel",
        "arch",
        "CPUs",
        "cgroup",
        "engine",
        "runtime",
        "network",
        "kmem accounting",
        "trials",
        "containers",
    )
    rows = [tuple(row.values()) for row in found["nodes"]]
    return section("nodes", "Node and engine", table_html("Node and engine", head, rows))


def _alarms(found: dict[str, Any]) -> str:
    if not found["changes"]:
        return section("alarms", "Alarms", "<p>None was raised, and none ended.</p>")
    rows = [
        (moment(each["unix_s"]), each["alarm"], each["kind"], each["stream"], each["text"], each["trial"])
        for each in found["changes"]
    ]
    left = found["changes_left_out"]
    more = f"<p>{left} later changes are left out.</p>" if left else ""
    head = ("time (UTC)", "alarm", "change", "stream", "why", "trial")
    return section("alarms", "Alarms", table_html("Alarms", head, rows) + more)


def page_resource(name: str) -> str:
    """A file of this package."""
    return (resources.files("kickwatch.report.html") / name).read_text(encoding="utf-8")
