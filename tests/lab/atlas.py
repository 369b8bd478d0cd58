"""Put measured machines into docs/atlas.json: `atlas.py [--where TEXT] FILE...`.

The files are those of the laboratory (build/lab/*.json), or what `kickwatch trial --json` printed. A machine that is
there already is replaced. The atlas of the documentation is made from docs/atlas.json.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

ATLAS = Path(__file__).parents[2] / "docs" / "atlas.json"
IN_QEMU = "QEMU without KVM"
_NO_ENGINE = "oci "
_ISOLATED = "isolcpus=4-7-nohz_full=4-7"  # the command line of the guest with isolated CPUs


def main(files: list[Path], where: str, atlas: Path) -> None:
    """Add the machines of these files."""
    known = json.loads(atlas.read_text(encoding="utf-8")) if atlas.exists() else {"machines": [], "bpf_programs": []}
    machines = {one["machine"]: one for one in known["machines"]}
    for path in files:
        found = json.loads(path.read_text(encoding="utf-8"))
        trial = found if "bill" in found else found.get("healthy")
        if trial is None or trial["void"] or not trial["containers"]:
            print(f"{path}: no healthy trial with containers, left out")
        else:
            name = path.stem.replace(_ISOLATED, "isolated") if "healthy" in found else name_of(trial)
            machines[name] = machine_of(name, where, trial, found)
    known["machines"] = [machines[name] for name in sorted(machines, key=_natural)]
    atlas.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def name_of(trial: dict[str, Any]) -> str:
    """`6.18-v1-2cpu-runc`: kernel series, cgroup version, CPUs, runtime."""
    series = ".".join(trial["kernel"].split(".")[:2])
    runtime = trial["engine"].removeprefix(_NO_ENGINE).split()[0]
    words = (series, trial["cgroup"], f"{trial['cpus_online']}cpu", *(("arm64",) if _on_arm64(trial) else ()), runtime)
    return "-".join(words)


def _on_arm64(trial: dict[str, Any]) -> bool:
    return str(trial["kernel"]).endswith("-arm64")


def machine_of(name: str, where: str, trial: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """One machine of the atlas. Figures are per container, above the time without one; None is not known."""
    engine = trial["engine"].partition("+")[0]
    counted = trial["observers"]["ipis"] != "counters"
    boot_s = found.get("machine", {}).get("boot_s")
    canary = trial["canary"] or {}
    return {
        "machine": name,
        "where": where,
        "kernel": _release(trial["kernel"]),
        "architecture": "arm64" if _on_arm64(trial) else "x86-64",
        "cpus": trial["cpus_online"],
        "cgroup": trial["cgroup"],
        "runtime": engine.removeprefix(_NO_ENGINE),
        "ipis": trial["observers"]["ipis"],
        "contention": trial["observers"]["contention"],
        "containers": trial["containers"],
        "verdict": trial["verdict"],
        "cal": _rounded(trial["per_container"]["cal"]),
        "tlb": _rounded(trial["per_container"]["tlb"]),
        "res": _rounded(trial["per_container"]["res"]),
        "requests": _rounded(trial["per_container"]["requests"]),
        "broadcasts_by_origin": _broadcasts(trial) if counted else None,
        "sweeps_by_reason": _sweeps(trial) if counted else None,
        "ms": round(sum(step["p50"] or 0 for step in trial["latency_ms"].values())),
        "canary_cal_minus_tlb": _rounded(canary.get("cal_minus_tlb_per_memcg")),
        "reading_ms": _rounded(found.get("scale", {}).get("sample_ms")),
        "boot_s": None if boot_s is None else round(boot_s),
    }


def _broadcasts(trial: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in trial["bill"]:
        if row["broadcasts"]:
            where = "creation path" if _creates(row) else row["origin"]
            found[where] = found.get(where, 0) + row["broadcasts"]
    return {origin: round(count / (trial["containers"] or 1), 2) for origin, count in sorted(found.items())}


def _creates(row: dict[str, Any]) -> bool:
    return row["path"] == "create" and row["origin"] in {"slab", "memcg", "cgroup", "namespace", "percpu"}


def _sweeps(trial: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in trial["bill"]:
        if row["sweeps_per_container"] is not None:
            found[row["reason"]] = found.get(row["reason"], 0.0) + row["sweeps_per_container"]
    return {reason: round(found[reason], 2) for reason in sorted(found)}


def _release(release: str) -> str:
    """The release as its distribution or mainline names it, without the suffix of somebody's own build."""
    known = re.match(r"[\d.]+((-\d+|\+deb\d+)-a(md|rm)64)?", release)
    return known[0].rstrip(".") if known else release


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _natural(name: str) -> list[tuple[int, str]]:
    """A key for which 6.2 comes before 6.12."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name) if part]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--where", default=IN_QEMU, help="the kind of machine, such as 'virtual machine (KVM)'")
    parser.add_argument("--atlas", type=Path, default=ATLAS)
    parser.add_argument("files", type=Path, nargs="+")
    given = parser.parse_args()
    main(given.files, given.where, given.atlas)
