"""Bands of the timeline: how long a value held (a kernel release, an engine, a boot, a verdict). Pure."""

from dataclasses import dataclass

MOST_SPANS = 150


@dataclass(slots=True)
class Span:
    """Consecutive trials with the same value."""

    value: str
    first_unix_s: float
    last_unix_s: float
    trials: int = 1


class Spans:
    """The spans of one kind, in order. `left_out`: changes beyond the first MOST_SPANS; the last span takes them in."""

    def __init__(self) -> None:
        """None yet."""
        self.spans: list[Span] = []
        self.left_out = 0
        self.changes = 0
        self._value: str | None = None

    def add(self, value: str, first_unix_s: float, last_unix_s: float) -> None:
        """One more trial with `value`."""
        changed, self._value = value != self._value, value
        self.changes += changed
        if changed and len(self.spans) < MOST_SPANS:
            self.spans.append(Span(value, first_unix_s, last_unix_s))
            return
        last = self.spans[-1]
        self.left_out += changed
        last.trials += 1
        last.last_unix_s = max(last.last_unix_s, last_unix_s)
