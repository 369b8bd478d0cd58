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
    OTHER_INTERRUPTS = "interrupts to isolated CPUs that are no requests (reschedule, irq_work)"
    CONTAINERS = "containers that others start"
    MEMBERS = "what the containers of others ask for"


@dataclass(frozen=True)
class Loss:
    """One thing that is lost, why, and the remedy. Without `lost`, `what` says both: `this is not known: why`."""

    lost: Lost | None
    what: str
    remedy: str = ""

    @property
    def name(self) -> str:
        """What is lost, without the reason."""
        return self.what.partition(":")[0] if self.lost is None else self.lost.value

    @classmethod
    def by(cls, lost: Lost, error: ObserveError) -> "Loss":
        """The loss that a refusal causes. Of a diagnosed one the cause is named, not the call."""
        if isinstance(error, RefusedError):
            return cls(lost, error.cause.what, error.cause.remedy)
        return cls(lost, error.what, error.remedy)


def sentences(losses: Iterable[Loss]) -> list[str]:
    """One sentence a cause."""
    by_cause: dict[tuple[str, str], dict[Lost, None]] = {}
    for loss in losses:
        lost = by_cause.setdefault((loss.what, loss.remedy), {})
        if loss.lost is not None:
            lost[loss.lost] = None
    return [
        what + (f"; lost: {', '.join(lost)}" if lost else "") + (f"; fix: {remedy}" if remedy else "")
        for (what, remedy), lost in by_cause.items()
    ]


def causes(losses: Iterable[Loss]) -> tuple[str, str]:
    """(what is the case, what removes it), of all `losses` together."""
    found = tuple(losses)
    texts = [loss.what for loss in found], [loss.remedy for loss in found]
    what, remedy = ("; ".join(dict.fromkeys(filter(None, each))) for each in texts)
    return what, remedy
