"""The Debian packages as files: two builds are equal, lintian has no complaint, and each part has its licence."""

import json
import re
import subprocess
from pathlib import Path

import packages
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import module_file

release = module_file.load(packages.ROOT / "deploy/release.py")
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of this tree, by `make wheel`."""
    made = tmp_path_factory.mktemp("wheel")
    packages.run(["make", "--no-print-directory", "-C", str(packages.ROOT), "wheel", f"WHEEL_DIR={made}"])
    (found,) = made.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def built(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The package of each suite."""
    made = tmp_path_factory.mktemp("deb")
    return {suite: packages.build_deb(packages.ROOT, wheel, suite, made) for suite in packages.SUITES}


def contents(package: Path) -> dict[str, bytes]:
    """The parts of the ar archive, so that a difference has a name."""
    listed = subprocess.run(["ar", "t", package], capture_output=True, text=True, check=True).stdout.split()
    return {name: subprocess.run(["ar", "p", package, name], capture_output=True, check=True).stdout for name in listed}


def extracted(package: Path, name: str) -> str:
    tree = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True).stdout
    return subprocess.run(["tar", "-xO", name], input=tree, capture_output=True, check=True).stdout.decode()


def test_two_builds_are_equal_to_the_last_byte(built: dict[str, Path], wheel: Path, tmp_path: Path) -> None:
    """From another directory, with another umask, language and time zone. (test_wheel_build compares two wheels.)"""
    tree = packages.copy_of(packages.ROOT, tmp_path / "a/longer-path")
    again = packages.build_deb(tree, wheel, "bookworm", tmp_path / "out", 0o077, LC_ALL="C", TZ="Asia/Tokyo")
    first, second = contents(built["bookworm"]), contents(again)
    assert [name for name in first if first[name] != second[name]] == []
    assert again.read_bytes() == built["bookworm"].read_bytes()
    assert again.with_suffix(".cdx.json").read_bytes() == built["bookworm"].with_suffix(".cdx.json").read_bytes()


@pytest.mark.parametrize("suite", packages.SUITES)
def test_lintian_has_no_complaint_and_each_override_its_reason(built: dict[str, Path], suite: str) -> None:
    """Down to its informational tags. An override without a comment above it fails."""
    assert release.lintian(built[suite]) == ""
    overrides = extracted(built[suite], "./usr/share/lintian/overrides/kickwatch").splitlines()
    assert overrides[0].startswith("# ")
    blocks = re.split(r"(?<=[^#])\n(?=#)", "\n".join(overrides))
    assert all(block.startswith("# ") for block in blocks)


@pytest.mark.parametrize("suite", packages.SUITES)
def test_the_list_of_parts_is_valid_and_complete(built: dict[str, Path], suite: str) -> None:
    """CycloneDX, inside the package and beside it: each distribution in the environment, what is linked, no more."""
    beside = built[suite].with_suffix(".cdx.json").read_text()
    assert extracted(built[suite], "./usr/share/doc/kickwatch/kickwatch.cdx.json") == beside
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(beside) is None
    components = json.loads(beside)["components"]
    listing = subprocess.run(["dpkg-deb", "--contents", built[suite]], capture_output=True, text=True, check=True)
    inside = set(re.findall(r"/site-packages/([^/]+)-[^-/]+\.dist-info/METADATA$", listing.stdout, re.MULTILINE))
    named = {one["purl"].split("/")[1].split("@")[0] for one in components if one["purl"].startswith("pkg:pypi/")}
    assert named == {name.lower().replace("_", "-") for name in inside}
    assert len([one for one in components if one["purl"].startswith("pkg:deb/debian/")]) == 4
    assert all(one["licenses"][0]["expression"] for one in components)


@pytest.mark.parametrize("suite", packages.SUITES)
def test_the_copyright_file_names_each_part(built: dict[str, Path], suite: str) -> None:
    text = extracted(built[suite], "./usr/share/doc/kickwatch/copyright")
    for component in json.loads(built[suite].with_suffix(".cdx.json").read_text())["components"]:
        expression = component["licenses"][0]["expression"]
        wanted = re.sub(
            r" WITH (\S+)", r" with \1 exception", expression.replace(" AND ", " and ").replace(" OR ", " or ")
        )
        assert f"License: {wanted}\n" in text, component["name"]


def test_the_version_and_the_python_are_those_of_the_tree_and_the_suite(built: dict[str, Path]) -> None:
    for suite, release, python in (("bookworm", "12", "3.11"), ("trixie", "13", "3.13")):
        fields = ["dpkg-deb", "--field", str(built[suite]), "Version", "Depends"]
        version, depends = subprocess.run(fields, capture_output=True, text=True, check=True).stdout.splitlines()
        assert version == f"Version: {packages.version_of(packages.ROOT)}+deb{release}"
        assert f"python3 (>= {python}), python3 (<< 3.{int(python[2:]) + 1})" in depends
