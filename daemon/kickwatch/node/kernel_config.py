"""The kernel's build configuration, where it can be read: the options that decide how caches, memcgs and IPIs work."""

import gzip
import re
from collections.abc import Sequence
from pathlib import Path

from kickwatch.node.roots import HOST

# In the order in which a reader asks for them.
OPTIONS = (
    *("CONFIG_SMP", "CONFIG_NR_CPUS", "CONFIG_PREEMPT_NONE", "CONFIG_PREEMPT_VOLUNTARY", "CONFIG_PREEMPT"),
    *("CONFIG_PREEMPT_DYNAMIC", "CONFIG_PREEMPT_RT", "CONFIG_HZ", "CONFIG_NO_HZ_FULL", "CONFIG_SLAB", "CONFIG_SLUB"),
    *("CONFIG_SLUB_CPU_PARTIAL", "CONFIG_MEMCG", "CONFIG_MEMCG_KMEM", "CONFIG_MEMCG_V1", "CONFIG_CGROUP_BPF"),
    *("CONFIG_BPF_JIT", "CONFIG_BPF_JIT_ALWAYS_ON", "CONFIG_JUMP_LABEL", "CONFIG_RCU_NOCB_CPU", "CONFIG_KASAN"),
    *("CONFIG_PROVE_LOCKING", "CONFIG_DEBUG_PAGEALLOC"),
)
_LINE = re.compile(r"^(CONFIG_[A-Z0-9_]+)=([0-9]+|[ymn])$", re.MULTILINE)


def kernel_config(
    release: str, proc: Path = HOST.proc, boot: Path = HOST.root / "boot", wanted: Sequence[str] = OPTIONS
) -> dict[str, str]:
    """The options of `wanted` that are set in the kernel `release`; empty where its configuration is not readable.

    /proc/config.gz is the running kernel's; /boot/config-RELEASE is where distributions put theirs.
    """
    text = ""
    try:
        running = (proc / "sys/kernel/osrelease").read_text(encoding="ascii", errors="replace").strip()
        if running == release:
            text = gzip.decompress((proc / "config.gz").read_bytes()).decode("ascii", "replace")
    except (OSError, EOFError):
        text = ""
    if not text and "/" not in release:
        try:
            text = (boot / f"config-{release}").read_text(encoding="ascii", errors="replace")
        except OSError:
            return {}
    known = dict(_LINE.findall(text))
    return {name: known[name] for name in wanted if name in known}
