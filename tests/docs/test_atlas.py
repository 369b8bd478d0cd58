"""Measurements become machines of the atlas: what was not measured stays unknown, and a void trial is left out."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from doc_blocks import ROOT


def trial(**changed: Any) -> dict[str, Any]:
    """What `kickwatch trial --json` prints, as far as the atlas reads it."""
    rows = [
        {"reason": "do_sync_core", "origin": "bpf", "path": "other", "broadcasts": 8, "sweeps_per_container": 2.0},
        {"reason": "do_sync_core", "origin": "memcg", "path": "create", "broadcasts": 4, "sweeps_per_container": 1.0},
        {"reason": "rcu_exp_handler", "origin": "rcu", "path": "other", "broadcasts": 0, "sweeps_per_container": 5.5},
    ]
    figures: dict[str, Any] = {
        "kernel": "6.1.0-56-amd64",
        "cpus_online": 4,
        "cgroup": "v2",
        "engine": "oci runc 1.1.5+ds1",
        "observers": {"ipis": "kprobe", "contention": "none"},
        "containers": 4,
        "void": "",
        "verdict": "quiet",
        "per_container": {"cal": 10.0, "tlb": None, "res": 1.234, "requests": 8.5},
        "latency_ms": {"create": {"p50": 20.4}, "start": {"p50": None}},
        "canary": None,
        "bill": rows,
    }
    return figures | changed


def added(directory: Path, *measured: dict[str, Any]) -> list[dict[str, Any]]:
    """The machines of a new atlas with these files."""
    files = []
    for number, one in enumerate(measured):
        files.append(directory / f"6.1-v2-{number}cpu.json")
        files[-1].write_text(json.dumps(one))
    atlas = directory / "atlas.json"
    subprocess.run([sys.executable, ROOT / "tests/lab/atlas.py", "--atlas", atlas, *files], check=True)
    machines: list[dict[str, Any]] = json.loads(atlas.read_text())["machines"]
    return machines


def test_a_trial_becomes_a_machine(tmp_path: Path) -> None:
    (machine,) = added(tmp_path, trial())
    assert machine["machine"] == "6.1-v2-4cpu-runc"
    assert machine["runtime"] == "runc 1.1.5"
    assert machine["broadcasts_by_origin"] == {"bpf": 2.0, "creation path": 1.0}
    assert machine["sweeps_by_reason"] == {"do_sync_core": 3.0, "rcu_exp_handler": 5.5}
    assert (machine["res"], machine["ms"]) == (1.23, 20)


@pytest.mark.parametrize("key", ["tlb", "canary_cal_minus_tlb", "reading_ms", "boot_s"])
def test_what_was_not_measured_is_unknown_and_not_zero(tmp_path: Path, key: str) -> None:
    (machine,) = added(tmp_path, trial())
    assert machine[key] is None


def test_counters_alone_know_no_reason(tmp_path: Path) -> None:
    (machine,) = added(tmp_path, trial(observers={"ipis": "counters", "contention": "none"}))
    assert machine["broadcasts_by_origin"] is None
    assert machine["sweeps_by_reason"] is None


def test_the_laboratorys_file_names_its_machine_and_a_void_trial_is_left_out(tmp_path: Path) -> None:
    found = {"machine": {"boot_s": 38.6}, "scale": {"sample_ms": 12.94}, "healthy": trial()}
    machines = added(tmp_path, trial(void="disturbed"), {"machine": {"boot_s": 1.0}}, found, trial(containers=0))
    assert [machine["machine"] for machine in machines] == ["6.1-v2-2cpu"]
    assert (machines[0]["boot_s"], machines[0]["reading_ms"]) == (39, 12.94)


def test_a_machine_is_replaced_and_the_order_is_that_of_numbers(tmp_path: Path) -> None:
    machines = added(tmp_path, trial(kernel="6.12.3"), trial(kernel="6.2.1"), trial(kernel="6.12.4"))
    assert [machine["kernel"] for machine in machines] == ["6.2.1", "6.12.4"]
