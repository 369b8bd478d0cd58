"""What the reasons for `unknown` and the findings mean, and what to do about a reason. Pure tables."""

from kickwatch.detect.verdict import Finding, VerdictReason

# What each reason for `unknown` means; what to do about it; a command for that, or nothing.
WHY_OPEN: dict[VerdictReason, tuple[str, str, str]] = {
    VerdictReason.INSUFFICIENT_EVIDENCE: ("too few containers to decide ({count})", "", ""),
    VerdictReason.TOO_FEW_CONTAINERS: ("too few containers to decide ({count})", "", ""),
    VerdictReason.BROADCASTS_ELSEWHERE: (
        "broadcasts come with {containers}, but not from the creation path; whether containers cause them is open",
        "",
        "",
    ),
    VerdictReason.CONTAINERS_FAILED: (
        "nearly all containers failed",
        "make containers start here: `failed` above says why they do not",
        "",
    ),
    VerdictReason.KMEM_ACCOUNTING_OFF: (
        "kernel memory of the containers was not accounted, and without that the fault cannot show",
        "boot without cgroup.memory=nokmem",
        "",
    ),
    VerdictReason.KMEM_ACCOUNTING_UNKNOWN: (
        "whether kernel memory of the containers was accounted could not be read",
        "see whether this node can account it",
        "kickwatch doctor",
    ),
    VerdictReason.BLIND: (
        "the probes cannot see what a verdict needs",
        "see what is missing, and how to fix it",
        "kickwatch doctor --control",
    ),
    VerdictReason.WAKEUPS_COUNTED: (
        "without a probe only /proc/interrupts is left, whose function call interrupts include remote wakeups here",
        "see why no probe is armed, and how to fix it",
        "kickwatch doctor",
    ),
    VerdictReason.EVENTS_LOST: (
        "the probes lost events, and a broadcast may be among them",
        "run it again when the node is less busy",
        "kickwatch trial",
    ),
    VerdictReason.ONE_CPU: (
        "only one CPU is online, so there is nothing to interrupt",
        "use a node with more CPUs",
        "",
    ),
    VerdictReason.DISTURBED: (
        "the machine changed during the trial, so its figures prove nothing",
        "run it again while nobody traces, suspends, or restarts the engine",
        "kickwatch trial",
    ),
    VerdictReason.STALE: ("the evidence is too old", "run it again", "kickwatch trial"),
}
FINDINGS = {
    Finding.SLAB_MUTEX_CONTENTION: "containers make tasks wait for slab_mutex (below)",
    Finding.SINGLE_REQUEST_SWEEPS: "the creation path interrupts about all CPUs per container, one after another",
    Finding.UNSETTLED: "the creation path was still sending when the trial ended: some of it may be missing",
    Finding.FAILED_CONTAINERS: "some containers failed, and do not count",
}
