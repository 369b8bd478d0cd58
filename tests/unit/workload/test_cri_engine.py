"""The cri engine against a CRI in this process: lost answers, refusals, cancellations, images, absence."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from google.protobuf.message import Message
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from fake_cri import PAUSE_IMAGE, FakeCri
from kickwatch.errors import EngineAbsentError, EngineAnswerLostError, EngineError, ImageAbsentError
from kickwatch.workload import cri_pb2 as cri
from kickwatch.workload import cri_pods
from kickwatch.workload.cri_engine import CriEngine
from kickwatch.workload.engine import ContainerSpec
from kickwatch.workload.image import image_reference

PROGRAM = b"program" * 400_000  # in three pieces
IMAGE = image_reference(PROGRAM)
PATIENT_S = 10.0  # an answer that comes at all comes in this time, also on a busy machine


def spec(index: int = 0, *, network: str = "none", image: str = IMAGE, instance: str = "here") -> ContainerSpec:
    return ContainerSpec(
        name=f"kickwatch-00000000-{index}", instance=instance, trial="00000000", image=image, command=("--x",),
        network=network, cgroup_parent="/kickwatch", pids_limit=64,
    )  # fmt: skip


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeCri]:
    fake = FakeCri()
    async with fake.served(tmp_path / "cri.sock"):
        yield fake


@pytest.fixture
async def engine(fake: FakeCri, tmp_path: Path) -> AsyncIterator[CriEngine]:
    async with opened(tmp_path, PATIENT_S) as engine:
        yield engine


@pytest.fixture
async def impatient(fake: FakeCri, tmp_path: Path) -> AsyncIterator[CriEngine]:
    """For answers that never come."""
    async with opened(tmp_path, 2) as engine:
        yield engine


@asynccontextmanager
async def opened(directory: Path, timeout_s: float) -> AsyncIterator[CriEngine]:
    engine = CriEngine(str(directory / "cri.sock"), timeout_s=timeout_s, lost_create_search_s=1.0)
    await engine.info()
    yield engine
    await engine.close()


async def never(_: Message) -> None:
    await asyncio.sleep(60)


async def refused(_: Message) -> None:
    raise GRPCError(Status.UNKNOWN, "failed:\n no space left")


async def test_the_life_of_a_container(fake: FakeCri, engine: CriEngine) -> None:
    assert await engine.prepare_image(PROGRAM) == IMAGE
    container_id = await engine.create(spec())
    assert (engine.sandbox_ms(container_id) or 0) > 0
    (config,) = fake.pods.values()
    assert config.linux.cgroup_parent == "/kickwatch"
    assert config.linux.security_context.namespace_options.network == cri.NODE
    assert not [label for label in config.labels if label.startswith("io.kubernetes")]
    (_, container) = fake.containers[container_id]
    assert container.args == ["--x"]
    assert container.linux.security_context.capabilities.drop_capabilities == ["ALL"]
    assert container.linux.security_context.HasField("seccomp")
    assert engine.cgroup_ids(container_id) == (container_id, *fake.pods)
    await engine.start(container_id)
    assert await engine.pid(container_id) == 4711
    assert await engine.count_running() == 1
    assert await engine.wait(container_id, 0.05) is None
    fake.states[container_id] = cri.CONTAINER_EXITED
    assert await engine.wait(container_id, 1) == 7
    assert await engine.pid(container_id) == 0
    await engine.remove(container_id)
    await engine.remove(container_id)
    assert (fake.pods, fake.containers) == ({}, {})
    assert engine.sandbox_ms(container_id) is None


async def test_only_pods_of_this_instance_are_ours(fake: FakeCri, engine: CriEngine) -> None:
    mine = await engine.create(spec(0))
    await engine.create(spec(1, instance="another"))
    assert await engine.own_containers("here") == [mine]
    fake.containers.clear()  # a pod alone, as after kill -9 between two calls
    (pod,) = await engine.own_containers("here")
    await CriEngine.remove(engine, mine)
    await engine.remove(pod)
    assert list(fake.pods) == ["pod-kickwatch-00000000-1"]


@pytest.mark.parametrize("method", ["RunPodSandbox", "CreateContainer"])
@pytest.mark.parametrize("effect", ["no effect", "an effect"])
async def test_a_create_without_an_answer_leaves_nothing(
    fake: FakeCri, impatient: CriEngine, method: str, effect: str
) -> None:
    (fake.before if effect == "no effect" else fake.after)[method] = never
    with pytest.raises(EngineAnswerLostError, match=r"kickwatch-00000000-0.*no answer within 2 s"):
        await impatient.create(spec())
    assert fake.pods == {}


async def test_a_pod_that_appears_after_the_deadline_is_removed(fake: FakeCri, impatient: CriEngine) -> None:
    async def later(message: Message) -> None:
        async def appear() -> None:
            await asyncio.sleep(2.4)
            fake.on_RunPodSandbox(message)

        fake.late = asyncio.ensure_future(appear())  # type: ignore[attr-defined]
        await never(message)

    fake.before["RunPodSandbox"] = later
    with pytest.raises(EngineAnswerLostError):
        await impatient.create(spec())
    assert "RemovePodSandbox" in fake.calls
    assert fake.pods == {}


@pytest.mark.parametrize("method", ["RunPodSandbox", "CreateContainer"])
async def test_a_refused_create_says_why_and_leaves_nothing(fake: FakeCri, engine: CriEngine, method: str) -> None:
    fake.before[method] = refused
    with pytest.raises(EngineError, match=r"kickwatch-00000000-0: failed: no space left") as caught:
        await engine.create(spec())
    assert not isinstance(caught.value, EngineAnswerLostError)
    assert fake.pods == {}


@pytest.mark.parametrize("method", ["RunPodSandbox", "CreateContainer"])
async def test_a_cancelled_create_leaves_nothing(fake: FakeCri, engine: CriEngine, method: str) -> None:
    reached = asyncio.Event()

    async def slow(_: Message) -> None:
        reached.set()
        await asyncio.sleep(0.1)

    fake.after[method] = slow
    creating = asyncio.create_task(engine.create(spec()))
    await reached.wait()
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert fake.pods == {}


async def test_a_removal_waits_for_a_start_in_progress(fake: FakeCri, engine: CriEngine) -> None:
    container_id = await engine.create(spec())
    turns = iter([refused, refused])

    async def at_first(message: Message) -> None:
        if turn := next(turns, None):
            await turn(message)

    fake.before["RemovePodSandbox"] = at_first
    await engine.remove(container_id)
    assert fake.pods == {}


@pytest.mark.parametrize("retry_s", [3.0, 0.0])  # 0: the first refusal came late, as on a busy node
async def test_a_task_that_the_cri_has_forgotten_is_ended_with_its_pod(
    fake: FakeCri, engine: CriEngine, monkeypatch: pytest.MonkeyPatch, retry_s: float
) -> None:
    monkeypatch.setattr(cri_pods, "_REMOVE_RETRY_S", retry_s)
    container_id, other = await engine.create(spec(0)), await engine.create(spec(1))
    fake.states[container_id] = cri.CONTAINER_EXITED
    fake.forgotten = {container_id: True, other: True}
    await engine.remove(container_id)
    assert [*fake.containers] == [*fake.forgotten] == [other]


async def test_a_shutdown_ends_no_forgotten_task_and_does_not_wait_for_it(fake: FakeCri, engine: CriEngine) -> None:
    container_id = await engine.create(spec(0))
    fake.forgotten = {container_id: True}
    engine.shorten_timeouts()
    with pytest.raises(EngineError, match="could not remove"):
        await asyncio.wait_for(engine.remove(container_id), 3 * PATIENT_S)
    assert fake.forgotten == {container_id: True}


async def test_a_pod_whose_task_the_cri_forgets_leaves_none(fake: FakeCri, engine: CriEngine) -> None:
    """containerd 2 answers that the pod of a creation that was cut off is removed, and keeps its task."""
    await engine.create(spec(0))
    (ours,) = fake.pods
    fake.pods |= {"left": fake.pods[ours], "foreign": cri.PodSandboxConfig(labels={"kickwatch": "1"})}
    fake.forgotten = {"left": True, "foreign": True}
    (left,) = set(await engine.own_containers("here")) - {*fake.containers}
    await engine.remove(left)
    assert (fake.forgotten, fake.deleted, [*fake.pods]) == ({"foreign": True}, ["left"], [ours, "foreign"])


async def test_not_found_is_a_removal_only_if_the_pod_is_gone(
    fake: FakeCri, engine: CriEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """containerd 1.6 says so of a part of a pod that it then keeps."""
    monkeypatch.setattr(cri_pods, "_REMOVE_RETRY_S", 0.0)
    kept, gone = await engine.create(spec(0)), await engine.create(spec(1))

    async def not_found(message: Message) -> None:
        if str(message.pod_sandbox_id).endswith("-1"):  # type: ignore[attr-defined]
            fake.on_RemovePodSandbox(message)
        raise GRPCError(Status.NOT_FOUND, "get container info: not found")

    fake.before["RemovePodSandbox"] = not_found
    await engine.remove(gone)
    with pytest.raises(EngineError, match="could not remove"):
        await engine.remove(kept)
    assert [*fake.containers] == [kept]


async def test_images_are_imported_once_and_removed(fake: FakeCri, engine: CriEngine) -> None:
    await engine.prepare_image(PROGRAM)
    assert set(fake.images) == {IMAGE, PAUSE_IMAGE}
    assert fake.images[IMAGE] == {"kickwatch": "1", "io.cri-containerd.pinned": "pinned"}
    assert len(fake.blobs) == 6
    assert fake.leases == set()
    calls = fake.calls.count("ImagesCreate")
    await engine.prepare_image(PROGRAM)
    assert fake.calls.count("ImagesCreate") == calls
    fake.images |= {"localhost/kickwatch-workload:earlier": {"kickwatch": "1"}, "debian": {}}
    await engine.remove_image(IMAGE)
    assert set(fake.images) == {"debian"}


async def test_a_pause_image_that_others_use_stays(fake: FakeCri, engine: CriEngine) -> None:
    await engine.prepare_image(PROGRAM)
    await engine.create(spec(instance="another"))
    await engine.remove_image(IMAGE)
    assert set(fake.images) == {PAUSE_IMAGE}


async def test_a_pause_image_that_only_a_refusal_names(tmp_path: Path) -> None:
    """containerd 2 does not show its configuration of images."""
    fake = FakeCri(config={"containerd": {}})

    async def without_registry(_: Message) -> None:
        if PAUSE_IMAGE not in fake.images:
            why = f'failed to start sandbox "1": failed to get sandbox image "{PAUSE_IMAGE}": failed to pull image'
            raise GRPCError(Status.UNKNOWN, why)

    fake.before["RunPodSandbox"] = without_registry
    async with fake.served(tmp_path / "cri.sock") as socket:
        engine = CriEngine(str(socket), timeout_s=PATIENT_S)
        await engine.info()
        await engine.prepare_image(PROGRAM)
        assert set(fake.images) == {IMAGE}
        container_id, other_id = await asyncio.gather(engine.create(spec(0)), engine.create(spec(1)))
        assert set(fake.images) == {IMAGE, PAUSE_IMAGE}
        assert fake.calls.count("ImagesCreate") == 2
        await engine.remove(other_id)
        del fake.images[PAUSE_IMAGE]
        await engine.require_image(IMAGE)
        assert set(fake.images) == {IMAGE, PAUSE_IMAGE}
        await engine.remove(container_id)
        await engine.remove_image(IMAGE)
        assert fake.images == {}
        await engine.close()


async def test_an_image_taken_by_a_garbage_collection_is_missed(fake: FakeCri, engine: CriEngine) -> None:
    await engine.prepare_image(PROGRAM)
    del fake.images[PAUSE_IMAGE]
    await engine.require_image(IMAGE)
    assert PAUSE_IMAGE in fake.images
    del fake.images[IMAGE]
    with pytest.raises(ImageAbsentError, match=IMAGE):
        await engine.require_image(IMAGE)


HANDLERS = {
    "defaultRuntimeName": "runc",
    "runtimes": {
        "runc": {"runtimeType": "io.containerd.runc.v2"},
        "crun": {"runtimeType": "io.containerd.runc.v2", "options": {"BinaryName": "/usr/bin/crun"}},
    },
}


@pytest.mark.parametrize(
    ("wanted", "shown"), [("", "runc io.containerd.runc.v2"), ("crun", "crun io.containerd.runc.v2")]
)
async def test_the_configured_runtime_handler_is_asked_for(tmp_path: Path, wanted: str, shown: str) -> None:
    fake = FakeCri(config={"sandboxImage": PAUSE_IMAGE, "containerd": HANDLERS})
    async with fake.served(tmp_path / "cri.sock") as socket:
        engine = CriEngine(str(socket), timeout_s=PATIENT_S, runtime=wanted)
        info = await engine.info()
        assert (info.runtime, info.runtimes) == (shown, ("crun", "runc"))
        await engine.create(spec())
        assert fake.handlers == [wanted]
        await engine.close()


async def test_a_wrong_name_of_a_runtime_handler_gives_those_that_exist(tmp_path: Path) -> None:
    configured = FakeCri(config={"containerd": HANDLERS})
    listed = FakeCri(name="cri-o", config={})
    listed.listed_handlers = ["", "crun", "runc"]
    for fake, name in ((configured, "containerd"), (listed, "cri-o")):
        async with fake.served(tmp_path / name) as socket:
            engine = CriEngine(str(socket), timeout_s=PATIENT_S, runtime="kata")
            with pytest.raises(EngineAbsentError, match=f"{name} 1.6.20 has no runtime kata") as caught:
                await engine.info()
            assert caught.value.remedy == "set engine.runtime to one that it has: crun, runc"
            await engine.close()


async def test_an_engine_that_is_not_containerd_gets_no_image(tmp_path: Path) -> None:
    fake = FakeCri(name="cri-o", config={})
    async with fake.served(tmp_path / "crio.sock") as socket:
        engine = CriEngine(str(socket), timeout_s=PATIENT_S)
        info = await engine.info()
        assert (info.name, info.runtime) == ("cri-o", "default runtime")
        assert info.unnamed_fields == ()
        with pytest.raises(ImageAbsentError, match="only containerd imports"):
            await engine.prepare_image(PROGRAM)
        await engine.close()


@pytest.mark.parametrize(
    ("network", "image", "reason"),
    [("bridge", IMAGE, "bridge is Docker's"), ("none", "debian:12", "workload.image is not kickwatch's")],
)
async def test_a_network_that_a_cri_does_not_make(engine: CriEngine, network: str, image: str, reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        await engine.create(spec(network=network, image=image))


async def test_cni_needs_plugins(fake: FakeCri, engine: CriEngine) -> None:
    with pytest.raises(EngineAbsentError, match=r"cni \(no CNI\)"):
        engine.check_network("cni")
    engine.check_network("host")
    await engine.create(spec(network="cni", image="debian:12"))
    (config,) = fake.pods.values()
    assert config.linux.security_context.namespace_options.network == cri.POD


@pytest.mark.parametrize("systemd", [True, False])
async def test_the_cgroup_driver_of_containerd(tmp_path: Path, *, systemd: bool) -> None:
    runtimes = {"runc": {"runtimeType": "io.containerd.runc.v2", "options": {"SystemdCgroup": systemd}}}
    fake = FakeCri(config={"containerd": {"defaultRuntimeName": "runc", "runtimes": runtimes}})
    async with fake.served(tmp_path / "cri.sock") as socket:
        engine = CriEngine(str(socket), timeout_s=PATIENT_S)
        info = await engine.info()
        await engine.close()
    assert info.cgroup_driver == ("systemd" if systemd else "cgroupfs")
    assert (str(info), info.runtime, info.endpoint) == (
        "containerd 1.6.20", "runc io.containerd.runc.v2", str(socket)
    )  # fmt: skip


@pytest.mark.parametrize(("wanted", "driver"), [("", "systemd"), ("crun", "cgroupfs"), ("silent", "systemd")])
async def test_a_runtime_handler_may_have_another_cgroup_driver(tmp_path: Path, wanted: str, driver: str) -> None:
    """Asked for its driver, containerd 2 gives that of the default handler. Each driver has parents of its own kind."""
    runtimes = {
        "runc": {"runtimeType": "io.containerd.runc.v2", "options": {"SystemdCgroup": True}},
        "crun": {"runtimeType": "io.containerd.runc.v2", "options": {"BinaryName": "crun", "SystemdCgroup": False}},
        "silent": {"runtimeType": "io.containerd.runsc.v1"},
    }
    fake = FakeCri(config={"containerd": {"defaultRuntimeName": "runc", "runtimes": runtimes}})
    fake.runtime_config = cri.RuntimeConfigResponse(linux=cri.LinuxRuntimeConfiguration(cgroup_driver=cri.SYSTEMD))
    async with fake.served(tmp_path / "cri.sock") as socket:
        engine = CriEngine(str(socket), timeout_s=PATIENT_S, runtime=wanted)
        assert (await engine.info()).cgroup_driver == driver
        await engine.close()


async def test_an_answer_without_a_cgroup_driver_names_none(tmp_path: Path) -> None:
    fake = FakeCri(config={})
    fake.runtime_config = cri.RuntimeConfigResponse()
    async with fake.served(tmp_path / "cri.sock") as socket:
        engine = CriEngine(str(socket), timeout_s=PATIENT_S)
        assert (await engine.info()).cgroup_driver == "cgroupfs"
        await engine.close()


async def test_no_cri_answers(tmp_path: Path) -> None:
    engine = CriEngine(str(tmp_path / "no.sock"), timeout_s=PATIENT_S)
    with pytest.raises(EngineAbsentError, match=r"no CRI answers at .*no.sock \(No such file"):
        await engine.info()
    await engine.close()


async def test_a_cri_that_hangs_is_absent(fake: FakeCri, impatient: CriEngine) -> None:
    fake.before["Version"] = never
    with pytest.raises(EngineAbsentError, match=r"no answer within 2 s"):
        await impatient.info()


async def test_a_cri_that_is_not_ready_is_absent(tmp_path: Path) -> None:
    async with FakeCri(ready=False).served(tmp_path / "cri.sock") as socket:
        engine = CriEngine(str(socket), timeout_s=PATIENT_S)
        with pytest.raises(EngineAbsentError, match="is not ready"):
            await engine.info()
        await engine.close()


async def test_a_containerd_that_serves_docker_alone(fake: FakeCri, engine: CriEngine) -> None:
    """Docker's packages disable the plugin `cri` in /etc/containerd/config.toml."""

    async def unknown(_: Message) -> None:
        raise GRPCError(Status.UNIMPLEMENTED, "unknown service runtime.v1.RuntimeService")

    fake.before["Version"] = unknown
    with pytest.raises(EngineAbsentError, match=r"serves no CRI .*disabled_plugins"):
        await engine.info()


async def test_an_engine_that_answers_garbage_is_absent(tmp_path: Path) -> None:
    async def garbage(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 50)
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(garbage, tmp_path / "cri.sock")
    engine = CriEngine(str(tmp_path / "cri.sock"), timeout_s=0.5)
    with pytest.raises(EngineAbsentError, match=r"no CRI answers|answers with an error"):
        await engine.info()
    await engine.close()
    server.close()


async def test_shutdown_cuts_off_a_call_and_sends_no_other(fake: FakeCri, impatient: CriEngine) -> None:
    fake.before["StartContainer"] = never
    container_id = await impatient.create(spec())
    starting = asyncio.create_task(impatient.start(container_id))
    await asyncio.sleep(0.1)
    impatient.shorten_timeouts()
    with pytest.raises(EngineAnswerLostError):
        await starting
    sent = len(fake.calls)
    with pytest.raises(EngineAnswerLostError, match="has stopped answering"):
        await impatient.remove(container_id)
    assert len(fake.calls) == sent


async def test_a_container_that_somebody_removed(fake: FakeCri, engine: CriEngine) -> None:
    container_id = await engine.create(spec())
    fake.pods.clear()
    fake.containers.clear()
    with pytest.raises(EngineError, match="no such container"):
        await engine.wait(container_id, 1)
    await engine.remove(container_id)
