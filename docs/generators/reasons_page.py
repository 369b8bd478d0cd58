"""The functions that other CPUs are asked to run, from the table that names them in every bill."""

from generators.command_pages import cell
from kickwatch.attribution.reasons import REASONS, RequestReason

_INTRODUCTION = """# Reasons for IPIs

The function that another CPU is asked to run is the *reason* of a request. `kickwatch doctor --reasons` prints this
table with the functions that the running kernel has. A function that is not in it keeps the kernel's name. Releases
are those of mainline; distributions backport.

| reason | older names | it | when it is expected, and when a fault |
|---|---|---|---|
"""


def page() -> str:
    """The page."""
    return _INTRODUCTION + "\n".join(_row(reason) for reason in REASONS) + "\n"


def _row(reason: RequestReason) -> str:
    older = ", ".join(f"`{name}`" for name in reason.also)
    return f"| `{reason.name}` | {older} | {cell(reason.meaning)} | {cell(reason.history)} |"
