"""The limits of the budget and the shortest time between trials, derived from the configuration. Pure."""

from typing import NamedTuple

import msgspec

from kickwatch.configuration.types import BudgetConfig, Config, Preset
from kickwatch.errors import ConfigError

HOUR_S, DAY_S = 3600.0, 86_400.0


class Limits(msgspec.Struct, frozen=True):
    """The most that may be spent; None is no limit."""

    containers_per_hour: int | None
    containers_per_day: int | None
    cpu_share: float | None


PRESETS = {
    Preset.SENTINEL: Limits(containers_per_hour=60, containers_per_day=1440, cpu_share=0.01),
    Preset.STRESS: Limits(containers_per_hour=None, containers_per_day=None, cpu_share=None),
}


class BudgetWindow(NamedTuple):
    """In any span of `length_s` at most `most` containers may be started."""

    name: str
    key: str
    length_s: float
    most: int


def limits_of(config: BudgetConfig) -> Limits:
    """The limits in force. A key that is 0 takes the preset's value."""
    preset = PRESETS[config.preset]
    return Limits(
        containers_per_hour=config.containers_per_hour or preset.containers_per_hour,
        containers_per_day=config.containers_per_day or preset.containers_per_day,
        cpu_share=config.cpu_share or preset.cpu_share,
    )


def check_budget(config: Config) -> None:
    """Raise ConfigError if one trial is larger than a budget allows: it would wait for ever."""
    if config.workload.enabled:
        for window in windows(limits_of(config.budget)):
            require_fits(window, config.workload.containers_per_trial, config.budget)


def least_period_s(config: Config) -> float:
    """The shortest mean time from one trial to the next that pause, windows and budget allow."""
    containers = config.workload.containers_per_trial
    paces = [containers * window.length_s / window.most for window in windows(limits_of(config.budget))]
    return max(config.trial.interval_s + 2.0 * config.trial.window_s, *paces, 0.0)


def windows(limits: Limits) -> tuple[BudgetWindow, ...]:
    """The windows that have a limit."""
    given = (
        ("hour", "containers_per_hour", HOUR_S, limits.containers_per_hour),
        ("day", "containers_per_day", DAY_S, limits.containers_per_day),
    )
    return tuple(BudgetWindow(name, key, length_s, most) for name, key, length_s, most in given if most is not None)


def require_fits(window: BudgetWindow, containers: int, config: BudgetConfig) -> None:
    """Raise ConfigError if `containers` never fit into `window`."""
    if containers > window.most:
        source = "" if getattr(config, window.key) else f" (preset {config.preset})"
        raise ConfigError(
            f"workload.containers_per_trial = {containers} exceeds budget.{window.key} = {window.most}{source}",
            f"set fewer containers per trial, or raise budget.{window.key}",
        )
