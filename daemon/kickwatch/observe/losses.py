"""What cannot be observed, and why: each cause is reported once, with all that it takes away."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from kickwatch.errors import ObserveError
from kickwatch.observe.refused import RefusedError


class Lost(StrEnum):
    """What may be lost, in words."""

    NAMES = "names of kernel functions, and with them IPIs by reason and waits"
    REQUESTS = "IPIs by reason"
    BETTER_REQUESTS = "the tracepoint for IPIs (kprobes count them)"
    WAITS = "waits for slab_mutex"
    BETTER_WAITS = "the tracepoints for waits (kprobes count them)"
    UNDER_MUTEX = "whether a sender holds slab_mutex"
    HOLDERS = "who holds slab_mutex"
    SLAB_MUTEX = "the address of slab_mutex, and with it who waits for it"
    OTHER_INTERRUPTS = "interrupts to isolated CPUs that are no requests (reschedule, irq_work)"
    FAR_REQUESTS = "requests to isolated CPUs beyond the probes' masks"
    TARGETS = "the target CPUs of some requests"
    CONTAINERS = "containers that others start"
    MEMBERS = "what the containers of others ask for"


_ORDER = tuple(Lost)


@dataclass(frozen=True)
class Loss:
    """One thing that is lost, why, and what removes the cause: where nothing does, `remedy` says so."""

    lost: Lost
    what: str
    remedy: str

    @classmethod
    def by(cls, lost: Lost, error: ObserveError) -> "Loss":
        """The loss that a refusal causes. Of a diagnosed one the cause is named, not the call."""
        if isinstance(error, RefusedError):
            return cls(lost, error.cause.what, error.cause.remedy)
        return cls(lost, error.what, error.remedy)


def sentences(losses: Iterable[Loss]) -> list[str]:
    """One sentence a cause. What it takes away is in the order of `Lost`, whichever probe found it first."""
    by_cause: dict[tuple[str, str], dict[Lost, None]] = {}
    for loss in losses:
        by_cause.setdefault((loss.what, loss.remedy), {})[loss.lost] = None
    return [
        f"{what}; lost: {', '.join(sorted(lost, key=_ORDER.index))}" + (f"; fix: {remedy}" if remedy else "")
        for (what, remedy), lost in by_cause.items()
    ]


def causes(losses: Iterable[Loss]) -> tuple[str, str]:
    """(what is the case, what removes it), of all `losses` together."""
    found = tuple(losses)
    texts = [loss.what for loss in found], [loss.remedy for loss in found]
    what, remedy = ("; ".join(dict.fromkeys(filter(None, each))) for each in texts)
    return what, remedy
