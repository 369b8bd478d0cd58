"""Attribution of whole stacks: those of other kernels, and properties over all stacks that are recorded."""

import json
from pathlib import Path as FilePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickwatch.attribution.attribute import attribute
from kickwatch.attribution.origin_rules import RULES
from kickwatch.attribution.origins import asked_by, rule_of
from kickwatch.attribution.reasons import REASONS
from kickwatch.model import Origin, Path
from other_kernels import OTHER_KERNELS, OtherKernel

RECORDED = FilePath(__file__).parents[2] / "fixtures" / "captures" / "6.18-slub-docker.json"
STACKS = [
    (row["func"], [frame.split("+")[0] for frame in row["stack"]])
    for window in json.loads(RECORDED.read_text())["windows"]
    for row in window["requests"]
] + [(case.func, [frame.split("+")[0] for frame in case.stack.split()]) for case in OTHER_KERNELS]
FUNCS = [func for reason in REASONS for func in reason.funcs]
FRAMES = sorted({frame for _, stack in STACKS for frame in stack})
ENTRIES = ["asm_sysvec_apic_timer_interrupt", "asm_common_interrupt", "apic_timer_interrupt", "el1h_64_irq", "el1_irq"]

recorded = st.sampled_from(STACKS)
funcs = st.sampled_from(FUNCS)
frames = st.lists(st.sampled_from(FRAMES), max_size=12)
decorations = st.sampled_from(["", ".isra.0", ".constprop.0", ".part.0", ".cold", ".constprop.0.isra.0"])
offsets = st.sampled_from(["", "+0", "+176", "+0x1f/0x260", "+0x12/0x30 [veth]"])


@given(funcs, frames, st.sampled_from(ENTRIES), frames, frames)
def test_frames_beyond_an_interrupt_entry_change_nothing(
    func: str, inside: list[str], entry: str, below: list[str], other: list[str]
) -> None:
    assert attribute(func, [*inside, entry, *below]) == attribute(func, [*inside, entry, *other])


@given(recorded, st.data())
def test_suffixes_and_offsets_change_nothing(row: tuple[str, list[str]], data: st.DataObject) -> None:
    func, stack = row
    decorated = [frame + data.draw(decorations) + data.draw(offsets) for frame in stack]
    assert attribute(func + data.draw(decorations), decorated) == attribute(func, stack)


@given(recorded, st.lists(st.sampled_from(["vfs_write", "process_one_work", "do_syscall_64", "kthread"]), max_size=4))
def test_outermost_frames_change_nothing(row: tuple[str, list[str]], roots: list[str]) -> None:
    func, stack = row
    assert attribute(func, [*stack, *roots]) == attribute(func, stack)


@given(frames)
def test_a_frame_of_higher_rank_always_wins(stack: list[str]) -> None:
    """A loading module is the owner, whatever the other frames are."""
    assert asked_by([*stack, "load_module"])[0] is Origin.MODULE


def test_every_rule_tells_something_and_most_occur() -> None:
    assert all(rule.origin or rule.path for rule in RULES)
    seen = {rule_of(frame) for _, stack in STACKS for frame in stack}
    assert len(seen - {None}) > len(RULES) // 2


@pytest.mark.parametrize("case", OTHER_KERNELS, ids=lambda case: case.source)
def test_stacks_of_other_kernels(case: OtherKernel) -> None:
    found = attribute(case.func, case.stack.split())
    assert (found.origin, found.path) == (case.origin, case.path)


@pytest.mark.parametrize(
    ("innermost", "outermost", "path"),
    [
        ("alloc_shrinker_info", "mem_cgroup_css_online", Path.CREATE),
        ("memcg_expand_one_shrinker_map", "mem_cgroup_css_online", Path.CREATE),
        ("free_shrinker_info", "mem_cgroup_css_free", Path.DESTROY),
        ("memcg_free_shrinker_maps", "mem_cgroup_css_free", Path.DESTROY),
    ],
)
def test_shrinker_info_is_created_and_destroyed_with_its_memcg(innermost: str, outermost: str, path: Path) -> None:
    stack = ("smp_call_function_many_cond", "on_each_cpu_cond_mask", "flush_tlb_kernel_range", "vfree", "kvfree")
    found = attribute("do_kernel_range_flush", (*stack, innermost, outermost))
    assert (found.origin, found.path) == (Origin.MEMCG, path)
