"""What the keys of a request probe mean: function and stack by name, and why such a request is sent."""

from dataclasses import dataclass, field

from kickwatch.attribution.attribute import attribute, patches_text
from kickwatch.attribution.reasons import BUSY_FUNCS, mask_follows_task
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.frequent import KnownFuncs
from kickwatch.observe.layouts import CELL_KEY
from kickwatch.observe.readings import read_stack
from kickwatch.observe.request_cells import NamedRequest, RequestSample, reached
from kickwatch.observe.symbols import Symbols


@dataclass
class RequestNames:
    """The names of one probe's keys. They are remembered: ids of stacks are stable while the maps live."""

    probe: BpfObject
    funcs: KnownFuncs
    probed: frozenset[str] = frozenset()  # functions at whose entry stacks are taken, by name; none at a tracepoint
    known: dict[tuple[int, int, int], NamedRequest] = field(default_factory=dict)

    def name(self, key: bytes, symbols: Symbols) -> NamedRequest:
        """The meaning of a packed CELL_KEY. Raises ObserveError if its stack cannot be read."""
        func, stack_id, _flags, caller = CELL_KEY.packed.unpack(key)
        stack_id, caller = self.funcs.stack_of(self.probe, func, stack_id, caller)
        named = self.known.get((func, stack_id, caller))
        if named is None:
            name = symbols.resolve(func)
            busy = name in BUSY_FUNCS
            stack = () if busy or stack_id < 0 else self._stack(stack_id, caller, symbols)
            counts, patches = not mask_follows_task(name), patches_text(name, stack)
            named = NamedRequest(attribute(name, stack), name, stack, counts, patches)
            if busy or stack or stack_id < 0:  # a stack that could not be read may be readable the next time
                self.known[(func, stack_id, caller)] = named
        return named

    def _stack(self, stack_id: int, caller: int, symbols: Symbols) -> tuple[str, ...]:
        return read_stack(self.probe.map("stacks"), stack_id, symbols, caller, self.probed)

    def forget(self) -> None:
        """Addresses, or ids of stacks, may have other meanings now."""
        self.known = {}


def reached_by_name(before: RequestSample, after: RequestSample, symbols: Symbols) -> dict[str, list[int]]:
    """The isolated CPUs that each function, by its name, reached between two samples; ascending."""
    found: dict[str, set[int]] = {}
    for func, cpus in reached(before, after).items():
        found.setdefault(symbols.resolve(func), set()).update(cpus)
    return {name: sorted(cpus) for name, cpus in found.items()}
