"""One file with one image: an OCI image layout (image-spec 1.0) that is a `docker save` archive as well.

The second index, manifest.json, is for engines that do not read the layout (Docker before 25, containerd's `ctr` reads
both). Nothing in the file depends on when or where it is written.
"""

import datetime
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Image:
    """`name` with its tag; `created` in seconds since 1970; `architecture` in Go's words."""

    name: str
    architecture: str
    created: int
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    environment: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Blob:
    data: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def descriptor(self, kind: str, **more: Any) -> dict[str, Any]:
        return {"mediaType": kind, "digest": f"sha256:{self.digest}", "size": len(self.data), **more}


def write_archive(image: Image, layer: Path, output: Path) -> None:
    """Write `image` with the tar `layer` as its only layer; `output` is complete or not there."""
    diff_id, packed = _compressed(layer)
    config = _json(_config(image, diff_id))
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": config.descriptor(_CONFIG),
            "layers": [packed.descriptor(_LAYER)],
        }
    )
    name = {"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": image.name.rpartition(":")[2]}
    entry = manifest.descriptor(_MANIFEST, annotations=name, platform=_platform(image))
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
    docker = [
        {"Config": _path(config), "RepoTags": [image.name], "Layers": [_path(packed)]},
    ]
    files = {
        **{_path(blob): blob.data for blob in sorted((config, manifest, packed), key=lambda blob: blob.digest)},
        "index.json": _json(index).data,
        "manifest.json": _json(docker).data,
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}).data,
    }
    unfinished = output.with_name(f"{output.name}.new")
    with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as archive:
        for directory in ("blobs", "blobs/sha256"):
            _add(archive, directory, None, image.created)
        for path, data in files.items():
            _add(archive, path, data, image.created)
    unfinished.rename(output)


def _config(image: Image, diff_id: str) -> dict[str, Any]:
    moment = datetime.datetime.fromtimestamp(image.created, datetime.UTC).isoformat().replace("+00:00", "Z")
    return {
        "created": moment,
        **_platform(image),
        "config": {
            "Env": [f"{name}={value}" for name, value in image.environment.items()],
            "Entrypoint": list(image.entrypoint),
            "Cmd": list(image.command),
            "WorkingDir": "/",
            "Labels": dict(image.labels),
            "StopSignal": "SIGTERM",
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
        "history": [{"created": moment, "created_by": "deploy/image/build.py"}],
    }


def _platform(image: Image) -> dict[str, str]:
    return {"architecture": image.architecture, "os": "linux"}


def _compressed(layer: Path) -> tuple[str, _Blob]:
    """The digest of the tar, and the tar compressed: without a name or a time in gzip's header."""
    digest, packed = hashlib.sha256(), io.BytesIO()
    with layer.open("rb") as source, gzip.GzipFile("", "wb", 6, packed, mtime=0) as target:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
    return digest.hexdigest(), _Blob(packed.getvalue())


def _json(value: object) -> _Blob:
    return _Blob(json.dumps(value, separators=(",", ":"), sort_keys=True).encode())


def _path(blob: _Blob) -> str:
    return f"blobs/sha256/{blob.digest}"


def _add(archive: tarfile.TarFile, path: str, data: bytes | None, moment: int) -> None:
    entry = tarfile.TarInfo(path)
    entry.mtime = moment
    entry.type, entry.mode = (tarfile.DIRTYPE, 0o755) if data is None else (tarfile.REGTYPE, 0o644)
    entry.size = len(data or b"")
    archive.addfile(entry, None if data is None else io.BytesIO(data))
