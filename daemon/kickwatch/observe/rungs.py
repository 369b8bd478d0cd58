"""The ladders: for each thing to observe the ways to observe it, best first, chosen by trying.

A rung is tried by arming it. The first that can be armed is used; the reasons why better ones could not are reported.
For tests and comparisons an environment variable can ask for one rung, and then no other is tried.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

from kickwatch.errors import ConfigError, ObserveError

Observer = TypeVar("Observer")


IPI_VARIABLE = "KICKWATCH_RUNG_IPIS"
CONTENTION_VARIABLE = "KICKWATCH_RUNG_CONTENTION"
_UNSET = f"unset {IPI_VARIABLE} and {CONTENTION_VARIABLE}"


def requested_rung(environment: Mapping[str, str], variable: str, rungs: type[StrEnum]) -> str | None:
    """The rung that the environment asks for, None if it does not. Raises ConfigError for an unknown rung."""
    word = environment.get(variable, "")
    if word and word not in set(rungs):
        raise ConfigError(f"{variable} is {word!r}", "it may be " + ", ".join(rungs))
    return word or None


def climb(
    ladder: Sequence[tuple[StrEnum, Callable[[], Observer]]], wanted: str | None = None
) -> tuple[Observer | None, list[ObserveError]]:
    """(the observer that could be armed, None if none; why each better rung could not be armed).

    With `wanted` no other rung is tried.
    """
    lost: list[ObserveError] = []
    for rung, arm in ladder:
        if wanted and rung != wanted:
            continue
        try:
            return arm(), lost
        except ObserveError as error:
            lost.append(error)
    return None, lost or [ObserveError(f"nothing was armed: {wanted} was asked for", _UNSET)]
