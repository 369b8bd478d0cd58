"""What a person should know of the set-up.

Each kind is an event of its own (`journal.remarks`); the record of a trial has the texts.
"""

from collections.abc import Iterable
from enum import StrEnum

import msgspec


class RemarkKind(StrEnum):
    """What a remark is about."""

    CAPABILITY_LOST = "capability_lost"
    RUNTIME_DRIVEN = "runtime_driven"  # as configured
    RUNTIME_INSTEAD = "runtime_instead"  # of an engine that does not answer
    SECCOMP_MISSING = "seccomp_missing"
    WARM_UP_FAILED = "warm_up_failed"
    KNOB_IGNORED = "knob_ignored"
    MEMCG_LINGERS = "memcg_lingers"


class Remark(msgspec.Struct, frozen=True):
    """One of them, in a sentence."""

    kind: RemarkKind
    text: str


def losses(texts: Iterable[str]) -> tuple[Remark, ...]:
    """What the observers cannot see, each with its reason."""
    return tuple(Remark(RemarkKind.CAPABILITY_LOST, text) for text in texts)


def texts_of(remarks: Iterable[Remark]) -> list[str]:
    """What a trial's record has of them."""
    return [remark.text for remark in remarks]
