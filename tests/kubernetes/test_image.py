"""The image of `make image`: the same from build to build, small, labelled, and read by each kind of engine."""

import hashlib
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from image_builds import build_images, build_wheel
from kickwatch import __version__

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.long, pytest.mark.userland, pytest.mark.timeout(600)]
MOST_MB, MOST_UNPACKED_MB = 40, 110


Builds = tuple[Path, Path]


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Builds:
    """Two archives of one wheel."""
    made = tmp_path_factory.mktemp("image")
    archives = made / "first.tar", made / "second.tar"
    build_images(build_wheel(made), *archives)
    return archives


@pytest.fixture(scope="module")
def files(builds: Builds) -> dict[str, bytes]:
    """The archive's files."""
    with tarfile.open(builds[0]) as archive:
        found = {entry.name: archive.extractfile(entry) for entry in archive if entry.isfile()}
        return {name: file.read() for name, file in found.items() if file is not None}


def blob(files: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    """The blob of a descriptor, which has to be what it says."""
    data = files["blobs/" + descriptor["digest"].replace(":", "/")]
    assert (len(data), f"sha256:{hashlib.sha256(data).hexdigest()}") == (descriptor["size"], descriptor["digest"])
    return data


def test_two_builds_are_the_same_byte_for_byte(builds: Builds) -> None:
    with builds[0].open("rb") as first, builds[1].open("rb") as second:
        digests = [hashlib.file_digest(file, "sha256").hexdigest() for file in (first, second)]
    assert digests[0] == digests[1], differing(builds)


def differing(builds: Builds) -> list[str]:
    """Names of files that are not the same in the two layers."""
    layers = []
    for path in builds:
        with tarfile.open(path) as archive:
            name = json.loads(archive.extractfile("manifest.json").read())[0]["Layers"][0]  # type: ignore[union-attr]
            layers.append(archive.extractfile(name).read())  # type: ignore[union-attr]
    listed = []
    for layer in layers:
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            listed.append({entry.name: (entry.mtime, entry.size, _digest(tar, entry)) for entry in tar.getmembers()})
    return sorted(name for name in listed[0].keys() | listed[1].keys() if listed[0].get(name) != listed[1].get(name))


def _digest(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> str:
    file = tar.extractfile(entry) if entry.isfile() else None
    return hashlib.sha256(file.read()).hexdigest() if file else entry.linkname


def test_the_layout_and_the_docker_archive_are_one_image(files: dict[str, bytes]) -> None:
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads(files["index.json"])["manifests"]
    manifest = json.loads(blob(files, entry))
    (layer,) = manifest["layers"]
    (docker,) = json.loads(files["manifest.json"])
    assert docker["Layers"] == ["blobs/" + layer["digest"].replace(":", "/")]
    assert json.loads(files[docker["Config"]]) == json.loads(blob(files, manifest["config"]))


def test_the_labels_have_the_version_of_the_one_place(files: dict[str, bytes]) -> None:
    (docker,) = json.loads(files["manifest.json"])
    labels = json.loads(files[docker["Config"]])["config"]["Labels"]
    assert docker["RepoTags"] == [f"localhost/kickwatch:{__version__}"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "GPL-2.0-only"
    assert re.fullmatch(r"[0-9a-f]{40}", labels["org.opencontainers.image.revision"])


def test_it_has_pythons_programs_alone_and_the_licence_of_every_part(files: dict[str, bytes], builds: Builds) -> None:
    (docker,) = json.loads(files["manifest.json"])
    with tarfile.open(fileobj=io.BytesIO(files[docker["Layers"][0]])) as tar:
        paths = {entry.name.removeprefix("./"): entry for entry in tar.getmembers()}
    programs = {Path(name).name for name in paths if re.fullmatch(r"usr/s?bin/.+", name)}
    assert all(name.startswith("python3") for name in programs), programs
    packages = {name.rpartition("/")[2] for name in paths if name.startswith("var/lib/dpkg/status.d/")} - {""}
    assert len(packages) > 20
    assert not {name for name in packages if f"usr/share/doc/{name}/copyright" not in paths and not links(paths, name)}
    setuid = [name for name, entry in paths.items() if entry.isfile() and entry.mode & 0o6000]
    assert setuid == []
    unpacked = sum(entry.size for entry in paths.values()) / 1e6
    size = builds[0].stat().st_size / 1e6
    assert (size < MOST_MB, unpacked < MOST_UNPACKED_MB) == (True, True)


def links(paths: dict[str, tarfile.TarInfo], package: str) -> bool:
    """The documentation of some packages is a link to that of another one of the same source."""
    entry = paths.get(f"usr/share/doc/{package}")
    return entry is not None and entry.issym() and f"usr/share/doc/{entry.linkname}/copyright" in paths
