"""The reference of our image, the same on every engine."""

from hashlib import sha256

IMAGE_REPOSITORY = "localhost/kickwatch-workload"  # Podman resolves a name without a registry to docker.io


def image_reference(program: bytes) -> str:
    """Reference of the image that holds this program; the tag is the program's digest."""
    return f"{IMAGE_REPOSITORY}:{sha256(program).hexdigest()[:12]}"
