"""One thing that kickwatch uses on a node, as `kickwatch doctor` found it."""

from collections.abc import Iterable

import msgspec


class Capability(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that kickwatch uses. Without a `needed` one kickwatch is blind. `cost`: of what is missing.

    One that is not `tried` counts as satisfied, and its `detail` is the reason.
    """

    name: str
    satisfied: bool
    detail: str
    remedy: str = ""
    needed: bool = False
    cost: str = ""
    tried: bool = True


def blind(found: Iterable[Capability]) -> bool:
    """True if a needed capability is missing."""
    return any(capability.needed and not capability.satisfied for capability in found)
