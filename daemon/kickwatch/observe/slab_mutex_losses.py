"""What the armed probes do not know of slab_mutex, for now or because they may not read kernel memory."""

from collections.abc import Iterator, Sequence

from kickwatch.node.causes import TRACEPOINTS_FOR_WAITS
from kickwatch.observe.contention import ContentionObserver
from kickwatch.observe.losses import Loss, Lost, causes
from kickwatch.observe.requests import RequestObserver

_NOT_LISTED = "kallsyms does not list slab_mutex, and no task has waited for it yet"
_LISTED = "a kernel with CONFIG_KALLSYMS_ALL; on this one kickwatch learns the address at the first wait"
_NO_OWNER = "PREEMPT_RT keeps a mutex's owner where only a finished wait shows it, and"
_LEARNT_LATER = "none is needed: kickwatch learns it at the first wait; a restart tries to cause one"


def slab_mutex_losses(
    requests: RequestObserver | None, contention: ContentionObserver | None, lost: Sequence[Loss]
) -> Iterator[Loss]:
    """Its address, who holds it while a request is sent, and its holders. `lost`: what could not be armed."""
    armed = [observer for observer in (requests, contention) if observer is not None]
    if contention is not None and not any(observer.slab_mutex for observer in armed):
        yield Loss(Lost.SLAB_MUTEX, _NOT_LISTED, _LISTED)
    for kind, observer in ((Lost.UNDER_MUTEX, requests), (Lost.HOLDERS, contention)):
        if observer is None:
            continue
        if observer.probe.unread is not None:
            yield Loss.by(kind, observer.probe.unread)
        elif observer.slab_mutex and observer.owner_offset is None:
            yield Loss(kind, *_why_no_owner(lost, waits=contention is not None))


def _why_no_owner(lost: Sequence[Loss], *, waits: bool) -> tuple[str, str]:
    if waits:
        return f"{_NO_OWNER} no task has waited yet", _LEARNT_LATER
    no_waits = [loss for loss in lost if loss.lost is Lost.WAITS]
    return f"{_NO_OWNER} no probe of waits is armed", causes(no_waits)[1] or TRACEPOINTS_FOR_WAITS
