"""The name of our image: what every engine calls it, whichever one holds it."""

from hashlib import sha256

IMAGE_REPOSITORY = "localhost/kickwatch-workload"  # Podman takes a short name for one of docker.io


def image_reference(program: bytes) -> str:
    """The image that holds this program: its tag is the program's digest."""
    return f"{IMAGE_REPOSITORY}:{sha256(program).hexdigest()[:12]}"
