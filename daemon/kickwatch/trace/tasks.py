"""Which names of tasks a trace shows: kernel threads, container engines and kickwatch. Others stay unnamed."""

from kickwatch.attribution.stacks import matcher

UNNAMED = "(a program of this node)"
_KERNEL = matcher(
    """
    swapper/* kworker/* ksoftirqd/* migration/* rcu_* rcuc/* rcuop/* rcuog/* rcub/* cpuhp/* kthreadd khugepaged
    kcompactd* kswapd* ksmd idle_inject/* irq/* kauditd oom_reaper writeback netns jbd2/*
    """
)
_ENGINES = matcher(
    """
    dockerd containerd containerd-shim* runc runc:* crun crun-* podman conmon docker-init docker-proxy docker exe
    kickwatch kw-* unpigz iptables ip6tables
    """
)


_OURS = matcher("workload kw-barrier")  # its second name is that at its barrier


def task_name(comm: str) -> str:
    """The name, or UNNAMED for a program that is neither the kernel's nor an engine's."""
    return comm if _KERNEL.match(comm) or _OURS.match(comm) or is_engine(comm) else UNNAMED


def is_ours(comm: str) -> bool:
    """True for the program that kickwatch runs in its containers. Another program may have that name."""
    return _OURS.match(comm) is not None


def is_engine(comm: str) -> bool:
    """True for programs of container engines, and of kickwatch outside of its containers."""
    return _ENGINES.match(comm) is not None
