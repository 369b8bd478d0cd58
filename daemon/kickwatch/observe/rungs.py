"""The ladders: for each thing to observe, ways to observe it, best first, chosen by trying.

A rung is tried by arming it; the first that can be armed is used, and why those above it could not is said. For tests
and for comparisons the environment can ask for one rung: nothing else is then tried.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

from kickwatch.errors import ObserveError

Observer = TypeVar("Observer")


IPI_VARIABLE = "KICKWATCH_RUNG_IPIS"
CONTENTION_VARIABLE = "KICKWATCH_RUNG_CONTENTION"


def asked(environment: Mapping[str, str], variable: str, rungs: type[StrEnum]) -> str | None:
    """The rung that the environment asks for; None where it does not. Raises ObserveError for a word that is none."""
    word = environment.get(variable, "")
    if word and word not in set(rungs):
        raise ObserveError(f"{variable} is {word!r}", "it may be " + ", ".join(rungs))
    return word or None


def climb(
    ladder: Sequence[tuple[StrEnum, Callable[[], Observer]]], wanted: str | None = None
) -> tuple[Observer | None, list[str]]:
    """(what could be armed, why what stands above it could not); None is the end of the ladder, where nothing is armed.

    With `wanted` no other rung is tried.
    """
    lost: list[str] = []
    for rung, arm in ladder:
        if wanted and rung != wanted:
            continue
        try:
            return arm(), lost
        except ObserveError as error:
            lost.append(str(error))
    return None, lost or [f"nothing was armed: {wanted} was asked for"]
