"""Whether the kernel charged kernel memory to a trial's containers: without it the 2017 fault cannot show. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from kickwatch.model import Container, KmemAccounting


@dataclass(frozen=True)
class KmemFacts:
    """What the node says about kernel memory accounting, apart from the containers' own memcgs.

    `disabled`: booted with cgroup.memory=nokmem. `deferred`: a memcg's kernel memory is one of cgroup v2's statistics,
    which the kernel updates every two seconds, or after a number of changes that grows with the number of CPUs ("memcg:
    infrastructure to flush memcg stats", 5.15). `paid`: a bare memcg of the canary was charged. `own_memcgs`: the
    engine gave the containers memcgs, as their parent's shows.
    """

    disabled: bool = False
    deferred: bool = False
    paid: bool = False
    own_memcgs: bool = False


def kmem_accounting(containers: Iterable[Container], facts: KmemFacts) -> KmemAccounting:
    """On if every container whose memcg was read was charged kernel memory.

    A deferred statistic may still be zero for a young container. Accounting is switched for the whole boot (on v1 since
    "mm: memcontrol: enable kmem accounting for all cgroups in the legacy hierarchy", 4.6), so one container that was
    charged proves it for all, and so does `facts.paid`. A user's program may end before its memcg is read, while ours
    waits at its barrier: if all do, the bare memcg alone is the proof.
    """
    if facts.disabled:
        return KmemAccounting.OFF
    counted = [container for container in containers if not container.failure]
    if counted and all(container.ended_unread for container in counted):
        return KmemAccounting.ON if facts.paid and facts.own_memcgs else KmemAccounting.UNKNOWN
    known = [container.kmem_bytes for container in counted if container.kmem_bytes is not None]
    if not known:
        return KmemAccounting.UNKNOWN
    if facts.deferred:
        return KmemAccounting.ON if facts.paid or any(known) else KmemAccounting.UNKNOWN
    return KmemAccounting.ON if all(known) else KmemAccounting.OFF
