"""Which engine: the one that engine.kind names, or for `auto` Docker where it answers and runc or crun where not."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from kickwatch.configuration.types import Config, EngineConfig, EngineKind, Network
from kickwatch.errors import ConfigError, EngineAbsentError
from kickwatch.journal.remark import Remark, RemarkKind
from kickwatch.node.continuity import engine_process
from kickwatch.workload.engine import Engine, EngineInfo, is_unnamed
from kickwatch.workload.oci_engine import OciEngine, forbidden
from kickwatch.workload.oci_runtime import find_runtime

_PROC = Path("/proc")
_ASKED_AGAIN, _ASK_AGAIN_S = 5, 1.0


@dataclass(frozen=True)
class ChosenEngine:
    """An engine that answered, and why it is this one. To be closed by whoever asked for it.

    `remarks` are for the log and a trial's record: none where the engine is what everybody expects.
    """

    engine: Engine
    info: EngineInfo
    why: str
    remarks: tuple[Remark, ...] = ()


class Known(NamedTuple):
    """How an engine named itself before (`docker 20.10.24`), and its runtime."""

    engine: str
    runtime: str


def completed(info: EngineInfo, known: Known | None) -> EngineInfo:
    """What the engine cannot name now as it was known before; what it can name is believed."""
    if known is None or not info.unnamed:
        return info
    name, _, version = known.engine.partition(" ")
    if name != info.name:
        return info
    if is_unnamed(info.version):
        info = msgspec.structs.replace(info, version=version)
    same = known.engine == str(info) and is_unnamed(info.runtime)
    return msgspec.structs.replace(info, runtime=known.runtime) if same else info


async def named(chosen: ChosenEngine, known: Known | None, pause_s: float = _ASK_AGAIN_S) -> tuple[EngineInfo, str]:
    """What the engine says of itself, asked again for some seconds where it cannot name its version or its runtime.

    Those are part of what trials are compared by: a name that is missing for a moment must not drop all evidence. Where
    it stays missing, what was known before holds; where nothing was, the missing name is one like any other. Returns
    also what is to be reported then; empty where nothing is missing.
    """
    info = chosen.info
    for _ in range(_ASKED_AGAIN):
        if not info.unnamed:
            return info, ""
        await asyncio.sleep(pause_s)
        info = await chosen.engine.info()
    whole = completed(info, known)
    taken = f"taken for `{whole}` with `{whole.runtime}`, as before" if whole != info else "nothing better is known"
    return whole, f"the engine calls itself `{info}` and its runtime `{info.runtime}`: {taken}" if info.unnamed else ""


async def choose(config: Config, *, workers: int = 1, alive: Callable[[], None] = lambda: None) -> ChosenEngine:
    """The engine for this configuration. `workers` bounds the calls under way at once; `alive` hears of each one's end.

    Raises EngineAbsentError where none answers, ConfigError where the engine asked for cannot do what else is asked.
    """
    kind = wanted(config.engine)
    if kind is EngineKind.OCI:
        await asyncio.to_thread(check_oci, config)
        return await _oci(config, alive, "engine.kind is oci", RemarkKind.RUNTIME_DRIVEN)
    from kickwatch.workload.docker_engine import DockerEngine  # noqa: PLC0415 -- the SDK: only where Docker is driven

    docker = DockerEngine(config.engine.socket, timeout_s=config.engine.timeout_s, workers=workers, alive=alive)
    try:
        info = await _asked(docker)
    except EngineAbsentError as absent:
        if kind is EngineKind.DOCKER:
            raise
        return await _without_docker(config, alive, absent)
    named = config.engine.kind is EngineKind.DOCKER
    return ChosenEngine(docker, info, "engine.kind is docker" if named else "Docker answers at its socket")


async def informant(config: Config) -> ChosenEngine:
    """The engine that knows what others start, for passive mode: Docker, since a runtime knows only our containers.

    Raises EngineAbsentError.
    """
    if wanted(config.engine) is EngineKind.OCI:
        what = "with engine.kind=oci nobody here knows which containers others start"
        raise EngineAbsentError(what, "set engine.kind=docker")
    engine = msgspec.structs.replace(config.engine, kind=EngineKind.DOCKER)
    return await choose(msgspec.structs.replace(config, engine=engine))


def wanted(engine: EngineConfig) -> EngineKind:
    """What is asked for. Under `auto` a socket that somebody named means the engine behind it, and no other."""
    if engine.kind is EngineKind.AUTO and engine.socket != EngineConfig().socket:
        return EngineKind.DOCKER
    return engine.kind


def resolved_config(config: Config, answered: str) -> Config:
    """For a daemon: once an engine of its own has answered, `auto` waits for that; its restart is no reason to change.

    `answered`: the name of the engine that answered last, empty where none has yet.
    """
    if config.engine.kind is not EngineKind.AUTO or answered in {"", "oci"}:
        return config
    engine = msgspec.structs.replace(config.engine, kind=EngineKind.DOCKER)
    return msgspec.structs.replace(config, engine=engine)


def oci_lacks(config: Config) -> str:
    """What is configured that takes an engine with images and networks, and its key; empty where nothing is."""
    if config.workload.network is not Network.NONE:
        return f"workload.network={config.workload.network} takes an engine that makes networks"
    if config.workload.image:
        return f"workload.image={config.workload.image} takes an engine that holds images"
    return ""


def check_engine(config: Config) -> None:
    """Raise ConfigError for what no engine of that kind can do, on whatever node."""
    if wanted(config.engine) is EngineKind.OCI and config.workload.enabled and (lacks := oci_lacks(config)):
        raise ConfigError(f"engine.kind=oci: {lacks}", "set engine.kind=docker")


def check_oci(config: Config) -> None:
    """Raise ConfigError where engine.kind=oci can never work from this process. Blocks for a moment."""
    check_engine(config)
    if wanted(config.engine) is EngineKind.OCI and config.workload.enabled and (missing := forbidden(_PROC)):
        raise ConfigError(f"engine.kind=oci: {missing[0]}", missing[1])


def drives_runtime(config: Config) -> bool:
    """Whether this process will start containers itself, as things are: that takes all of root's capabilities.

    Blocks for a moment: Docker's socket is tried.
    """
    if not config.workload.enabled:
        return False
    kind = wanted(config.engine)
    if kind is not EngineKind.AUTO or oci_lacks(config):
        return kind is EngineKind.OCI
    if find_runtime(config.engine.runtime) is None or forbidden(_PROC):
        return False
    return engine_process(Path(config.engine.socket)) == (0, 0)


async def _without_docker(config: Config, alive: Callable[[], None], absent: EngineAbsentError) -> ChosenEngine:
    """`auto` where Docker does not answer."""
    lacks = oci_lacks(config)
    if lacks:
        raise EngineAbsentError(f"{absent.what}, and {lacks}", absent.remedy) from absent
    try:
        return await _oci(config, alive, absent.what, RemarkKind.RUNTIME_INSTEAD)
    except EngineAbsentError as error:
        remedy = f"for Docker: {absent.remedy}; without an engine: {error.remedy}"
        raise EngineAbsentError(f"{absent.what}; {error.what}", remedy) from error


async def _oci(config: Config, alive: Callable[[], None], why: str, kind: RemarkKind) -> ChosenEngine:
    engine = OciEngine(config.engine.runtime, timeout_s=config.engine.timeout_s, alive=alive)
    info = await _asked(engine)
    remarks = [Remark(kind, f"engine: {info}, no daemon: {why}")]
    if not engine.seccomp:
        bare = f"engine: {info} was built without seccomp: its containers have no filter"
        remarks.append(Remark(RemarkKind.SECCOMP_MISSING, bare))
    return ChosenEngine(engine, info, why, tuple(remarks))


async def _asked(engine: Engine) -> EngineInfo:
    """What it says of itself; one that says nothing is closed."""
    try:
        return await engine.info()
    except BaseException:
        await engine.close()
        raise
