"""The unit files checked by systemd's own tools: nothing unknown or contradictory, a low exposure, all explained."""

import json
import re
from pathlib import Path

import pytest
from systemd_node import Node

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(600)]

README = Path(__file__).parents[2] / "docs/systemd.md"
MOST_EXPOSURE = 3.5
UNITS = ("kickwatch.service", "kickwatchcontainers.slice")


def test_systemd_analyze_verify_has_no_complaints(installed: Node) -> None:
    verified = installed.run("systemd-analyze", "verify", "--man=no", *UNITS)
    assert verified.stdout + verified.stderr == ""
    for unit in UNITS:
        shown = installed.show(unit)
        assert shown["LoadState"] == "loaded"
        assert shown["NeedDaemonReload"] == "no"


def test_exposure_is_low(installed: Node, capsys: pytest.CaptureFixture[str]) -> None:
    output = installed.out("systemd-analyze", "security", "kickwatch.service")
    score = float(re.findall(r"Overall exposure level for kickwatch.service: ([0-9.]+)", output)[0])
    with capsys.disabled():
        print(f"\nsystemd-analyze security kickwatch.service: {score}")  # noqa: T201 -- for the reader of the test log
    assert score <= MOST_EXPOSURE
    assert f"says {score} " in README.read_text()


def test_each_remaining_exposure_is_explained(installed: Node) -> None:
    rows = json.loads(installed.out("systemd-analyze", "security", "--json=short", "kickwatch.service"))
    exposed = {row["name"] for row in rows if row["exposure"]}
    table = README.read_text().partition("## What remains exposed")[2].replace("\\|", "|")
    explained = {
        name
        for row in table.splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`([^`]*)`", row.split(" | ")[0])
    }
    assert exposed - explained == set()
    assert {name for name in explained if name.endswith("=") or "=~" in name} - exposed == set()


def test_the_preset_disables_it_and_a_fleets_preset_can_enable_it(installed: Node) -> None:
    installed.run("systemctl", "preset", "kickwatch.service")
    assert installed.run("systemctl", "is-enabled", "kickwatch", check=False).stdout.strip() == "disabled"
    installed.write("/etc/systemd/system-preset/50-fleet.preset", "enable kickwatch.service\n")
    installed.run("systemctl", "preset", "kickwatch.service")
    assert installed.out("systemctl", "is-enabled", "kickwatch") == "enabled"
    installed.run("rm", "/etc/systemd/system-preset/50-fleet.preset")
    installed.run("systemctl", "disable", "kickwatch.service")


def test_tmpfiles_makes_what_the_service_needs_in_run(installed: Node) -> None:
    installed.run("rm", "-rf", "/run/kickwatch", "/run/kickwatch.lock")
    installed.run("systemd-tmpfiles", "--create", "--boot")
    assert installed.out("stat", "--format=%a %F", "/run/kickwatch", "/run/kickwatch.lock").splitlines() == [
        "755 directory",
        "600 regular empty file",
    ]


def test_the_slice_is_at_the_root_and_has_its_limits(installed: Node) -> None:
    installed.run("systemctl", "start", "kickwatchcontainers.slice")
    shown = installed.show("kickwatchcontainers.slice")
    installed.run("systemctl", "stop", "kickwatchcontainers.slice")
    assert shown["ControlGroup"] == "/kickwatchcontainers.slice"
    assert {key: shown[key] for key in ("MemoryMax", "TasksMax", "CPUWeight", "IOWeight", "CPUQuotaPerSecUSec")} == {
        "MemoryMax": str(512 << 20),
        "TasksMax": "1024",
        "CPUWeight": "20",
        "IOWeight": "20",
        "CPUQuotaPerSecUSec": "1s",
    }
