"""The wheel as a file: two builds are equal to the last byte, and it has what its machine needs and nothing else."""

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
RHEL_8 = (2, 28)  # its glibc; Ubuntu 22.04 has 2.35, Debian 11 2.31


def copy_of_the_tree(into: Path) -> Path:
    """What git knows, as it lies here: without anything that was built."""
    names = run(["git", "-C", str(ROOT), "ls-files", "-z"]).split("\0")
    into.mkdir(parents=True)
    listed = "\0".join(name for name in names if name and (ROOT / name).exists())
    run(["cp", "--parents", "--target-directory", str(into), *listed.split("\0")], cwd=ROOT)
    return into


def build(tree: Path, umask: int, **environment: str) -> Path:
    """As `make wheel` does it, without making a virtual environment in the copy."""
    given = {**os.environ, "PYTHONPATH": str(tree / "daemon"), **environment}
    run(["make", "--no-print-directory", "-C", str(tree), "native"], given, umask)
    run([sys.executable, "docs/generate.py", "man", "build/man"], given, umask, tree)
    pip = [sys.executable, "-m", "pip", "--quiet", "wheel", "--disable-pip-version-check", "--no-deps"]
    run([*pip, "--no-build-isolation", "--wheel-dir=made", "."], given, umask, tree)
    (wheel,) = (tree / "made").glob("*.whl")
    return wheel


def run(
    command: list[str], environment: Mapping[str, str] | None = None, umask: int = -1, cwd: Path | None = None
) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment, umask=umask, cwd=cwd
    )
    assert done.returncode == 0, f"{' '.join(command)[:200]}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two builds of this tree, in different directories, with different umasks and languages, at different times."""
    home = tmp_path_factory.mktemp("builds")
    first = build(copy_of_the_tree(home / "one"), 0o022, SOURCE_DATE_EPOCH="1500000000")
    second = build(
        copy_of_the_tree(home / "a/longer-path"), 0o077, SOURCE_DATE_EPOCH="1500000000", LC_ALL="C", TZ="Asia/Tokyo"
    )
    return first, second


def test_two_builds_are_equal_to_the_last_byte(wheels: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(wheels[0]) as first, zipfile.ZipFile(wheels[1]) as second:
        contents = [{name: wheel.read(name) for name in wheel.namelist()} for wheel in (first, second)]
    assert contents[0].keys() == contents[1].keys()
    assert [name for name in contents[0] if contents[0][name] != contents[1][name]] == []
    assert wheels[0].name == wheels[1].name
    assert wheels[0].read_bytes() == wheels[1].read_bytes()


def test_times_in_the_wheel_are_the_source_date(wheels: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(wheels[0]) as wheel:
        assert {entry.date_time[:3] for entry in wheel.infolist()} == {(2017, 7, 14)}


def test_the_wheel_names_its_machine_and_carries_no_library(wheels: tuple[Path, Path]) -> None:
    assert wheels[0].name.endswith(f"-py3-none-manylinux_2_17_{os.uname().machine}.whl")
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = set(wheel.namelist())
        programs = {name: wheel.getinfo(name).external_attr >> 16 & 0o777 for name in names if "native/bin/" in name}
        (metadata,) = (wheel.read(name).decode() for name in names if name.endswith("/WHEEL"))
    assert programs == {f"kickwatch/native/bin/{name}": 0o755 for name in ("kw-helper", "pause", "workload")}
    assert len([name for name in names if name.endswith(".bpf.o")]) == len(
        [name for name in names if name.endswith(".bpf.c")]
    )
    assert not [name for name in names if ".so" in name]
    assert "Root-Is-Purelib: false" in metadata


def test_no_file_of_it_and_of_its_dependencies_needs_a_newer_glibc_than_that_of_rhel_8(
    wheels: tuple[Path, Path], tmp_path: Path
) -> None:
    """Of each dependency there is a wheel for that glibc, and no program or library in them needs a newer one."""
    machine = os.uname().machine
    old = [f"--platform=manylinux_2_{minor}_{machine}" for minor in range(RHEL_8[1], 16, -1)]
    wanted = (*old, f"--platform=manylinux2014_{machine}", "--only-binary=:all:", "--python-version=3.11")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", f"--dest={tmp_path}")
    run([*pip, *wanted, f"kickwatch[cri] @ file://{wheels[0]}"])
    needs: dict[str, set[tuple[int, int]]] = {}
    for wheel in tmp_path.glob("*.whl"):
        with zipfile.ZipFile(wheel) as content:
            for name in content.namelist():
                if content.read(name)[:4] == b"\x7fELF" and not name.endswith(".bpf.o"):
                    needs[name] = glibc_versions(Path(content.extract(name, tmp_path / wheel.stem)))
    assert {name.rpartition("/")[2] for name, found in needs.items() if not found} >= {"kw-helper", "pause", "workload"}
    assert len(needs) > 3, "nothing of the dependencies was looked at"
    assert {name: max(found) for name, found in needs.items() if found and max(found) > RHEL_8} == {}


def glibc_versions(file: Path) -> set[tuple[int, int]]:
    """The versions of glibc's symbols that a program or library needs; none if it is static."""
    found = re.findall(r"\bGLIBC_(\d+)\.(\d+)", run(["objdump", "-p", str(file)]))
    return {(int(major), int(minor)) for major, minor in found}
