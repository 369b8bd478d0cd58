"""From a request's function and stack to its reason, origin and path: the identity of a cell."""

from collections.abc import Sequence
from dataclasses import dataclass

from kickwatch.attribution.origins import asked_by
from kickwatch.attribution.reasons import reason_of
from kickwatch.attribution.stacks import matcher, own_part
from kickwatch.model import Origin, Path

_PATCHING = matcher("static_key_* jump_label_* __jump_label_update arch_jump_label_* __static_call_update")


@dataclass(frozen=True)
class Attribution:
    """Why a request was sent, who asked, and at which end of a container's life."""

    reason: str
    origin: Origin
    path: Path


def attribute(func: str, stack: Sequence[str]) -> Attribution:
    """The attribution of a request for `func` with the sender's `stack` (innermost first; empty if not taken).

    A request that an interrupt sent is `irq` and `other`, whichever task was interrupted. If the stack is empty or
    explains nothing, the origin follows from the function alone.
    """
    reason = reason_of(func)
    if reason.origin_is_certain and reason.origin:
        return Attribution(reason.name, reason.origin, Path.OTHER)
    frames, interrupt = own_part(stack)
    if interrupt:
        return Attribution(reason.name, Origin.IRQ, Path.OTHER)
    origin, path = asked_by(frames)
    if origin is Origin.UNKNOWN and reason.origin:
        origin = reason.origin
    return Attribution(reason.name, origin, path)


def patches_text(func: str, stack: Sequence[str]) -> bool:
    """True if the request makes other CPUs see patched text: known by its function on x86, by its stack elsewhere."""
    return reason_of(func).name == "do_sync_core" or any(map(_PATCHING.match, own_part(stack)[0]))
