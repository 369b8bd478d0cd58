"""Reasons: what each function is for, and what it tells without a stack."""

import re

import pytest

from kickwatch.attribution.attribute import Attribution, attribute, patches_text
from kickwatch.attribution.reasons import BUSY_FUNCS, REASONS, RequestReason, explain, mask_follows_task, reason_of
from kickwatch.model import Origin, Path

UNEXPLAINED = ["smp_call_function_many_cond+800", "on_each_cpu_cond_mask+32", "some_driver_write+12", "vfs_write+202"]


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason.name)
def test_each_reason_has_a_meaning_and_cites_its_history(reason: RequestReason) -> None:
    assert re.fullmatch(rf"{reason.name} [a-z]+s[, ][^.]+", reason.sentence), "no predicate to the function"
    assert re.search(r'"[^"]+"[ ,(]+\d\.\d+(\.\d+)?\)', reason.history), "no commit subject with its release"


def test_a_function_that_is_not_in_the_table_has_no_meaning() -> None:
    assert (reason_of("ack_kick").sentence, reason_of("ack_kick").history) == ("", "")
    assert explain("ack_kick") == "ack_kick is not in kickwatch's table of kernel functions."


def test_an_explanation_is_the_meaning_and_the_history() -> None:
    text = explain("do_nothing")
    assert text.startswith(
        "kick_all_cpus_sync interrupts every CPU so that none still uses data that was just replaced."
    )
    assert "the fault of 2017" in text
    assert "\n" not in text


def test_no_function_has_two_reasons() -> None:
    funcs = [func for reason in REASONS for func in reason.funcs]
    assert len(funcs) == len(set(funcs))


def test_certain_and_busy_reasons_have_an_origin() -> None:
    assert all(reason.origin for reason in REASONS if reason.origin_is_certain or reason.busy)


def test_which_functions_are_busy() -> None:
    assert set(BUSY_FUNCS) == {"flush_tlb_func", "flush_tlb_func_remote", "sched_ttwu_pending", "nohz_csd_func"}


@pytest.mark.parametrize(
    ("func", "name"),
    [
        ("do_nothing", "kick_all_cpus_sync"),
        ("flush_tlb_func_remote", "flush_tlb_func"),
        ("sync_sched_exp_handler", "rcu_exp_handler"),
        ("rcu_barrier_func", "rcu_barrier_handler"),
        ("do_sync_core.constprop.0", "do_sync_core"),
        ("ack_kick", "ack_kick"),
        ("0xffffffffc0123456", "0xffffffffc0123456"),
        ("", "unknown"),
    ],
)
def test_a_reason_is_named_by_the_newest_name_of_its_function(func: str, name: str) -> None:
    assert reason_of(func).name == name


@pytest.mark.parametrize("func", ["flush_tlb_func", "ipi_mb", "ipi_sync_core", "ipi_rseq", "ipi_sync_rq_state"])
def test_masks_that_follow_a_task(func: str) -> None:
    assert mask_follows_task(func)


@pytest.mark.parametrize("func", ["do_nothing", "do_sync_core", "do_flush_tlb_all", "flush_cpu_slab", "ack_kick", ""])
def test_other_masks_do_not_follow_a_task(func: str) -> None:
    assert not mask_follows_task(func)


@pytest.mark.parametrize(
    ("func", "origin"),
    [
        ("flush_tlb_func", Origin.MM_USER),
        ("sched_ttwu_pending", Origin.SCHED),
        ("nohz_csd_func", Origin.SCHED),
        ("rcu_exp_handler", Origin.RCU),
        ("rcu_barrier_handler", Origin.RCU),
        ("remote_function", Origin.PERF),
        ("ipi_mb", Origin.MEMBARRIER),
        ("do_drain", Origin.SLAB),
        ("flush_cpu_slab", Origin.SLAB),
        ("do_sync_core", Origin.UNKNOWN),
        ("do_nothing", Origin.UNKNOWN),
        ("do_flush_tlb_all", Origin.UNKNOWN),
        ("ack_kick", Origin.UNKNOWN),
    ],
)
@pytest.mark.parametrize("stack", [(), UNEXPLAINED], ids=["no stack", "unexplained stack"])
def test_the_function_tells_the_origin_if_the_stack_does_not(func: str, origin: Origin, stack: list[str]) -> None:
    assert attribute(func, stack) == Attribution(reason_of(func).name, origin, Path.OTHER)


@pytest.mark.parametrize("func", ["rcu_exp_handler", "rcu_barrier_handler", *BUSY_FUNCS])
def test_certain_reasons_ignore_the_stack(func: str) -> None:
    stack = ["smp_call_function_single", "cleanup_net", "mem_cgroup_css_alloc", "cgroup_mkdir"]
    found = attribute(func, stack)
    assert found.origin in {Origin.RCU, Origin.SCHED, Origin.MM_USER}
    assert found.path is Path.OTHER


@pytest.mark.parametrize(
    ("func", "stack", "patches"),
    [
        ("do_sync_core", (), True),
        ("do_nothing", ("kick_all_cpus_sync", "arch_jump_label_transform_apply", "static_key_slow_inc"), True),
        ("do_nothing", ("kick_all_cpus_sync", "bpf_int_jit_compile", "bpf_prog_select_runtime"), False),
        ("do_nothing", ("smp_call_function_many_cond", "asm_sysvec_call_function", "static_key_slow_inc"), False),
    ],
)
def test_text_patching_is_recognised_by_function_or_by_stack(func: str, stack: tuple[str, ...], patches: bool) -> None:
    """On arm64 static keys and BPF programs both lead to kick_all_cpus_sync(): only the stack differs."""
    assert patches_text(func, stack) is patches
