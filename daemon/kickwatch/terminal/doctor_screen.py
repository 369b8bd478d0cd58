"""The screen of `kickwatch doctor`: what is missing, worst first, with its cost and its fix; then what was found."""

from collections.abc import Sequence
from typing import TextIO

from rich.console import RenderableType  # noqa: TC002 -- as beside it
from rich.text import Text

from kickwatch.detect.rates import Share
from kickwatch.experiment.capabilities import SERVICE_ENGINE, SERVICE_PROBES
from kickwatch.experiment.capability import Capability, blind
from kickwatch.experiment.known_reasons import KnownReason
from kickwatch.report.passive_words import OBSERVING
from kickwatch.terminal.console import console
from kickwatch.terminal.layout import as_text, figures, labelled

_HEADING, _BLIND, _PARTLY, _FINE = "bold", "bold red", "bold yellow", "bold green"


def doctor_screen(
    found: Sequence[Capability], shares: Sequence[Share], stream: TextIO, *, passive: bool = False
) -> str:
    """The text, with colours if `stream` shows them. `passive`: of a kickwatch that starts no containers."""
    missing = sorted((one for one in found if not one.satisfied), key=lambda one: not one.needed)
    parts: list[RenderableType] = [(_passive_summary if passive else _summary)(found, missing)]
    for one in missing:
        parts += ["", Text.assemble(("MISSING  ", _BLIND if one.needed else _PARTLY), (one.name, _HEADING))]
        parts.append(labelled(_rows(one)))
    parts += [
        "",
        labelled([("ok" if one.tried else "not tried", _found(one)) for one in found if one.satisfied], indent=0),
    ]
    parts += [
        "",
        Text("at most one false alarm in 1000 node-years, divided among the detectors at this pace", _HEADING),
    ]
    shown = [share for share in shares if not passive or share.name in OBSERVING]
    rows = [((share.name, f"{share.observations_per_year:.0f}", f"{share.threshold:.2e}"), "") for share in shown]
    parts.append(figures(("stream", "observations/year", "threshold"), rows, numbers=(1, 2)))
    return as_text(console(stream), parts)


def _summary(found: Sequence[Capability], missing: Sequence[Capability]) -> Text:
    names = ", ".join(one.name for one in missing)
    if blind(list(found)):
        return Text(f"blind: no verdict is possible here; missing: {names}", _BLIND)
    if missing:
        return Text(f"verdicts are possible here{_as_root(missing)}; missing: {names}", _PARTLY)
    untried = ", ".join(one.name for one in found if not one.tried)
    if untried:
        return Text(f"verdicts are possible here if what was not tried works: {untried}", _PARTLY)
    return Text(f"kickwatch can do its whole job here{_as_both(found)}: nothing is missing", _FINE)


def _passive_summary(found: Sequence[Capability], missing: Sequence[Capability]) -> Text:
    """No verdict is promised: nothing establishes `quiet` there."""
    names = ", ".join(one.name for one in missing)
    if blind(list(found)):
        return Text(f"blind: passive mode can raise no alert here; missing: {names}", _BLIND)
    if missing:
        return Text(f"passive mode can raise alerts here{_as_root(missing)}; missing: {names}", _PARTLY)
    return Text(f"passive mode can do its whole job here{_as_both(found)}: nothing is missing", _FINE)


def _as_root(missing: Sequence[Capability]) -> str:
    return " as root" if any(one.name in {SERVICE_ENGINE, SERVICE_PROBES} for one in missing) else ""


def _as_both(found: Sequence[Capability]) -> str:
    """Empty if the service's probes were not tried. The rest of its sandbox is not tried, and not promised."""
    return ", as root and with the service's capabilities" if any(one.name == SERVICE_PROBES for one in found) else ""


def _rows(one: Capability) -> list[tuple[str, str]]:
    rows = [("found", one.detail), ("cost", one.cost), ("fix", one.remedy)]
    return [(label, text or "not known") for label, text in rows]


def _found(one: Capability) -> Text:
    return Text.assemble((f"{one.name}: ", _HEADING), one.detail)


def reasons_screen(known: Sequence[KnownReason], stream: TextIO) -> str:
    """The known reasons for IPIs, each with its functions in this kernel."""
    parts: list[RenderableType] = ["", Text("reasons for IPIs, each with its functions in this kernel", _HEADING)]
    for reason in known:
        functions = ", ".join(reason.functions) or "not in this kernel"
        name = f"{reason.reason}" + ("" if functions == reason.reason else f" ({functions})")
        parts += ["", Text(name, _HEADING), labelled([("", f"{text}.") for text in (reason.meaning, reason.history)])]
    return as_text(console(stream), parts)
