"""The study as one SVG picture, for light and dark pages: delays above, run lengths below."""

from html import escape
from math import log10

from kickwatch.detect.simulate.study import SimulationResult

LEFT, WIDTH, ROW = 380, 520, 22  # of the labels, the axis and a line, in pixels
DECADES_OF_DELAY = 4
DECADES_OF_BOUND = 2
STYLE = "text{font:12px sans-serif;fill:#777}.bold{font-weight:bold}rect{fill:#3a7ca5}line{stroke:#9996}"


def to_svg(result: SimulationResult) -> str:
    """Median to 95th percentile of the delay per effect, and run length over bound per null, on logarithmic axes."""
    delays = [e.delay for e in result.effects] + list(result.others) + list(result.recoveries)
    delays += [p.delay for p in result.pair_delays]
    nulls = (*result.nulls, *result.pair_nulls)
    parts, y = [_text(10, 24, "Observations until the alarm (or recovery): median to 95 %", "bold")], 40
    parts += _axis(y, len(delays), DECADES_OF_DELAY, 0)
    for delay in delays:
        y += ROW
        low, high = _x(delay.median, 0, DECADES_OF_DELAY), _x(delay.p95, 0, DECADES_OF_DELAY)
        parts += [_text(LEFT - 8, y + 4, delay.name, anchor="end"), _bar(low, max(high, low + 3), y)]
        parts.append(_text(max(high, low + 3) + 6, y + 4, f"{delay.median}, {delay.p95}"))
    y += 3 * ROW
    parts.append(_text(10, y, "Mean run length to a false alarm, lower 95 % limit, over the bound", "bold"))
    y += 16
    parts += _axis(y, len(nulls), DECADES_OF_BOUND, 0)
    for null in nulls:
        y += ROW
        ratio = null.arl_lower95 / null.arl_bound
        parts.append(_text(LEFT - 8, y + 4, f"{null.name}, {null.threshold:.0e}", anchor="end"))
        parts += [
            _bar(LEFT, _x(ratio, 0, DECADES_OF_BOUND), y),
            _text(_x(ratio, 0, DECADES_OF_BOUND) + 6, y + 4, f"{ratio:.1f}"),
        ]
    height = y + 2 * ROW
    size = f'width="{LEFT + WIDTH + 80}" height="{height}"'
    view = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{STYLE}</style>'
    return "\n".join([view, *parts, "</svg>", ""])


def _x(value: float, first_decade: int, decades: int) -> float:
    place = (log10(max(value, 10.0**first_decade)) - first_decade) / decades
    return LEFT + WIDTH * min(place, 1.0)


def _axis(y: int, rows: int, decades: int, first_decade: int) -> list[str]:
    parts = []
    for decade in range(decades + 1):
        x, bottom = LEFT + WIDTH * decade / decades, y + (rows + 1) * ROW
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{bottom - ROW // 2}"/>')
        parts.append(_text(x, bottom + 4, f"{10 ** (first_decade + decade):g}", anchor="middle"))
    return parts


def _bar(left: float, right: float, y: int) -> str:
    return f'<rect x="{left:.1f}" y="{y - 6}" width="{max(right - left, 1.0):.1f}" height="12" rx="2"/>'


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" class="{kind}">{escape(words)}</text>'
