"""The known reasons, with their functions in one kernel."""

from kickwatch.attribution.reasons import REASONS
from kickwatch.experiment.known_reasons import functions_found, known_reasons
from kickwatch.observe.symbols import Symbols

SYMBOLS = Symbols.parse("1000 t do_nothing\n2000 t rcu_exp_handler.isra.0\n3000 t sync_rcu_exp_handler\n4000 t end\n")


def test_each_reason_has_its_functions_in_this_kernel() -> None:
    found = {reason.reason: reason.functions for reason in known_reasons(SYMBOLS)}
    assert list(found) == [reason.name for reason in REASONS]
    assert {name: functions for name, functions in found.items() if functions} == {
        "kick_all_cpus_sync": ("do_nothing",),
        "rcu_exp_handler": ("sync_rcu_exp_handler",),  # a pointer never refers to a clone
    }
    assert functions_found(SYMBOLS) == f"the functions of 2 of {len(REASONS)} known reasons for IPIs"


def test_each_reason_is_explained() -> None:
    for reason in known_reasons(SYMBOLS):
        assert reason.meaning.startswith(f"{reason.reason} ")
        assert reason.history
