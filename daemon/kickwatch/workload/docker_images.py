"""Our images on a Docker Engine: one program each, tagged with its digest; and leftovers of earlier programs."""

import io
import tarfile
from collections.abc import Mapping
from typing import Any

import docker.errors

import docker
from kickwatch.workload.engine import LABEL
from kickwatch.workload.image import IMAGE_REPOSITORY
from kickwatch.workload.oci_bundle import PROGRAM

# Engines before API 1.43 list an image without a name under the last two.
_OWN_NAMES = (f"{IMAGE_REPOSITORY}:", f"{IMAGE_REPOSITORY}@", "<none>:<none>", "<none>@<none>")


def scratch_layer(program: bytes) -> bytes:
    """A tar archive with one executable file; the same program gives the same bytes."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo(PROGRAM.lstrip("/"))
        entry.size, entry.mode = len(program), 0o755
        tar.addfile(entry, io.BytesIO(program))
    return archive.getvalue()


def has_image(api: docker.APIClient, reference: str) -> bool:
    """Inspect instead of list: only that accepts ids, digests and full names (docker.io/library/...)."""
    try:
        api.inspect_image(reference)  # type: ignore[no-untyped-call]  # the stubs leave it out
    except docker.errors.NotFound:
        return False
    return True


def import_image(api: docker.APIClient, reference: str, layer: bytes) -> None:
    """Import `layer` as an image that runs our program and has our label."""
    changes = [f'ENTRYPOINT ["{PROGRAM}"]', f"LABEL {LABEL}=1"]
    answer = api.import_image_from_data(layer, repository=reference, changes=changes)  # Podman 4.3 ignores `tag`
    if "error" in str(answer):
        raise docker.errors.DockerException(str(answer).strip())


def leftover_images(api: docker.APIClient) -> list[str]:
    """Ids of images with our label and without a name given by someone else.

    An engine that stops during an import keeps an image without a name, which no reference finds. A kickwatch that was
    killed and then updated leaves an image named after its earlier program.
    """
    found = api.images(filters={"label": f"{LABEL}=1"}) or []
    # Check the label here as well: an engine that ignores the filter returns all images.
    labelled = [image for image in found if (image.get("Labels") or {}).get(LABEL) == "1"]
    return [str(image["Id"]) for image in labelled if all(name.startswith(_OWN_NAMES) for name in _names(image))]


def _names(image: Mapping[str, Any]) -> list[str]:
    """Tags, and the digests by which it was pulled or pushed."""
    return [str(name) for kind in ("RepoTags", "RepoDigests") for name in image.get(kind) or ()]
