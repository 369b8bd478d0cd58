"""The record of passive mode: as a trial's, without containers of ours and without a quiet window."""

import time

from kickwatch.experiment.armed_observers import ArmedObservers
from kickwatch.experiment.trial import disturbances_of
from kickwatch.model import Interrupts, KmemAccounting, Look, Node, Trial, Window, WindowKind
from kickwatch.node import kernel
from kickwatch.node.cgroups import Cgroups
from kickwatch.workload.names import new_trial_id

OTHERS = "others"  # in place of an engine: whichever started the containers


def passive_record(
    armed: ArmedObservers, window: Window, looks: tuple[Look, ...], *, slab_mutex_known: bool, senders_known: bool
) -> Trial:
    """A record of what was seen in `window`. Reads facts of the node. Raises OSError.

    `slab_mutex_known`, `senders_known`: all the time; a probe may learn the address of slab_mutex at the end.
    """
    quiet = Window(kind=WindowKind.QUIET, duration_ns=0, interrupts=Interrupts())
    return Trial(
        trial_id=new_trial_id(),
        seed=0,
        order=(WindowKind.PASSIVE,),
        started_unix_s=time.time() - window.duration_ns / 1e9,
        node=_node(armed),
        observers=armed.rungs,
        churn=window,
        quiet=quiet,
        containers=(),
        canary=None,
        kmem_accounting=KmemAccounting.UNKNOWN,
        concurrency=1,
        control=armed.control,
        slab_mutex_known=slab_mutex_known,
        senders_known=senders_known,
        isolated_cpus=armed.isolated_cpus,
        looks=looks,
        void=",".join(dict.fromkeys(disturbances_of(window))),
        notes=tuple(armed.losses),
    )


def _node(armed: ArmedObservers) -> Node:
    return Node(
        kernel=kernel.release(),
        arch=kernel.architecture(),
        cpus_online=armed.observatory.cpus_online,
        cgroup=Cgroups.read().version,
        engine=OTHERS,
        runtime="",
        network="",
        boot_id=kernel.boot_id(),
        rcu_expedited=kernel.rcu_expedited(),
    )
