"""Who asked: the part of the kernel, and the end of a container's life, that the frames of a stack tell.

Each frame is looked up in the table of `origin_rules`; then the frames are weighed:

- **Rank first.** An owner answers for whatever it runs (a module that creates slab caches while it loads). An asker
  outranks the services it uses (the percpu allocator, the network stack on behalf of a namespace). These outrank
  mechanisms: a static key flipped under `mem_cgroup_write` is `memcg`, and `static-key` is what remains.
- **Innermost second.** Among frames of equal rank the one nearest to the request explains it: a memcg freed under
  `cgroup_mkdir` is a failed creation being cleaned up (`destroy`); caches destroyed under `cleanup_net` are `slab`.

Origin and path are read independently by these two rules, since a frame may tell only one of them:
`__kmem_cache_shrink` tells `slab`, and its callers tell why. If no frame tells a path, it is `other`.
"""

from collections.abc import Sequence
from functools import lru_cache

from kickwatch.attribution.origin_rules import RULES, OriginRule
from kickwatch.model import Origin, Path

# Recorders cut stacks. A stack that ends at a frame which is never the outermost lacks the asker. On a healthy kernel
# before 5.18 page attributes of kernel mappings change when a BPF program is made or freed (see the rules of bpf): on
# 4.19 such cut stacks were as frequent as those that name the JIT, two of each per container.
_CUT_AT = {"change_page_attr_set_clr": Origin.BPF}


@lru_cache(maxsize=8192)
def rule_of(function: str) -> OriginRule | None:
    """The first rule that names a function; None for one that explains nothing."""
    return next((rule for rule in RULES if rule.functions.match(function)), None)


def asked_by(frames: Sequence[str]) -> tuple[Origin, Path]:
    """Origin and path from plain frames, innermost first and cut at the interrupt; UNKNOWN and OTHER if none tells."""
    rules = sorted(filter(None, map(rule_of, frames)), key=lambda rule: rule.rank)
    origin = next((rule.origin for rule in rules if rule.origin), Origin.UNKNOWN)
    path = next((rule.path for rule in rules if rule.path), Path.OTHER)
    if origin is Origin.VMALLOC:
        origin = _CUT_AT.get(frames[-1], origin)
    return origin, path
