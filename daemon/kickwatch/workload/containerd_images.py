"""Images of one program each, imported through containerd's own interface into the namespace of its CRI.

A CRI only pulls, and kickwatch pulls nothing. containerd serves both interfaces at one socket. An import writes three
blobs (layer, configuration, manifest) under a lease, which keeps them from the garbage collector until the image
refers to them. The CRI hears of the image by an event.
"""

import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import msgspec
from grpclib.const import Status

from kickwatch.workload import containerd_pb2 as containerd
from kickwatch.workload.cri_calls import CallRefusedError, CriCalls
from kickwatch.workload.engine import LABEL

NAMESPACE = {"containerd-namespace": "k8s.io"}  # of the CRI
_IMAGES = "/containerd.services.images.v1.Images/"
_LEASES = "/containerd.services.leases.v1.Leases/"
_WRITE = "/containerd.services.content.v1.Content/Write"
_PIECE_BYTES = 1 << 20
_LEASE, _LEASE_LASTS = "kickwatch-import", timedelta(minutes=10)
# Kubelets since 1.29 leave pinned images to their garbage collection; containerd tells them since 1.7.3.
_LABELS = {LABEL: "1", "io.cri-containerd.pinned": "pinned"}
_OCI = "application/vnd.oci.image"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


async def import_image(calls: CriCalls, reference: str, program: bytes, path: str) -> None:
    """Make an image whose entrypoint is `program` at `path`. Its labels tell the next start that it is ours."""
    layer = _layer(program, path.lstrip("/"))
    config = _json({
        "architecture": _ARCHITECTURES.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": {"Entrypoint": [path], "Labels": {LABEL: "1"}},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    })  # fmt: skip
    manifest = _json({
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": _descriptor(f"{_OCI}.config.v1+json", config),
        "layers": [_descriptor(f"{_OCI}.layer.v1.tar", layer)],
    })  # fmt: skip
    kept = {"containerd.io/gc.ref.content.config": _digest(config), "containerd.io/gc.ref.content.l.0": _digest(layer)}
    target = containerd.Descriptor(media_type=f"{_OCI}.manifest.v1+json", digest=_digest(manifest), size=len(manifest))
    image = containerd.Image(name=reference, labels=_LABELS, target=target)
    what = f"make the image {reference}"
    await _make_lease(calls, what)
    try:
        for blob, labels in ((layer, {}), (config, {}), (manifest, kept)):
            await _write(calls, what, blob, labels)
        request = containerd.CreateImageRequest(image=image)
        with _unless(Status.ALREADY_EXISTS):
            await calls.call(what, f"{_IMAGES}Create", request, containerd.CreateImageResponse, metadata=NAMESPACE)
    finally:
        await _end_lease(calls, what)


async def own_images(calls: CriCalls) -> dict[str, str]:
    """Names of our images with their digests; of earlier programs also, which a killed kickwatch may have left."""
    request = containerd.ListImagesRequest(filters=[f"labels.{LABEL}==1"])
    answer = await calls.call(
        "list our images", f"{_IMAGES}List", request, containerd.ListImagesResponse, metadata=NAMESPACE
    )
    return {image.name: image.target.digest for image in answer.images if image.labels.get(LABEL) == "1"}


async def delete_image(calls: CriCalls, name: str) -> None:
    """Delete one name of an image; a missing one is no error. The collector removes what nothing refers to."""
    request = containerd.DeleteImageRequest(name=name, sync=True)
    with _unless(Status.NOT_FOUND):
        await calls.call(
            f"remove the image {name}", f"{_IMAGES}Delete", request, containerd.Nothing, metadata=NAMESPACE
        )


async def _make_lease(calls: CriCalls, what: str) -> None:
    """A new one, in place of that of a killed import. It ends by itself should this one be killed."""
    await _end_lease(calls, what)
    until = datetime.now(UTC).replace(microsecond=0) + _LEASE_LASTS
    labels = {LABEL: "1", "containerd.io/gc.expire": until.isoformat()}
    request = containerd.CreateLeaseRequest(id=_LEASE, labels=labels)
    await calls.call(what, f"{_LEASES}Create", request, containerd.CreateLeaseResponse, metadata=NAMESPACE)


async def _end_lease(calls: CriCalls, what: str) -> None:
    request = containerd.DeleteLeaseRequest(id=_LEASE)
    with _unless(Status.NOT_FOUND):
        await calls.call(what, f"{_LEASES}Delete", request, containerd.Nothing, metadata=NAMESPACE)


async def _write(calls: CriCalls, what: str, blob: bytes, labels: Mapping[str, str]) -> None:
    """Write a blob; one that is there already is no error."""
    metadata = {**NAMESPACE, "containerd-lease": _LEASE}
    with _unless(Status.ALREADY_EXISTS):
        await calls.stream(what, _WRITE, _requests(blob, labels), containerd.WriteContentResponse, metadata=metadata)


def _requests(blob: bytes, labels: Mapping[str, str]) -> list[containerd.WriteContentRequest]:
    """The blob in pieces. The last commits, which checks size and digest; the first restarts a killed import."""
    pieces = [
        containerd.WriteContentRequest(
            action=containerd.WRITE,
            ref=f"kickwatch-{_digest(blob)}",
            total=len(blob),
            expected=_digest(blob),
            offset=offset,
            data=blob[offset : offset + _PIECE_BYTES],
        )
        for offset in range(0, len(blob), _PIECE_BYTES)
    ]
    pieces[-1].action = containerd.COMMIT
    pieces[-1].labels.update(labels)
    return pieces


@contextmanager
def _unless(status: Status) -> Iterator[None]:
    """An answer with this status is no error."""
    try:
        yield
    except CallRefusedError as error:
        if error.status is not status:
            raise


def _layer(program: bytes, name: str) -> bytes:
    """A tar archive with one executable file; the same program gives the same bytes."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(program), 0o755
        tar.addfile(entry, io.BytesIO(program))
    return archive.getvalue()


def _descriptor(media_type: str, blob: bytes) -> dict[str, str | int]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{sha256(blob).hexdigest()}"


def _json(value: object) -> bytes:
    return msgspec.json.encode(value, order="sorted")
