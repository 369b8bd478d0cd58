"""Which engine is selected, and the error when none is available."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import kickwatch.workload.engine_choice as module
from kickwatch.configuration.loading import load
from kickwatch.configuration.types import Config, EngineConfig, EngineKind
from kickwatch.errors import ConfigError, EngineAbsentError
from kickwatch.journal.remark import RemarkKind
from kickwatch.workload.engine import EngineInfo
from kickwatch.workload.engine_choice import (
    ChosenEngine,
    EngineNames,
    check_oci,
    choose_engine,
    choose_passive_engine,
    drives_runtime,
    fill_unnamed,
    requested_kind,
    resolve_names,
    resolved_config,
    unsupported_by_oci,
)
from kickwatch.workload.oci_support import MissingPrivilege


@pytest.fixture
def no_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default socket is a path on which nothing listens."""
    path = tmp_path / "docker.sock"

    class WithoutDocker(EngineConfig, frozen=True):
        socket: str = str(path)

    monkeypatch.setattr(module, "EngineConfig", WithoutDocker)
    return path


def configured(socket_path: Path, *sets: str) -> Config:
    return load(None, [f"engine.socket={socket_path}", "engine.timeout_s=1", *sets]).config


@pytest.fixture
def listening(no_docker: Path) -> Iterator[Path]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(no_docker))
        server.listen()
        yield no_docker


def test_a_configured_socket_selects_the_engine_behind_it() -> None:
    assert requested_kind(EngineConfig()) is EngineKind.AUTO
    assert requested_kind(EngineConfig(socket="/run/podman/podman.sock")) is EngineKind.DOCKER
    assert requested_kind(EngineConfig(kind=EngineKind.OCI, socket="/run/other.sock")) is EngineKind.OCI


async def test_with_kind_docker_no_runtime_is_tried(no_docker: Path) -> None:
    with pytest.raises(EngineAbsentError, match="no container engine answers") as caught:
        await choose_engine(configured(no_docker, "engine.kind=docker"))
    assert "runc" not in str(caught.value)


async def test_without_any_engine_the_error_has_both_remedies(no_docker: Path) -> None:
    with pytest.raises(EngineAbsentError) as caught:
        await choose_engine(configured(no_docker, "engine.runtime=/no/such/runtime"))
    assert str(no_docker) in caught.value.what
    assert "/no/such/runtime" in caught.value.what
    assert "systemctl start docker" in caught.value.remedy
    assert "install runc or crun" in caught.value.remedy


@pytest.mark.parametrize("setting", ["workload.network=bridge", "workload.image=debian:12"])
async def test_networks_and_images_need_docker(no_docker: Path, setting: str) -> None:
    key = setting.partition("=")[0]
    with pytest.raises(EngineAbsentError, match=key) as caught:
        await choose_engine(configured(no_docker, setting))
    assert "start docker" in caught.value.remedy
    with pytest.raises(ConfigError, match=f"engine.kind=oci: {key}") as refused:
        await choose_engine(configured(no_docker, setting, "engine.kind=oci"))
    assert "engine.kind=docker" in refused.value.remedy


class RuntimeWithoutSeccomp:
    """A fake OciEngine whose runtime has no seccomp; it has only what choose_engine calls."""

    seccomp = False

    def __init__(self, *_: Any, **__: Any) -> None:
        """Accept any arguments."""

    async def info(self) -> EngineInfo:
        return EngineInfo(name="oci", version="runc 1.1.5", runtime="runc 1.1.5", cgroup_driver="cgroupfs", root="/")

    async def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize(("kind", "remark"), [("auto", RemarkKind.RUNTIME_INSTEAD), ("oci", RemarkKind.RUNTIME_DRIVEN)])
async def test_a_runtime_is_remarked_on_as_configured_or_as_a_substitute(
    no_docker: Path, monkeypatch: pytest.MonkeyPatch, kind: str, remark: RemarkKind
) -> None:
    monkeypatch.setattr(module, "OciEngine", RuntimeWithoutSeccomp)
    monkeypatch.setattr(module, "missing_privilege", lambda _: None)
    config = configured(no_docker) if kind == "auto" else load(None, ["engine.kind=oci"]).config
    chosen = await choose_engine(config)
    assert [one.kind for one in chosen.remarks] == [remark, RemarkKind.SECCOMP_MISSING]
    assert "no daemon" in chosen.remarks[0].text


async def test_passive_mode_needs_docker(no_docker: Path) -> None:
    with pytest.raises(EngineAbsentError, match="does not know which containers others start"):
        await choose_passive_engine(configured(no_docker, "engine.kind=oci"))
    with pytest.raises(EngineAbsentError, match="no container engine answers"):
        await choose_passive_engine(configured(no_docker))


def test_a_network_is_unsupported_by_oci() -> None:
    assert unsupported_by_oci(Config()) == ""
    assert "workload.network=bridge" in unsupported_by_oci(load(None, ["workload.network=bridge"]).config)


def test_a_process_that_drives_a_runtime_keeps_its_capabilities(
    no_docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "missing_privilege", lambda _: None)
    program = tmp_path / "runc"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    auto = configured(no_docker, f"engine.runtime={program}")
    assert drives_runtime(auto)
    assert not drives_runtime(configured(no_docker, "engine.runtime=/no/such/runtime"))
    assert not drives_runtime(configured(no_docker, f"engine.runtime={program}", "engine.kind=docker"))
    assert not drives_runtime(configured(no_docker, f"engine.runtime={program}", "workload.network=bridge"))
    assert not drives_runtime(configured(no_docker, f"engine.runtime={program}", "workload.enabled=false"))
    assert drives_runtime(msgspec.structs.replace(auto, engine=EngineConfig(kind=EngineKind.OCI)))
    monkeypatch.setattr(
        module, "missing_privilege", lambda _: ("no", "no")
    )  # in a sandbox it could not: nothing is kept
    assert not drives_runtime(auto)


def test_with_docker_no_runtime_is_driven(listening: Path, tmp_path: Path) -> None:
    program = tmp_path / "runc"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert not drives_runtime(configured(listening, f"engine.runtime={program}"))


@pytest.mark.parametrize(
    ("kind", "answered", "then"),
    [
        ("auto", "", EngineKind.AUTO),
        ("auto", "oci", EngineKind.AUTO),
        ("auto", "docker", EngineKind.DOCKER),
        ("oci", "docker", EngineKind.OCI),  # configured by a reload
    ],
)
def test_auto_stays_with_docker_once_it_has_answered(kind: str, answered: str, then: EngineKind) -> None:
    assert resolved_config(load(None, [f"engine.kind={kind}"]).config, answered).engine.kind is then


def test_kind_oci_without_the_privilege_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(None, ["engine.kind=oci"]).config
    check_oci(config)
    monkeypatch.setattr(module, "missing_privilege", lambda _: MissingPrivilege("no way", "another way"))
    with pytest.raises(ConfigError, match=r"engine.kind=oci: no way"):
        check_oci(config)
    check_oci(load(None, ["engine.kind=oci", "workload.enabled=false"]).config)
    check_oci(load(None, []).config)


INFO = EngineInfo(name="docker", version="20.10.24", runtime="runc v1.1.5", cgroup_driver="cgroupfs", root="/r")
KNOWN = EngineNames("docker 20.10.24", "runc v1.1.5")


def answering(**fields: str) -> EngineInfo:
    return msgspec.structs.replace(INFO, **fields)


@pytest.mark.parametrize("runtime", ["runc N/A", "runc unknown", "unknown", "unknown unknown", "runc N/A (broken)", ""])
def test_a_missing_runtime_name_is_filled_in(runtime: str) -> None:
    assert fill_unnamed(answering(runtime=runtime), KNOWN) == INFO
    assert fill_unnamed(answering(runtime=runtime, version="unknown"), KNOWN) == INFO
    assert fill_unnamed(answering(runtime=runtime), None) == answering(runtime=runtime)


def test_reported_names_are_kept() -> None:
    for other in (answering(runtime="runc v1.2"), answering(version="28.0"), answering(version="28.0", runtime="x 1")):
        assert fill_unnamed(other, KNOWN) == other
    upgraded = answering(version="28.0", runtime="runc N/A")  # its runtime may be another one as well
    assert fill_unnamed(upgraded, KNOWN) == upgraded
    podman = answering(name="podman", version="unknown", runtime="unknown")
    assert fill_unnamed(podman, KNOWN) == podman


class Answers:
    """An engine whose `info` returns these answers in turn, then repeats the last."""

    def __init__(self, *answers: EngineInfo) -> None:
        self.answers = list(answers)

    async def info(self) -> EngineInfo:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def resolve(*answers: EngineInfo, known: EngineNames | None = None) -> tuple[EngineInfo, str]:
    """`resolve_names` for an engine that was chosen with the first answer and gives the others when asked again."""
    chosen = ChosenEngine(Answers(*(answers[1:] or answers)), answers[0], "why")  # type: ignore[arg-type]
    return await resolve_names(chosen, known, interval_s=0.0)


async def test_an_engine_without_a_runtime_name_is_asked_again() -> None:
    missing = answering(runtime="runc N/A")
    assert await resolve(INFO) == (INFO, "")
    assert await resolve(missing, missing, INFO) == (INFO, "")
    info, what = await resolve(missing, known=KNOWN)
    assert info == INFO
    assert "`runc N/A`: assuming `docker 20.10.24` with `runc v1.1.5`" in what
    info, what = await resolve(missing)
    assert info == missing
    assert "no better name is known" in what
