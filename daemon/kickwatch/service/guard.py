"""The guard: whether the node is under too much pressure for a trial. Pure: it takes readings and the time.

A pause begins with the first reading beyond its threshold. It ends once every reading has been well within its
threshold (below it by `resume_share`, or above it if it is a minimum) for `resume_after_s`. Between the two levels
nothing changes. A missing reading begins no pause, and a pause that it caused does not end without it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from kickwatch.configuration.types import GuardConfig, Preset
from kickwatch.node.pressure import Cause, Pressure
from kickwatch.outlets.live_status import GuardReading

MADE_BY_CHURN = frozenset({Cause.CPU_PRESSURE, Cause.IO_PRESSURE, Cause.LOAD})  # `stress` causes these on purpose
_FLOORS = frozenset({Cause.MEMORY, Cause.DISK})
_TEXTS = {
    Cause.CPU_PRESSURE: ("cpu pressure", ".1f", " %"),
    Cause.MEMORY_PRESSURE: ("memory pressure", ".1f", " %"),
    Cause.IO_PRESSURE: ("io pressure", ".1f", " %"),
    Cause.LOAD: ("load", ".2f", " per CPU"),
    Cause.MEMORY: ("available memory", ".1f", " %"),
    Cause.DISK: ("free disk of the engine", ".1f", " %"),
    Cause.CONTAINERS: ("containers", ".0f", ""),
    Cause.DYING_MEMCGS: ("dying memory cgroups", ".0f", ""),
}


class Decision(msgspec.Struct, frozen=True):
    """Whether trials wait, and why. `causes`: all since the pause began, in order; `paused_s`: its length so far.

    `began` and `ended` are true only in the decision that begins or ends a pause; the one that ends it has the whole
    length and all causes. `lasted_s`: the part of the pause since the decision before. `what`: a sentence with figures,
    empty without a pause.
    """

    paused: bool
    causes: tuple[Cause, ...] = ()
    began: bool = False
    ended: bool = False
    paused_s: float = 0.0
    lasted_s: float = 0.0
    what: str = ""


class Threshold(msgspec.Struct, frozen=True):
    """A limit, and the level at which the pause may end."""

    cause: Cause
    limit: float
    resume: float

    def exceeded(self, value: float) -> bool:
        """True beyond the limit; the limit itself is allowed."""
        return value < self.limit if self.cause in _FLOORS else value > self.limit

    def clear(self, value: float) -> bool:
        """True at the resume level or better."""
        return value >= self.resume if self.cause in _FLOORS else value <= self.resume

    def text(self, value: float, *, exceeded: bool) -> str:
        """`io pressure 63.0 % (limit 50 %)`, or `io pressure 45.0 % (resumes at 40 %)`."""
        name, form, unit = _TEXTS[self.cause]
        bound, level = ("limit", self.limit) if exceeded else ("resumes at", self.resume)
        return f"{name} {value:{form}}{unit} ({bound} {level:.10g}{unit})"


@dataclass
class _Pause:
    """`causes` in the order they appeared, each with its latest reading."""

    since_s: float
    looked_at_s: float
    causes: dict[Cause, float] = field(default_factory=dict)
    calm_since_s: float | None = None

    def calm_s(self, now_s: float) -> float:
        """How long every reading has been clear; 0 if one is not."""
        return 0.0 if self.calm_since_s is None else now_s - self.calm_since_s


class Guard:
    """Decides, reading after reading. One for each configuration."""

    def __init__(self, config: GuardConfig, preset: Preset) -> None:
        """Under the preset `stress` the guard ignores what the churn itself causes."""
        self.resume_after_s = config.resume_after_s
        self.thresholds = thresholds(config, preset) if config.enabled else ()
        self._pause: _Pause | None = None

    @property
    def paused(self) -> bool:
        """True if the last decision was a pause."""
        return self._pause is not None

    def look(self, pressure: Pressure, now_s: float) -> Decision:
        """The decision after one more reading; `now_s` is monotonic."""
        read = {cause: value for cause, value in readings(pressure).items() if value is not None}
        exceeded = {one.cause for one in self.thresholds if one.cause in read and one.exceeded(read[one.cause])}
        if self._pause is None:
            if not exceeded:
                return Decision(paused=False)
            self._pause = _Pause(now_s, now_s)
            return self._held(self._pause, read, exceeded, now_s, began=True)
        return self._held(self._pause, read, exceeded, now_s, began=False)

    def _held(
        self, pause: _Pause, read: dict[Cause, float], exceeded: set[Cause], now_s: float, *, began: bool
    ) -> Decision:
        """The decision during a pause: it goes on, or it ends."""
        known = [cause for cause in read if cause in exceeded or cause in pause.causes]
        pause.causes |= {cause: read[cause] for cause in known}
        latest = pause.causes | read  # a cause that cannot be read counts as last read
        unclear = [one for one in self.thresholds if one.cause in latest and not one.clear(latest[one.cause])]
        if unclear:
            pause.calm_since_s = None
        elif pause.calm_since_s is None:
            pause.calm_since_s = now_s
        missing = [cause for cause in pause.causes if cause not in read]
        over = not began and not unclear and not missing and pause.calm_s(now_s) >= self.resume_after_s
        paused_s, lasted_s = max(0.0, now_s - pause.since_s), max(0.0, now_s - pause.looked_at_s)
        pause.looked_at_s = now_s
        if over:
            self._pause = None
            names = ", ".join(_TEXTS[cause][0] for cause in pause.causes)
            what = f"calm again after a pause of {paused_s:.0f} s for {names}"
            causes = tuple(pause.causes)
            return Decision(paused=False, causes=causes, ended=True, paused_s=paused_s, lasted_s=lasted_s, what=what)
        parts = [one.text(latest[one.cause], exceeded=one.cause in exceeded) for one in unclear]
        if not unclear:
            parts.append(f"calm for {pause.calm_s(now_s):.0f} s, resumes after {self.resume_after_s:.10g} s")
        parts += [f"{_TEXTS[cause][0]} cannot be read" for cause in missing]
        return Decision(
            paused=True,
            causes=tuple(pause.causes),
            began=began,
            paused_s=paused_s,
            lasted_s=lasted_s,
            what=", ".join(parts),
        )


def shown_readings(pressure: Pressure, limits: Iterable[Threshold]) -> tuple[GuardReading, ...]:
    """Every figure that has a limit, for the status file."""
    read = readings(pressure)
    return tuple(
        GuardReading(
            name=_TEXTS[one.cause][0],
            value=None if (value := read[one.cause]) is None else round(float(value), 2),
            limit=one.limit,
            unit=_TEXTS[one.cause][2].strip(),
            floor=one.cause in _FLOORS,
            exceeded=value is not None and one.exceeded(value),
        )
        for one in limits
    )


def readings(pressure: Pressure) -> dict[Cause, float | None]:
    """Each reading, by the cause of a pause it can be."""
    return {
        Cause.CPU_PRESSURE: pressure.cpu_some_pct,
        Cause.MEMORY_PRESSURE: pressure.memory_some_pct,
        Cause.IO_PRESSURE: pressure.io_some_pct,
        Cause.LOAD: pressure.load_per_cpu,
        Cause.MEMORY: pressure.available_memory_pct,
        Cause.DISK: pressure.engine_disk_free_pct,
        Cause.CONTAINERS: pressure.containers,
        Cause.DYING_MEMCGS: pressure.dying_memcgs,
    }


def thresholds(config: GuardConfig, preset: Preset) -> tuple[Threshold, ...]:
    """Every threshold in use."""
    limits: dict[Cause, float] = {
        Cause.CPU_PRESSURE: config.cpu_pressure_pct,
        Cause.MEMORY_PRESSURE: config.memory_pressure_pct,
        Cause.IO_PRESSURE: config.io_pressure_pct,
        Cause.LOAD: config.load_per_cpu,
        Cause.MEMORY: config.available_memory_pct,
        Cause.DISK: config.engine_disk_free_pct,
        Cause.CONTAINERS: config.containers,
        Cause.DYING_MEMCGS: config.dying_memcgs,
    }
    ignored = MADE_BY_CHURN if preset is Preset.STRESS else frozenset[Cause]()
    return tuple(
        Threshold(cause, limit, _resume(cause, limit, config.resume_share))
        for cause, limit in limits.items()
        if limit and cause not in ignored
    )


def _resume(cause: Cause, limit: float, share: float) -> float:
    """Below the limit by `share` of it. A minimum resumes above it, at most at 100: one of 90 % resumes at 92 %."""
    return limit + share * min(limit, 100.0 - limit) if cause in _FLOORS else limit * (1.0 - share)
