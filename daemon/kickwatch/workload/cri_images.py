"""Images of a CRI: ours, and the one of its pause containers. Only containerd imports an image without a registry."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager

from grpclib.const import Status

from kickwatch.errors import ImageAbsentError
from kickwatch.native import binary
from kickwatch.process.cancellation import run_shielded
from kickwatch.workload import cri_pb2 as cri
from kickwatch.workload.containerd_images import delete_image, import_image, own_images
from kickwatch.workload.cri_calls import CallRefusedError, CriCalls
from kickwatch.workload.image import IMAGE_REPOSITORY
from kickwatch.workload.oci_bundle import PROGRAM

CONTAINERD = "containerd"
_IMAGES = "/runtime.v1.ImageService/"
_SEEN_S, _POLL_S = 10.0, 0.02  # the CRI hears of an imported image by an event
_PAUSE = "/pause"
_POD_IMAGE_MISSING = re.compile(r'failed to get sandbox image "([^"]+)"')  # as containerd 1.6 to 2.1 say it


class CriImages:
    """`engine`: the CRI's name. `pod_image`: of its pause containers, empty if unknown."""

    def __init__(self, calls: CriCalls) -> None:
        """The other fields are known once the CRI has described itself."""
        self._calls = calls
        self._importing = asyncio.Lock()
        self.engine = ""
        self.pod_image = ""

    async def prepare(self, reference: str, program: bytes) -> None:
        """Import our image, and one for pause containers if the configured one is not there."""
        await run_shielded(self._import(reference, program, PROGRAM))
        await self.prepare_pod_image()

    async def require(self, reference: str) -> None:
        """Raises ImageAbsentError. The pods' image is imported again where it is gone."""
        await self.prepare_pod_image()
        if await self._find(reference) is None:
            raise ImageAbsentError(f"the image {reference} is not on this node", f"crictl pull {reference}")

    async def prepare_pod_image(self) -> None:
        """The CRI would pull a missing one. A kubelet's node has it; elsewhere our pause program takes its place."""
        if self.pod_image and self.engine == CONTAINERD:
            program = await asyncio.to_thread(lambda: binary("pause").read_bytes())
            await run_shielded(self._import(self.pod_image, program, _PAUSE))

    async def learn_pod_image(self, refusal: CallRefusedError) -> bool:
        """Import the image for want of which a pod was refused; False if that is not why.

        containerd 2 does not show which image it is configured to take.
        """
        missing = _POD_IMAGE_MISSING.search(refusal.remedy)
        if missing is None or self.engine != CONTAINERD:
            return False
        self.pod_image = missing[1]
        await self.prepare_pod_image()
        return True

    async def remove(self, reference: str, *, pods_left: bool) -> None:
        """Remove our images: of this program, of earlier ones, and the pods' image if it is ours and no pod is left."""
        names = await own_images(self._calls) if self.engine == CONTAINERD else [reference]
        for name in names:
            if name.startswith(f"{IMAGE_REPOSITORY}:") or not pods_left:
                await self._remove(name)

    async def _import(self, reference: str, program: bytes, path: str) -> None:
        """Import an image unless it is there, and wait until the CRI knows it."""
        async with self._importing:
            if await self._find(reference) is not None:
                return
            if self.engine != CONTAINERD:
                what = f"only containerd imports an image without a registry, not {self.engine}"
                raise ImageAbsentError(what, "set engine.kind=oci, or workload.image to an image of this node")
            await import_image(self._calls, reference, program, path)
            deadline = asyncio.get_running_loop().time() + _SEEN_S
            while await self._find(reference) is None:
                if asyncio.get_running_loop().time() > deadline:
                    what = f"the CRI does not see the imported image {reference}"
                    raise ImageAbsentError(what, "journalctl -u containerd")
                await asyncio.sleep(_POLL_S)

    async def _find(self, reference: str) -> cri.Image | None:
        """An image by name, id or digest; None if it is not on the node."""
        request = cri.ImageRequest(image=cri.ImageSpec(image=reference))
        what = f"look for the image {reference}"
        answer = await self._calls.call(what, f"{_IMAGES}ImageStatus", request, cri.ImageStatusResponse)
        return answer.image if answer.HasField("image") else None

    async def _remove(self, reference: str) -> None:
        """The CRI removes an image with all its names: if another name is somebody's, only ours goes."""
        image = await self._find(reference)
        if image is not None and any(tag != reference for tag in image.repo_tags):
            await delete_image(self._calls, reference)
            return
        request = cri.ImageRequest(image=cri.ImageSpec(image=reference))
        with unless_missing():
            await self._calls.call(f"remove the image {reference}", f"{_IMAGES}RemoveImage", request, cri.Nothing)


@contextmanager
def unless_missing() -> Iterator[None]:
    """What is not there need not be removed."""
    try:
        yield
    except CallRefusedError as error:
        if error.status is not Status.NOT_FOUND:
            raise
