"""The screen of `doctor`: what is missing first, worst first, with its cost and its fix; no promise while it is."""

import inspect
import io
import re

import pytest
from msgspec.structs import replace

from kickwatch.detect.monitor import Monitor
from kickwatch.experiment import capabilities, observer_rows
from kickwatch.experiment.capabilities import SERVICE_ENGINE, SERVICE_PROBES
from kickwatch.experiment.capability import Capability
from kickwatch.experiment.capability_costs import COSTS
from kickwatch.experiment.known_reasons import KnownReason
from kickwatch.terminal.doctor_screen import doctor_screen, reasons_screen
from watching import PACE

SHARES = Monitor(PACE).shares
# Drop-ins with PrivateUsers=yes or another SystemCallFilter= were not tried, and it promised "as a service".
BOTH = ", as root and with the service's capabilities"
NEEDED = ("memory cgroups", "kmem accounting", "container engine", "IPIs by reason", "kernel symbols")
ALL = [
    Capability(name=name, satisfied=True, detail=f"what was found of {name}", needed=name in NEEDED) for name in COSTS
]


def without(*names: str) -> list[Capability]:
    gone = {"satisfied": False, "detail": "it is not there", "remedy": "install it, then run this again"}
    return [replace(one, **gone, cost=COSTS[one.name]) if one.name in names else one for one in ALL]


def shown(found: list[Capability], columns: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    return doctor_screen(found, SHARES, io.StringIO())


_NAMED = re.compile(r'\bname ?= ?"([^"]+)"|, name = .*, "([^"]+)"')
CASES = [(), ("lock contention",), ("slab_mutex", "cost per event"), ("container engine", "lock contention"), (*COSTS,)]


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("missing", CASES)
def test_it_fits_and_promises_its_whole_job_only_if_nothing_is_missing(
    missing: tuple[str, ...], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = shown(without(*missing), columns, monkeypatch)
    assert max(map(len, text.splitlines())) <= columns
    assert "\x1b" not in text
    assert ("whole job" in text) == (not missing)
    assert text.count("MISSING  ") == len(missing)
    assert text.count("fix ") == len(missing)
    flat = " ".join(text.split())
    assert all(COSTS[name] in flat for name in missing)
    assert all(f"{name}: what was found of {name}" in flat for name in COSTS if name not in missing)


def test_contention_is_missed_but_verdicts_are_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *_ = shown(without("lock contention"), 80, monkeypatch).splitlines()
    assert first == "verdicts are possible here; missing: lock contention"


def test_what_root_can_do_is_not_promised_for_a_service_that_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It used to print that kickwatch can do its whole job, by root's capabilities, and the service was blind."""
    monkeypatch.setenv("COLUMNS", "200")
    whole, *_ = shown(ALL, 200, monkeypatch).splitlines()
    assert whole == f"kickwatch can do its whole job here{BOTH}: nothing is missing"
    lost, *_ = shown(without(SERVICE_PROBES), 200, monkeypatch).splitlines()
    assert lost == "verdicts are possible here as root; missing: the service's probes"
    not_tried = [one for one in ALL if one.name != SERVICE_PROBES]
    unknown, *_ = shown(not_tried, 200, monkeypatch).splitlines()
    assert unknown == "kickwatch can do its whole job here: nothing is missing"


def test_what_makes_it_blind_is_on_top(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(without("lock contention", "kernel symbols"), 80, monkeypatch)
    assert text.startswith("blind: no verdict is possible here; missing: kernel symbols, lock contention\n")
    assert text.index("MISSING  kernel symbols") < text.index("MISSING  lock contention") < text.index("\nok ")


def passive(*gone: str) -> list[Capability]:
    needed = ("IPIs by reason", "containers of others")
    found = without(*gone)
    return [replace(one, needed=one.name in needed, tried=one.name != "a container") for one in found]


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ((), f"passive mode can do its whole job here{BOTH}: nothing is missing"),
        ((SERVICE_PROBES,), "passive mode can raise alerts here as root; missing: the service's probes"),
        (("container engine",), "passive mode can raise alerts here; missing: container engine"),
        (("containers of others",), "blind: passive mode can raise no alert here; missing: containers of others"),
    ],
)
def test_passive_mode_promises_alerts_and_no_verdict(
    gone: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts no container, so none that was not tried is a doubt, and streams without observations have no line."""
    monkeypatch.setenv("COLUMNS", "120")
    text = doctor_screen(passive(*gone), SHARES, io.StringIO(), passive=True)
    assert text.splitlines()[0] == said
    table = text[text.index("observations/year") :].splitlines()[1:]
    assert [line.split()[0] for line in table] == ["attributed", "signature"]


def test_every_capability_has_a_cost() -> None:
    """Also those that `examine` names only where something is missing."""
    source = inspect.getsource(capabilities)
    named = {first or second for first, second in re.findall(_NAMED, source)}
    assert named | {SERVICE_ENGINE, SERVICE_PROBES} | set(observer_rows.ROWS.values()) == set(COSTS)


def test_reasons_fit_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    known = KnownReason(reason="kick_all_cpus_sync", functions=("do_nothing",), meaning="m " * 60, history="h " * 60)
    text = reasons_screen([known], io.StringIO())
    assert max(map(len, text.splitlines())) <= 80
    assert "kick_all_cpus_sync (do_nothing)" in text
