"""Draws the timeline of a trace as SVG: the life of its first container, and a close view of a few milliseconds in it.

    python docs/draw_trace.py trace.json docs/images/trace.svg

The close view shows the first broadcast, or the first multi-CPU call if nothing was broadcast.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

WIDTH, LEFT, ROW, GAP = 1000, 150, 20, 4
PLOT = WIDTH - LEFT - 10
COLOURS = {
    "broadcast": "#c62828",
    "flush_tlb_func": "#1565c0",
    "rcu": "#2e7d32",
    "sched": "#9e9e9e",
    "other": "#8e24aa",
    "engine": "#ffb74d",
    "process": "#80cbc4",
    "cgroup": "#5d4037",
}
LEGEND = {
    "broadcast": "broadcast",
    "flush_tlb_func": "TLB shootdown",
    "rcu": "RCU",
    "sched": "wakeup",
    "other": "other request",
    "cgroup": "cgroup mkdir, rmdir",
}
Event = dict[str, Any]


@dataclass
class Trace:
    """The events of a file, with the group and the name of each track."""

    events: list[Event]
    facts: dict[str, Any]
    tracks: dict[tuple[int, int], tuple[str, str]]
    levels: dict[int, int] = field(default_factory=dict)  # of programs, by id(); on one level none overlap

    def __post_init__(self) -> None:
        """Give programs that run at the same time rows below each other."""
        ends: list[float] = []
        programs = [event for event in self.events if event["ph"] == "X" and event["cat"] == "process"]
        for event in sorted(programs, key=lambda event: float(event["ts"])):
            level = next((at for at, end in enumerate(ends) if end <= event["ts"]), len(ends))
            ends[level : level + 1] = [event["ts"] + event["dur"]]
            self.levels[id(event)] = level

    @classmethod
    def read(cls, path: Path) -> "Trace":
        """Parse the file."""
        whole = json.loads(path.read_bytes())
        events: list[Event] = whole["traceEvents"]
        groups = {each["pid"]: each["args"]["name"] for each in events if each["name"] == "process_name"}
        threads = [each for each in events if each["name"] == "thread_name"]
        tracks = {(each["pid"], each["tid"]): (groups[each["pid"]], each["args"]["name"]) for each in threads}
        return cls(events, whole["otherData"], tracks)

    def row(self, event: Event) -> str:
        """The row of the picture to which the event belongs; empty for none."""
        group, name = self.tracks[event["pid"], event["tid"]]
        if group.startswith("CPU"):
            return f"{group} {'sends' if name.startswith('sends') else 'runs'}"
        if event["cat"] == "engine":
            return "engine"
        if event["cat"] == "process":
            return f"programs {self.levels[id(event)] + 1}"
        return {"cgroup": "cgroups", "slab_mutex": "slab_mutex waits"}.get(event["cat"], "")

    def drawn(self) -> Iterator[tuple[str, Event]]:
        """Slices and instants, each with its row."""
        for event in self.events:
            if event["ph"] in {"X", "i"} and (row := self.row(event)):
                yield row, event

    def rows(self, began: float, ended: float) -> list[str]:
        """The rows that have something in a span, in the picture's order. CPUs are always there."""
        found = {
            row
            for row, event in self.drawn()
            if row.startswith("CPU") or (event["ts"] <= ended and event["ts"] + event.get("dur", 0) >= began)
        }
        order = ("engine", "programs", "cgroups", "slab_mutex", "CPU")
        return sorted(found, key=lambda row: (next(at for at, name in enumerate(order) if row.startswith(name)), row))


def colour(event: Event, broadcasts: set[str]) -> str:
    """The key in COLOURS."""
    args, category = event.get("args", {}), event["cat"]
    if category in {"engine", "process", "cgroup"}:
        return str(category)
    if args.get("broadcast") or (category == "target" and event["name"] in broadcasts):
        return "broadcast"
    reason = str(args.get("reason", ""))
    if reason == "flush_tlb_func":
        return reason
    origin = str(args.get("origin", ""))
    return origin if origin in {"rcu", "sched"} else "other"


@dataclass
class Panel:
    """A part of the timeline: `began` to `ended` in us, drawn from `top` px on."""

    trace: Trace
    title: str
    began: float
    ended: float
    top: int
    arrows: bool = False
    rows: list[str] = field(init=False)

    def __post_init__(self) -> None:
        """The rows of its span."""
        self.rows = self.trace.rows(self.began, self.ended)

    @property
    def height(self) -> int:
        """px"""
        return 44 + len(self.rows) * (ROW + GAP) + 26

    def x(self, at: float) -> float:
        """px"""
        return LEFT + (min(max(at, self.began), self.ended) - self.began) / (self.ended - self.began) * PLOT

    def y(self, row: str) -> int:
        """px"""
        return self.top + 44 + self.rows.index(row) * (ROW + GAP)

    def svg(self) -> Iterator[str]:
        """The panel."""
        yield f'<text class="title" x="10" y="{self.top + 24}">{escape(self.title)}</text>'
        for row in self.rows:
            yield f'<text x="{LEFT - 8}" y="{self.y(row) + 14}" text-anchor="end">{escape(row)}</text>'
            yield f'<rect x="{LEFT}" y="{self.y(row)}" width="{PLOT}" height="{ROW}" fill="#88888818"/>'
        yield from self._marks()
        if self.arrows:
            yield from self._flows()
        yield from self._axis()

    def _marks(self) -> Iterator[str]:
        broadcasts = {event["args"]["function"] for _, event in self.trace.drawn() if event["args"].get("broadcast")}
        kinds = list(COLOURS)
        marks = set()
        for row, event in self.trace.drawn():
            ends = event["ts"] + event.get("dur", 0)
            if ends < self.began or event["ts"] > self.ended:
                continue
            left = round(self.x(event["ts"]) * 2) / 2
            width = max(1.0, round((self.x(ends) - left) * 2) / 2 - (event["cat"] in {"engine", "process"}))
            kind = colour(event, broadcasts)
            marks.add((kind == "broadcast", -width, row, left, kind, self._label(event, width)))
        for _, width, row, left, kind, label in sorted(marks, key=lambda mark: (*mark[:4], kinds.index(mark[4]))):
            box = f'x="{left:g}" y="{self.y(row)}" width="{-width:g}" height="{ROW}"'
            yield f'<rect {box} fill="{COLOURS[kind]}"/>'
            if label:
                style = "on" if kind in {"broadcast", "flush_tlb_func", "rcu", "other"} else "in"
                yield f'<text class="{style}" x="{left + 3:g}" y="{self.y(row) + 14}">{escape(label)}</text>'

    def _label(self, event: Event, width: float) -> str:
        name = str(event["name"])
        return name if event["ph"] == "X" and width > 6.5 * len(name) + 6 else ""

    def _flows(self) -> Iterator[str]:
        begins = {event["id"]: event for event in self.trace.events if event["ph"] == "s"}
        for event in self.trace.events:
            if event["ph"] != "f" or not self.began <= event["ts"] <= self.ended:
                continue
            sender = begins[event["id"]]
            if sender["ts"] < self.began:
                continue
            rows = [self._cpu_row(sender, "sends"), self._cpu_row(event, "runs")]
            down = self.y(rows[0]) < self.y(rows[1])
            ends = [self.y(rows[0]) + (ROW if down else 0), self.y(rows[1]) + (0 if down else ROW)]
            line = f'x1="{self.x(sender["ts"]):.1f}" y1="{ends[0]}" x2="{self.x(event["ts"]):.1f}" y2="{ends[1]}"'
            yield f'<line {line} class="arrow" marker-end="url(#tip)"/>'

    def _cpu_row(self, event: Event, what: str) -> str:
        return f"{self.trace.tracks[event['pid'], event['tid']][0]} {what}"

    def _axis(self) -> Iterator[str]:
        span, below = self.ended - self.began, self.top + self.height - 10
        step = next(step for step in _steps() if span / step <= 10)
        at = 0.0
        while at <= span * 0.97:
            x = self.x(self.began + at)
            yield f'<line x1="{x:.1f}" y1="{below - 16}" x2="{x:.1f}" y2="{below - 12}" stroke="currentColor"/>'
            yield f'<text x="{x:.1f}" y="{below}" text-anchor="middle">{_time(at)}</text>'
            at += step


def _steps() -> Iterator[float]:
    for power in range(8):
        for digit in (1, 2, 5):
            yield float(digit * 10**power)


def _time(us: float) -> str:
    return f"{us / 1000:g} ms" if us >= 1000 else f"{us:g} us"


def _close(trace: Trace, began: float, ended: float) -> tuple[float, float, str]:
    """The span of the close view, and its title."""
    calls = sorted((e for e in trace.events if e["ph"] == "X" and e["cat"] == "call"), key=lambda e: e["ts"])
    calls = [call for call in calls if began <= call["ts"] <= ended]
    broadcasts = [call for call in calls if call["args"].get("broadcast") and call["args"].get("creation path")]
    chosen = broadcasts or calls
    if not chosen:
        return began, ended, "no multi-CPU call"
    first = chosen[0]
    near = [call for call in chosen if call["ts"] - first["ts"] < 2000]
    last = near[-1]["ts"] + near[-1]["dur"]
    margin = max(30.0, (last - first["ts"]) * 0.15)
    args = first["args"]
    what = f"{first['name']}, origin {args['origin']}, asked in {args['asked in']}"
    return first["ts"] - margin, last + margin, f"close view: {what}"


def draw(trace: Trace) -> str:
    """The whole picture."""
    lives = [event for event in trace.events if event["ph"] == "X" and event["cat"] == "container"]
    life = min(lives, key=lambda event: float(event["ts"]))
    began, ended = life["ts"], life["ts"] + life["dur"]
    facts = trace.facts
    where = f"{facts['engine']}, Linux {facts['kernel'].partition('-')[0]}, {facts['cpus_online']} CPUs"
    upper = Panel(trace, f"one container's life ({where})", began, ended, 0)
    close_began, close_ended, title = _close(trace, began, ended)
    lower = Panel(trace, title, close_began, close_ended, upper.height, arrows=True)
    legend_top = upper.height + lower.height
    parts: list[Callable[[], Iterable[str]]] = [upper.svg, lower.svg, lambda: _legend(legend_top)]
    body = "\n".join(line for part in parts for line in part())
    return f"{_HEAD.format(width=WIDTH, height=legend_top + 30)}\n{body}\n</svg>\n"


def _legend(top: int) -> Iterator[str]:
    for number, (key, text) in enumerate(LEGEND.items()):
        x = LEFT + number * 140
        yield f'<rect x="{x}" y="{top + 4}" width="12" height="12" fill="{COLOURS[key]}"/>'
        yield f'<text x="{x + 17}" y="{top + 14}">{text}</text>'


_HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"
 role="img" aria-label="The timeline of a container: engine, programs, cgroups, and what each CPU sends and runs">
<style>svg{{background:#fff;color:#333}} text{{font:12px sans-serif;fill:#333}}
.title{{font-weight:bold;font-size:14px}}
.in{{fill:#000;font-size:11px}} .on{{fill:#fff;font-size:11px}} .arrow{{stroke:#000;stroke-width:1}}</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0L8 4L0 8z"/></marker></defs>
<rect width="{width}" height="{height}" fill="#fff"/>"""


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(draw(Trace.read(Path(sys.argv[1]))), encoding="utf-8")
