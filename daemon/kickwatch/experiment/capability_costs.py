"""What a node loses without a capability, for `kickwatch doctor`."""

# By the name of the capability.
COSTS = {
    "memory cgroups": "no verdict: no container can be given a memory cgroup, and no canary can run",
    "kmem accounting": "no verdict: without it, creating a container creates no slab caches and cannot show the fault",
    "container engine": "no verdict: no container can be started",
    "a container": "no verdict: a trial's containers would fail, or show nothing",
    "observers": "no verdict: nothing counts what the kernel sends",
    "IPIs by reason": "no verdict `quiet`: the canary's counters can only show `broadcasting`; on arm64, and in "
    "most virtual machines, nothing",
    "kernel symbols": "no verdict: no request can be attributed to a kernel function",
    "lock contention": "nobody sees who waits for slab_mutex, and no such alert comes; verdicts are as good as ever",
    "slab_mutex": "waits for it, its holders, or broadcasts under it are not known; verdicts are as good as ever",
    "tracepoints": "a few single requests and ends of waits may be missed; calls to many CPUs never are",
    "interrupts to isolated CPUs": "some of what interrupts isolated CPUs is not counted; broadcasts are found as ever",
    "requests by target CPU": "some requests are missing from the figures by CPU; broadcasts are found as ever",
    "CPUs for the positive control": "no verdict: the probes cannot be shown to count",
    "cost per event": "none for verdicts: only how much the probe costs is not known",
    "positive control": "no verdict: the probe does not count what it must",
    "the service's probes": "as a service kickwatch does without what is lost; by hand, as root, `trial` has it",
    "the service's engine": "the service cannot work with this engine; by hand, as root, `trial` can",
    "containers of others": "no alert: passive mode cannot count what others start, nor bill it",
}
# Passive mode does without these.
NEEDED_TO_START = ("memory cgroups", "kmem accounting", "container engine", "a container")
# In passive mode, where it is something else.
PASSIVE_COSTS = {
    "memory cgroups": "none in passive mode, which makes no cgroup",
    "kmem accounting": "no alert of the fault of 2017: without it, no slab caches are created for a container",
    "container engine": "none in passive mode, except that what a killed kickwatch left there is not removed",
    "IPIs by reason": "no alert: nothing says what the kernel sends for containers",
    "kernel symbols": "no alert: no request can be attributed to a kernel function",
    "lock contention": "nobody sees who waits for slab_mutex; alerts of broadcasts are as good as ever",
    "slab_mutex": "waits for it, and its holders, are not known; alerts of broadcasts are as good as ever",
    "CPUs for the positive control": "no alert: the probes cannot be shown to count",
    "positive control": "no alert: the probe does not count what it must",
    "observers": "no alert: nothing counts what the kernel sends",
    "cost per event": "none for alerts: only how much the probe costs is not known",
}
