"""The functions that a request probe knows: those it counts by function alone, and those of which one stack suffices.

Busy functions are never unwound. Of other functions whose origin is certain the probe takes one stack, as an example.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from kickwatch.attribution.reasons import BUSY_FUNCS, REASONS, reason_of
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.layouts import CELL_KEY, EXAMPLE
from kickwatch.observe.symbols import Symbols

# In the probe's order, two of each: shootdowns, remote wakeups, RCU's requests. The function tells the kind of a
# request: a shootdown is a multi-CPU call, all others are single. RCU's older names are counted as any other function.
_FREQUENT = (
    tuple(func for func in BUSY_FUNCS if reason_of(func).follows_task),
    tuple(func for func in BUSY_FUNCS if not reason_of(func).follows_task),
    ("rcu_exp_handler", "rcu_barrier_handler"),
)
_CERTAIN = tuple(func for reason in REASONS if reason.origin_is_certain and not reason.busy for func in reason.funcs)


@dataclass
class KnownFuncs:
    """`frequent`: addresses in the probe's order; 0 where this kernel has no such function.

    `certain`: addresses of the functions that have an example.
    """

    frequent: tuple[int, ...]
    certain: tuple[int, ...]
    _examples: dict[int, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, symbols: Symbols) -> Self:
        """Look up all addresses."""
        entries = symbols.entries((*BUSY_FUNCS, *_CERTAIN))
        frequent = tuple(address for funcs in _FREQUENT for address in _two(funcs, entries))
        return cls(frequent, tuple(address for func in _CERTAIN for address in entries[func]))

    @property
    def keys(self) -> dict[int, bytes]:
        """The key (CELL_KEY) of the figures of each frequent function, by its index; without a stack."""
        return {index: CELL_KEY.pack(address, 0, 0, 0) for index, address in enumerate(self.frequent) if address}

    def await_examples(self, probe: BpfObject) -> None:
        """Make the probe take one stack, as an example, for each function whose origin is certain."""
        self._examples = {}
        for address in self.certain:
            probe.map("certain_funcs").put(address.to_bytes(8, sys.byteorder), EXAMPLE.pack(0, 0, 0))

    def stack_of(self, probe: BpfObject, func: int, stack: int, caller: int) -> tuple[int, int]:
        """(id of the stack, caller) of a cell: of a frequent function's the example, the id negative without one."""
        if func not in self.frequent or func not in self.certain:
            return stack, caller
        if func not in self._examples:
            value = probe.map("certain_funcs").get(func.to_bytes(8, sys.byteorder))
            caller, stack_plus_one, _ = EXAMPLE.packed.unpack(value) if value is not None else (0, 0, 0)
            if not stack_plus_one:
                return -1, 0
            self._examples[func] = stack_plus_one - 1, caller
        return self._examples[func]


def _two(funcs: Iterable[str], entries: dict[str, list[int]]) -> list[int]:
    return [*(address for func in funcs for address in entries[func]), 0, 0][:2]
