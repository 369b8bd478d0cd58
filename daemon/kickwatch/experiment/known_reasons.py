"""The reasons for IPIs that kickwatch can name, and their functions in the running kernel."""

import msgspec

from kickwatch.attribution.reasons import REASONS
from kickwatch.node.roots import HOST, HostRoots
from kickwatch.observe.symbols import Symbols


class KnownReason(msgspec.Struct, frozen=True, kw_only=True):
    """A reason for IPIs. `functions`: those that this kernel has; empty if it has none."""

    reason: str
    functions: tuple[str, ...]
    meaning: str
    history: str


async def read_known_reasons(host: HostRoots = HOST) -> list[KnownReason]:
    """Of this kernel. Raises ObserveError if kallsyms cannot be read."""
    return known_reasons(await Symbols.load(host.proc))


def known_reasons(symbols: Symbols) -> list[KnownReason]:
    """The whole table of reasons, each with its functions in the kernel of `symbols`."""
    entries = symbols.entries(func for reason in REASONS for func in reason.funcs)
    return [
        KnownReason(
            reason=reason.name,
            functions=tuple(func for func in reason.funcs if entries[func]),
            meaning=reason.sentence,
            history=reason.history,
        )
        for reason in REASONS
    ]


def functions_found(symbols: Symbols) -> str:
    """How many reasons have a function in this kernel, in words."""
    reasons = known_reasons(symbols)
    found = sum(bool(reason.functions) for reason in reasons)
    return f"the functions of {found} of {len(reasons)} known reasons for IPIs"
