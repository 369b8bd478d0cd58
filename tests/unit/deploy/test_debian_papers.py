"""The papers of a Debian package, from wheels made here: each part's licence is known, or there is no package."""

import sys
import zipfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "deploy/debian"))  # scripts, not a package

import build
import papers
import parts

ROOT = Path(__file__).parents[3]


def wheel(tmp_path: Path, metadata: str, **texts: str) -> Path:
    """A wheel of the distribution `some-part` 1.0."""
    path = tmp_path / "some_part-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as content:
        content.writestr("some_part/__init__.py", "")
        content.writestr("some_part-1.0.dist-info/METADATA", f"Name: some_part\nVersion: 1.0\n{metadata}\n")
        for name, text in texts.items():
            content.writestr(f"some_part-1.0.dist-info/licenses/{name}", text)
    return path


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("License-Expression: Apache-2.0 AND BSD-2-Clause", "Apache-2.0 AND BSD-2-Clause"),
        ("License: MIT\nLicense-File: LICENSE", "MIT"),
        ("License: The MIT License (MIT)\n        \n        Copyright 2014", "MIT"),
        ("License: 3-Clause BSD License", "BSD-3-Clause"),
        ("Classifier: Typing :: Typed\nClassifier: License :: OSI Approved :: MIT License", "MIT"),
    ],
)
def test_a_licence_is_read_as_authors_write_it(tmp_path: Path, metadata: str, licence: str) -> None:
    part = parts.of_wheel(wheel(tmp_path, metadata, LICENSE="Copyright (c) 2020 Somebody\n(c) You must retain"))
    assert (part.licence, part.purl) == (licence, "pkg:pypi/some-part@1.0")
    assert part.holders == ("Copyright (c) 2020 Somebody",)
    assert part.files == ("some_part", "some_part-1.0.dist-info")


@pytest.mark.parametrize(
    "metadata", ["License: Proprietary", "Summary: nothing", "License-Expression: MIT AND SSPL-1.0"]
)
def test_a_part_under_another_licence_ends_the_build(tmp_path: Path, metadata: str) -> None:
    with pytest.raises(parts.PartError, match=r"some_part: licence '.*' is not among those that"):
        parts.of_wheel(wheel(tmp_path, metadata, LICENSE="text"))


def test_a_part_without_the_text_of_its_licence_ends_the_build(tmp_path: Path) -> None:
    with pytest.raises(parts.PartError, match="has no text of its licence"):
        parts.of_wheel(wheel(tmp_path, "License: MIT", NOTICE="text"))


def test_the_copyright_file_has_the_text_or_names_its_file(tmp_path: Path) -> None:
    part = parts.of_wheel(wheel(tmp_path, "License: MIT", LICENSE="Copyright 2020 Somebody\n\nDo what you want."))
    linked = parts.Part("libc6-dev", "2.36-9", "LGPL-2.1-or-later", "pkg:deb/debian/libc6-dev@2.36-9", holders=("FSF",))
    text = papers.copyright_file([part, linked])
    assert "Copyright: 2020 Somebody\nLicense: MIT\n Copyright 2020 Somebody\n .\n Do what you want.\n" in text
    assert "License: LGPL-2.1-or-later\n The full text is in /usr/share/common-licenses/LGPL-2.1" in text


@pytest.mark.parametrize(
    ("version", "debian"),
    [("0.2.0", "0.2.0+deb12"), ("0.2.0rc1", "0.2.0~rc1+deb12"), ("0.2.0.dev3", "0.2.0~dev3+deb12")],
)
def test_versions_sort_as_releases_do(version: str, debian: str) -> None:
    """`~` sorts before the end, `+deb13` after `+deb12`, so an upgrade of the node upgrades the package."""
    assert build.debian_version(version, build.TARGETS["bookworm"]) == debian


def test_the_changelog_has_the_entries_of_its_release() -> None:
    released = "## [0.2.0] - 2026-01-01\n\n### Added\n\n- One,\n  more.\n- Two.\n"
    text = f"# Changelog\n\n## [Unreleased]\n\n- Later.\n\n{released}"
    assert papers.changes_of(text, "0.2.0") == ["One, more.", "Two."]
    assert papers.changes_of(text, "0.3.0") == ["Later."]
    assert papers.changes_of("# Changelog\n", "0.3.0") == ["Release 0.3.0."]
    written = papers.changelog("0.2.0+deb12", "bookworm", ["word " * 40], 0)
    assert written.startswith("kickwatch (0.2.0+deb12) bookworm; urgency=medium\n\n  * word")
    assert max(len(line) for line in written.splitlines() if not line.startswith(" --")) <= 80
    assert written.endswith(" -- kickwatch maintainers <kickwatch@packages.invalid>  Thu, 01 Jan 1970 00:00:00 -0000\n")


def test_no_path_of_another_installation_is_in_the_packages_files(tmp_path: Path) -> None:
    """Of each file that the package takes from systemd/, deploy/ and docs/; further lines of a comment are comments."""
    (tmp_path / "etc/kickwatch").mkdir(parents=True)
    for name in ("oci.conf", "sys-admin.conf"):
        (tmp_path / "etc/kickwatch" / name).write_text((ROOT / "systemd" / name).read_text())
    for name, place in (("kickwatch.service", "lib/systemd/system"), ("kickwatch.catalog", "usr/lib/systemd/catalog")):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / name).write_text((ROOT / "systemd" / name).read_text())
    build.rename_paths(tmp_path)
    texts = {path.name: path.read_text() for path in tmp_path.rglob("*.*") if path.is_file()}
    assert [name for name, text in texts.items() if "/opt/" in text or "/usr/local" in text] == []
    assert "ExecStart=/usr/lib/kickwatch/bin/kickwatch run" in texts["kickwatch.service"]
    for name in ("oci.conf", "sys-admin.conf"):
        assert f"\n#   ln -s /etc/kickwatch/{name} /etc/systemd/system/kickwatch.service.d\n" in texts[name]
