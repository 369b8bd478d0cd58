"""A wheel carries the programs and probes of the machine that its tag names, or it is not built."""

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import module_file

ROOT = Path(__file__).parents[3]
X86_64, AARCH64, BPF = 62, 183, 247
SOURCES = ("calls.bpf.c", "csd.bpf.c")


hook = module_file.load(ROOT / "hatch_build.py")


def elf(machine: int, *, segments: tuple[int, ...] = (1,), target: str = "") -> bytes:
    """A header, the program headers' types, and the compiler's name in the debug information."""
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<16sHHIQQQIHHHHHH", identity, 2, machine, 1, 0, 64, 0, 0, 64, 56, len(segments), 0, 0, 0)
    table = b"".join(struct.pack("<I52x", kind) for kind in segments)
    return header + table + b"\0clang version 14.0.6" + (f" __TARGET_ARCH_{target}".encode() if target else b"") + b"\0"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with everything built for x86-64, and in build/arm64 for arm64."""
    probes = tmp_path / "daemon/kickwatch/observe/probes"
    probes.mkdir(parents=True)
    for source in SOURCES:
        (probes / source).touch()
    for home, machine, target in (("daemon", X86_64, "x86"), ("build/arm64", AARCH64, "arm64")):
        for name in hook.PROGRAMS:
            put(tmp_path, f"{home}/kickwatch/native/bin/{name}", elf(machine))
        for source in SOURCES:
            path = f"{home}/kickwatch/observe/probes/{source.removesuffix('.c')}.o"
            put(tmp_path, path, elf(BPF, target=target))
    return tmp_path


def put(tree: Path, name: str, data: bytes) -> None:
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def build(tree: Path, monkeypatch: pytest.MonkeyPatch, *, arch: str = "", version: str = "standard") -> dict[str, Any]:
    """What the hook adds to a build on an x86-64 machine."""
    monkeypatch.setattr(hook.platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("KICKWATCH_WHEEL_ARCH", arch)
    data: dict[str, Any] = {"force_include": {}}
    hook.ArtifactsHook.initialize(SimpleNamespace(root=str(tree)), version, data)
    return data


def test_a_wheel_for_this_machine_has_its_artifacts_and_its_tag(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = build(tree, monkeypatch)
    assert data["tag"] == "py3-none-manylinux_2_17_x86_64"
    assert data["pure_python"] is False
    assert sorted(data["force_include"].values()) == [
        "kickwatch/native/bin/kw-helper",
        "kickwatch/native/bin/pause",
        "kickwatch/native/bin/workload",
        "kickwatch/observe/probes/calls.bpf.o",
        "kickwatch/observe/probes/csd.bpf.o",
    ]
    assert all(path.startswith(f"{tree}/daemon/") for path in data["force_include"])


def test_a_wheel_without_the_stubs_of_grpc_is_not_built(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tree, "daemon/kickwatch/workload/cri.proto", b"")
    with pytest.raises(SystemExit, match=r"workload/cri_pb2\.py is not generated"):
        build(tree, monkeypatch)
    put(tree, "daemon/kickwatch/workload/cri_pb2.py", b"")
    build(tree, monkeypatch, arch="arm64")


@pytest.mark.parametrize("arch", ["arm64", "aarch64"])
def test_a_wheel_for_arm64_has_what_was_cross_built(tree: Path, monkeypatch: pytest.MonkeyPatch, arch: str) -> None:
    data = build(tree, monkeypatch, arch=arch)
    assert data["tag"] == "py3-none-manylinux_2_17_aarch64"
    assert all(path.startswith(f"{tree}/build/arm64/") for path in data["force_include"])


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("native/bin/workload", None, "native/bin/workload is not built"),
        ("observe/probes/csd.bpf.o", None, "observe/probes/csd.bpf.o is not built"),
        ("native/bin/kw-helper", elf(AARCH64), "native/bin/kw-helper is for aarch64"),
        ("native/bin/kw-helper", elf(8), "native/bin/kw-helper is for machine 8"),
        ("native/bin/kw-helper", elf(X86_64, segments=(1, 3)), "native/bin/kw-helper needs shared libraries"),
        ("native/bin/kw-helper", b"#!/bin/sh\n", "native/bin/kw-helper is no 64-bit little-endian ELF file"),
        ("observe/probes/csd.bpf.o", elf(X86_64), "observe/probes/csd.bpf.o is for x86_64"),
        (
            "observe/probes/csd.bpf.o",
            elf(BPF, target="arm64"),
            "observe/probes/csd.bpf.o is compiled for aarch64",
        ),
        ("observe/probes/csd.bpf.o", elf(BPF), "observe/probes/csd.bpf.o does not name its machine"),
    ],
)
def test_no_wheel_without_the_artifacts_of_its_machine(
    tree: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes | None, problem: str
) -> None:
    path = tree / "daemon/kickwatch" / name
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    with pytest.raises(SystemExit) as raised:
        build(tree, monkeypatch)
    assert raised.value.code == f"kickwatch: no wheel for x86_64: {problem}: `make wheel`"


def test_a_missing_cross_build_names_its_command(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "build/arm64/kickwatch/native/bin/workload").unlink()
    with pytest.raises(SystemExit, match=r"is not built: `make wheel ARCH=arm64`"):
        build(tree, monkeypatch, arch="arm64")


def test_no_wheel_for_a_machine_without_probes(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="no wheel for riscv64: kickwatch has no BPF programs for it"):
        build(tree, monkeypatch, arch="riscv64")


def test_an_editable_installation_needs_nothing_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build(tmp_path, monkeypatch, version="editable") == {"force_include": {}}


def test_what_is_built_here_is_for_this_machine() -> None:
    machine = hook._named(hook.platform.machine())
    assert list(hook.problems(ROOT / "daemon/kickwatch", ROOT, machine)) == []
    other = "x86_64" if machine == "aarch64" else "aarch64"
    found = list(hook.problems(ROOT / "daemon/kickwatch", ROOT, other))
    assert len(found) == len(hook.artifacts(ROOT / "daemon/kickwatch", ROOT))
    assert any(f"csd.bpf.o is compiled for {machine}" in problem for problem in found)
