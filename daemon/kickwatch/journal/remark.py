"""Remarks: what a person should know about the set-up.

Each kind is a separate event (`journal.remarks`); a trial's record has their texts.
"""

from collections.abc import Iterable
from enum import StrEnum

import msgspec


class RemarkKind(StrEnum):
    """The subject of a remark."""

    CAPABILITY_LOST = "capability_lost"
    RUNTIME_DRIVEN = "runtime_driven"  # as configured
    RUNTIME_INSTEAD = "runtime_instead"  # because no engine answers
    SECCOMP_MISSING = "seccomp_missing"
    KUBELET_BESIDE = "kubelet_beside"
    WARM_UP_FAILED = "warm_up_failed"
    KNOB_IGNORED = "knob_ignored"
    MEMCG_LINGERS = "memcg_lingers"


class Remark(msgspec.Struct, frozen=True):
    """One remark, as a sentence."""

    kind: RemarkKind
    text: str


def texts_of(remarks: Iterable[Remark]) -> list[str]:
    """The texts, for a trial's record."""
    return [remark.text for remark in remarks]
