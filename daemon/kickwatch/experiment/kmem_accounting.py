"""Whether the kernel charged kernel memory to a trial's containers: without it the 2017 fault cannot show. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from kickwatch.model import Container, KmemAccounting


@dataclass(frozen=True)
class KmemFacts:
    """What the node says about kernel memory accounting, apart from the containers' own memcgs.

    `disabled`: booted with cgroup.memory=nokmem. `deferred`: a memcg's kernel memory is one of cgroup v2's statistics,
    which the kernel updates every two seconds, or after a number of changes that grows with the number of CPUs ("memcg:
    infrastructure to flush memcg stats", 5.15). `paid`: the canary's group was charged for a bare child memcg.
    """

    disabled: bool = False
    deferred: bool = False
    paid: bool = False


def kmem_accounting(containers: Iterable[Container], facts: KmemFacts) -> KmemAccounting:
    """On if every container whose memcg was read was charged kernel memory.

    A deferred statistic may still be zero for a young container. Accounting is then switched for the whole boot, so one
    container that was charged proves it for all, and so does `facts.paid`. A memcg may be unread: a user's container
    can end before, while ours waits at its barrier.
    """
    if facts.disabled:
        return KmemAccounting.OFF
    read = [container.kmem_bytes for container in containers if not container.failure]
    known = [kmem_bytes for kmem_bytes in read if kmem_bytes is not None]
    if not known:
        return KmemAccounting.UNKNOWN
    if facts.deferred:
        return KmemAccounting.ON if facts.paid or any(known) else KmemAccounting.UNKNOWN
    return KmemAccounting.ON if all(known) else KmemAccounting.OFF
