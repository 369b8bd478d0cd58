"""Our images on a Docker Engine: one program each, named after its digest, and what was left of earlier ones."""

import io
import tarfile
from collections.abc import Mapping
from typing import Any

import docker.errors

import docker
from kickwatch.workload.engine import LABEL
from kickwatch.workload.image import IMAGE_REPOSITORY
from kickwatch.workload.oci_bundle import PROGRAM

# The last two are what engines before API 1.43 call an image without a name.
_OWN_NAMES = (f"{IMAGE_REPOSITORY}:", f"{IMAGE_REPOSITORY}@", "<none>:<none>", "<none>@<none>")


def scratch_layer(program: bytes) -> bytes:
    """A tar archive that holds one executable file and nothing else, the same bytes every time."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo(PROGRAM.lstrip("/"))
        entry.size, entry.mode = len(program), 0o755
        tar.addfile(entry, io.BytesIO(program))
    return archive.getvalue()


def has_image(api: docker.APIClient, reference: str) -> bool:
    """Asked by inspecting, which takes ids, digests and full names (docker.io/library/...); listing does not."""
    try:
        api.inspect_image(reference)  # type: ignore[no-untyped-call]  # the stubs leave it out
    except docker.errors.NotFound:
        return False
    return True


def make_image(api: docker.APIClient, reference: str, layer: bytes) -> None:
    """Import `layer` as an image that runs its program and has our label."""
    changes = [f'ENTRYPOINT ["{PROGRAM}"]', f"LABEL {LABEL}=1"]
    answer = api.import_image_from_data(layer, repository=reference, changes=changes)  # Podman 4.3 ignores `tag`
    if "error" in str(answer):
        raise docker.errors.DockerException(str(answer).strip())


def left_images(api: docker.APIClient) -> list[str]:
    """Ids of images with our label that nobody has named but us.

    An engine that stops in the middle of an import keeps an image without a name, which no reference finds again; a
    kickwatch that was killed, and then updated, one with the name of another program.
    """
    found = api.images(filters={"label": f"{LABEL}=1"}) or []
    # The label is looked at once more: an engine that does not know the filter answers with everybody's images.
    labelled = [image for image in found if (image.get("Labels") or {}).get(LABEL) == "1"]
    return [str(image["Id"]) for image in labelled if all(name.startswith(_OWN_NAMES) for name in _names(image))]


def _names(image: Mapping[str, Any]) -> list[str]:
    """Tags, and the digests that it was pulled by or pushed as."""
    return [str(name) for kind in ("RepoTags", "RepoDigests") for name in image.get(kind) or ()]
