"""Select the engine: the one that engine.kind names; for `auto` Docker if it answers, else a CRI, else runc or crun."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from kickwatch.configuration.docker_socket import docker_host
from kickwatch.configuration.types import Config, EngineConfig, EngineKind, Network
from kickwatch.errors import ConfigError, EngineAbsentError
from kickwatch.journal.remark import Remark, RemarkKind
from kickwatch.node.continuity import engine_process
from kickwatch.node.privileges import held
from kickwatch.node.roots import HOST
from kickwatch.workload import cri_support
from kickwatch.workload.cri_support import Kubelet
from kickwatch.workload.engine import Engine, EngineInfo, is_unnamed
from kickwatch.workload.oci_engine import OciEngine
from kickwatch.workload.oci_support import find_runtime, missing_privilege

_INFO_RETRIES, _INFO_RETRY_INTERVAL_S = 5, 1.0
_NO_SOCKET = "no CRI"


@dataclass(frozen=True)
class ChosenEngine:
    """An engine that answered, and why it was selected. The caller closes it.

    `remarks` go to the log and into the trial's record; empty where the engine is the expected one.
    """

    engine: Engine
    info: EngineInfo
    why: str
    remarks: tuple[Remark, ...] = ()


class EngineNames(NamedTuple):
    """How an engine named itself and its runtime in the past, for example `docker 20.10.24` and `runc 1.1.5`."""

    engine: str
    runtime: str

    @classmethod
    def of(cls, info: EngineInfo) -> Self:
        """The names that an engine reported."""
        return cls(str(info), info.runtime)


def fill_unnamed(info: EngineInfo, known: EngineNames | None) -> EngineInfo:
    """Replace missing names by those known from the past; names that the engine reports are kept.

    The runtime is filled in only if engine and version are the same as in the past.
    """
    if known is None or not info.unnamed_fields:
        return info
    name, _, version = known.engine.partition(" ")
    if name != info.name:
        return info
    if is_unnamed(info.version):
        info = msgspec.structs.replace(info, version=version)
    fill_runtime = known.engine == str(info) and is_unnamed(info.runtime)
    return msgspec.structs.replace(info, runtime=known.runtime) if fill_runtime else info


async def resolve_names(
    chosen: ChosenEngine, known: EngineNames | None, interval_s: float = _INFO_RETRY_INTERVAL_S
) -> tuple[EngineInfo, str]:
    """The engine's description, asked for again for some seconds while its version or its runtime has no name.

    Trials are compared by those names, so a name that is missing for a moment must not discard the evidence. If it
    stays missing, the name from the past applies; without one, the missing name counts as a name. Also returns the
    sentence to log in that case; empty when nothing is missing.
    """
    info = chosen.info
    for _ in range(_INFO_RETRIES):
        if not info.unnamed_fields:
            return info, ""
        await asyncio.sleep(interval_s)
        info = await chosen.engine.info()
    if not info.unnamed_fields:
        return info, ""
    filled = fill_unnamed(info, known)
    assumed = f"assuming `{filled}` with `{filled.runtime}`, as before" if filled != info else "no better name is known"
    return filled, f"the engine calls itself `{info}` and its runtime `{info.runtime}`: {assumed}"


async def choose_engine(
    config: Config, *, workers: int = 1, on_call_end: Callable[[], None] = lambda: None
) -> ChosenEngine:
    """The engine for this configuration.

    `workers` limits the number of concurrent calls; `on_call_end` is called after each of them. Raises
    EngineAbsentError if no engine answers, ConfigError if the requested engine cannot do what else is configured.
    """
    kind = requested_kind(config.engine)
    if kind is EngineKind.OCI:
        await asyncio.to_thread(check_oci, config)
        return await _choose_oci(config, on_call_end, "engine.kind is oci", RemarkKind.RUNTIME_DRIVEN)
    if kind is EngineKind.CRI:
        check_engine(config)
        return await _choose_cri(config, on_call_end, "engine.kind is cri")
    from kickwatch.workload.docker_engine import DockerEngine  # noqa: PLC0415 -- the SDK: only where Docker is driven

    docker = DockerEngine(
        config.engine.socket,
        timeout_s=config.engine.timeout_s,
        workers=workers,
        runtime=engines_runtime(config.engine),
        on_call_end=on_call_end,
    )
    try:
        info = await _info_or_close(docker)
    except EngineAbsentError as absent:
        if kind is EngineKind.DOCKER:
            raise
        return await _choose_without_docker(config, on_call_end, absent)
    return ChosenEngine(docker, info, _why_docker(config.engine))


def _why_docker(engine: EngineConfig) -> str:
    if docker_host(os.environ).socket == engine.socket:
        return "DOCKER_HOST names its socket"
    return "engine.kind is docker" if engine.kind is EngineKind.DOCKER else "Docker answers at its socket"


def requested_kind(engine: EngineConfig) -> EngineKind:
    """The configured kind. Under `auto`, a socket set in the configuration means the engine behind it and no other."""
    if engine.kind is EngineKind.AUTO and engine.socket != EngineConfig().socket:
        names = {path.name for path in cri_support.usual_sockets()}
        return EngineKind.CRI if Path(engine.socket).name in names else EngineKind.DOCKER
    return engine.kind


def kind_of(answered: str) -> EngineKind:
    """The kind of an engine that gave this name."""
    if answered in {"docker", "podman"}:
        return EngineKind.DOCKER
    return EngineKind.OCI if answered == "oci" else EngineKind.CRI


def engines_runtime(engine: EngineConfig) -> str:
    """The runtime to ask Docker or a CRI for; empty for its default. Under `auto` the key names what `oci` drives."""
    return engine.runtime if requested_kind(engine) in {EngineKind.DOCKER, EngineKind.CRI} else ""


def resolved_config(config: Config, answered: str) -> Config:
    """The configuration of a daemon's next session: once Docker or a CRI has answered, `auto` means that one.

    A daemon then waits for an engine that restarts instead of switching to a runtime. `answered`: the name of the
    engine that answered last, empty if none has yet.
    """
    if config.engine.kind is not EngineKind.AUTO or answered in {"", "oci"}:
        return config
    engine = msgspec.structs.replace(config.engine, kind=kind_of(answered), runtime=engines_runtime(config.engine))
    return msgspec.structs.replace(config, engine=engine)


def unsupported_by_oci(config: Config) -> str:
    """The configured key that needs an engine with images or networks, and why; empty if there is none."""
    if config.workload.network is not Network.NONE:
        return f"workload.network={config.workload.network} needs an engine with networks"
    if config.workload.image:
        return f"workload.image={config.workload.image} needs an engine with images"
    return ""


def check_engine(config: Config) -> None:
    """Raise ConfigError for a configuration that its kind of engine supports on no node."""
    if not config.workload.enabled:
        return
    kind = requested_kind(config.engine)
    if kind is EngineKind.OCI and (unsupported := unsupported_by_oci(config)):
        raise ConfigError(f"engine.kind=oci: {unsupported}", "set engine.kind=docker")
    if kind is EngineKind.CRI and (unsupported := cri_support.unsupported_by_cri(config)):
        raise ConfigError(f"engine.kind=cri: {unsupported}", "set workload.network")
    if kind is EngineKind.DOCKER and config.workload.network is Network.CNI:
        raise ConfigError("workload.network=cni is a CRI's; Docker has bridge", "set engine.kind=cri")


def check_oci(config: Config) -> None:
    """`check_engine`, and raise ConfigError if engine.kind=oci can never work in this process. Blocks briefly."""
    check_engine(config)
    if _needs_oci(config) and (missing := missing_privilege(held(HOST.proc))):
        raise ConfigError(f"engine.kind=oci: {missing.what}", missing.remedy)


def _needs_oci(config: Config) -> bool:
    return config.workload.enabled and requested_kind(config.engine) is EngineKind.OCI


def drives_runtime(config: Config) -> bool:
    """Whether this process, as things are, will drive a runtime itself, which needs all of root's capabilities.

    Blocks briefly: it tries the sockets of Docker and of a CRI, whose containerd may serve Docker alone. Call it in a
    thread.
    """
    if not config.workload.enabled:
        return False
    kind = requested_kind(config.engine)
    if kind is not EngineKind.AUTO or unsupported_by_oci(config):
        return kind is EngineKind.OCI
    if find_runtime(config.engine.runtime) is None or missing_privilege(held(HOST.proc)):
        return False
    if engine_process(Path(config.engine.socket)) != (0, 0):
        return False
    return bool(_no_cri(config)) or not asyncio.run(_cri_answers(config))


async def _choose_without_docker(
    config: Config, on_call_end: Callable[[], None], absent: EngineAbsentError
) -> ChosenEngine:
    """`auto` where Docker does not answer."""
    why = absent.what
    if not (no_cri := await asyncio.to_thread(_no_cri, config)):
        try:
            return await _choose_cri(config, on_call_end, absent.what)
        except EngineAbsentError as error:
            no_cri = error.what
    why = f"{why}; {no_cri}" if no_cri != _NO_SOCKET else why
    unsupported = unsupported_by_oci(config)
    if unsupported:
        raise EngineAbsentError(f"{why}, and {unsupported}", absent.remedy) from absent
    try:
        return await _choose_oci(config, on_call_end, why, RemarkKind.RUNTIME_INSTEAD)
    except EngineAbsentError as error:
        remedy = f"for Docker: {absent.remedy}; without an engine: {error.remedy}"
        raise EngineAbsentError(f"{why}; {error.what}", remedy) from error


def _no_cri(config: Config) -> str:
    """Why `auto` does not ask a CRI; empty if it does. Blocks briefly."""
    if not any(Path(socket).exists() for socket in cri_support.cri_sockets(config.engine)):
        return _NO_SOCKET
    if not cri_support.has_grpc():
        return f"there is a CRI, but grpclib is not installed ({cri_support.INSTALL_REMEDY})"
    kubelet = cri_support.find_kubelet()
    if kubelet is Kubelet.RUNS:
        return "there is a CRI, but a kubelet as well, which ends pods that it did not start"
    if kubelet is Kubelet.HIDDEN:
        return f"there is a CRI, but perhaps a kubelet as well ({cri_support.why_hidden()})"
    return cri_support.unsupported_by_cri(config)


async def _cri_answers(config: Config) -> bool:
    try:
        chosen = await _choose_cri(config, lambda: None, "")
    except EngineAbsentError:
        return False
    await chosen.engine.close()
    return True


async def _choose_cri(config: Config, on_call_end: Callable[[], None], why: str) -> ChosenEngine:
    """The first CRI that answers. Raises EngineAbsentError with the reasons of all."""
    if not cri_support.has_grpc():
        raise EngineAbsentError("engine.kind=cri: grpclib and protobuf are not installed", cri_support.INSTALL_REMEDY)
    from kickwatch.workload.cri_engine import CriEngine  # noqa: PLC0415 -- gRPC: only where a CRI is driven

    absent: list[EngineAbsentError] = []
    for socket in await asyncio.to_thread(cri_support.cri_sockets, config.engine):
        engine = CriEngine(
            socket,
            timeout_s=config.engine.timeout_s,
            runtime=engines_runtime(config.engine),
            on_call_end=on_call_end,
        )
        try:
            info = await _info_or_close(engine)
            engine.check_network(config.workload.network)
        except EngineAbsentError as error:
            await engine.close()
            absent.append(error)
            continue
        remarks: tuple[Remark, ...] = ()
        if await asyncio.to_thread(cri_support.find_kubelet) is Kubelet.RUNS:
            text = f"engine: {info} beside a kubelet, which ends pods that it did not start: some containers will fail"
            remarks = (Remark(RemarkKind.KUBELET_BESIDE, text),)
        return ChosenEngine(engine, info, why, remarks)
    raise EngineAbsentError("; ".join(error.what for error in absent), absent[0].remedy)


async def _choose_oci(config: Config, on_call_end: Callable[[], None], why: str, kind: RemarkKind) -> ChosenEngine:
    engine = OciEngine(config.engine.runtime, timeout_s=config.engine.timeout_s, on_call_end=on_call_end)
    info = await _info_or_close(engine)
    remarks = [Remark(kind, f"engine: {info}, no daemon: {why}")]
    if not engine.seccomp:
        text = f"engine: {info} was built without seccomp: its containers have no filter"
        remarks.append(Remark(RemarkKind.SECCOMP_MISSING, text))
    return ChosenEngine(engine, info, why, tuple(remarks))


async def _info_or_close(engine: Engine) -> EngineInfo:
    """The engine's description; the engine is closed if that fails."""
    try:
        return await engine.info()
    except BaseException:
        await engine.close()
        raise
