"""Which engine is selected, and the error when none is available."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.protobuf.message import Message
from grpclib.const import Status
from grpclib.exceptions import GRPCError

import kickwatch.workload.engine_choice as module
from fake_cri import FakeCri
from kickwatch.configuration.loading import load
from kickwatch.configuration.types import Config, EngineConfig, EngineKind
from kickwatch.errors import ConfigError, EngineAbsentError
from kickwatch.journal.remark import RemarkKind
from kickwatch.node.proc_mount import ProcMount
from kickwatch.workload.cri_support import Kubelet, find_kubelet
from kickwatch.workload.engine import EngineInfo
from kickwatch.workload.engine_choice import (
    ChosenEngine,
    EngineNames,
    check_engine,
    check_oci,
    choose_engine,
    drives_runtime,
    engines_runtime,
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


async def test_a_socket_of_docker_host_that_does_not_answer_is_named_as_such(
    no_docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{no_docker}")
    with pytest.raises(EngineAbsentError, match=f"at {no_docker}, which DOCKER_HOST names") as caught:
        await choose_engine(configured(no_docker, "engine.kind=docker"))
    assert caught.value.remedy.startswith("unset DOCKER_HOST")


async def test_a_configured_cri_is_not_asked_for_at_the_socket_of_docker_host(
    no_docker: Path, one_cri: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asked Docker's socket, where nobody answers as a CRI."""
    monkeypatch.setattr(module.cri_support, "EngineConfig", EngineConfig)
    config = load(None, ["engine.kind=cri"], {"DOCKER_HOST": f"unix://{no_docker}"}).config
    async with FakeCri().served(one_cri):
        chosen = await choose_engine(config)
        await chosen.engine.close()
    assert chosen.info.endpoint == str(one_cri)


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


@pytest.mark.parametrize(
    ("sets", "asked"),
    [
        ((), ""),  # auto: it is the program that oci would drive
        (("engine.kind=docker",), "crun"),
        (("engine.kind=cri",), "crun"),
        (("engine.socket=/run/other.sock",), "crun"),
        (("engine.kind=oci",), ""),
    ],
)
def test_a_runtime_is_asked_for_where_the_kind_of_engine_is_configured(sets: tuple[str, ...], asked: str) -> None:
    config = load(None, ["engine.runtime=crun", *sets]).config
    assert engines_runtime(config.engine) == asked
    if not sets:
        assert resolved_config(config, "docker").engine.runtime == ""


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


@pytest.fixture
def one_cri(no_docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CRI may listen at one place. No kubelet, no privilege for a runtime."""
    path = tmp_path / "containerd.sock"
    monkeypatch.setattr(module.cri_support, "EngineConfig", module.EngineConfig)
    monkeypatch.setattr(module.cri_support, "usual_sockets", lambda: (path,))
    monkeypatch.setattr(module.cri_support, "find_kubelet", lambda: Kubelet.ABSENT)
    monkeypatch.setattr(module, "OciEngine", RuntimeWithoutSeccomp)
    return path


async def test_auto_takes_a_cri_before_a_runtime(no_docker: Path, one_cri: Path) -> None:
    async with FakeCri().served(one_cri):
        chosen = await choose_engine(configured(no_docker))
        await chosen.engine.close()
    assert (chosen.info.name, chosen.info.endpoint) == ("containerd", str(one_cri))
    assert "no container engine answers" in chosen.why
    assert chosen.remarks == ()


async def test_a_daemon_whose_docker_restarts_waits_for_it_beside_a_cri(no_docker: Path, one_cri: Path) -> None:
    """Docker's own containerd answers as a CRI meanwhile, and would bring other containers than the evidence is of."""
    config = configured(no_docker)
    async with FakeCri().served(one_cri):
        with pytest.raises(EngineAbsentError, match="no container engine answers"):
            await choose_engine(resolved_config(config, "docker"))
        first = await choose_engine(resolved_config(config, ""))
        await first.engine.close()
    assert first.info.name == "containerd"


@pytest.mark.parametrize("reason", ["kubelet", "hidepid", "grpclib", "serves no CRI", "nothing listens"])
async def test_auto_says_why_it_takes_no_cri(
    no_docker: Path, one_cri: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    async def unknown(_: Message) -> None:
        raise GRPCError(Status.UNIMPLEMENTED, "unknown service")

    fake = FakeCri()
    if reason == "kubelet":
        monkeypatch.setattr(module.cri_support, "find_kubelet", lambda: Kubelet.RUNS)
    elif reason == "hidepid":
        monkeypatch.setattr(module.cri_support, "find_kubelet", lambda: Kubelet.HIDDEN)
        monkeypatch.setattr(module.cri_support, "read_proc_mount", lambda _: ProcMount("invisible"))
    elif reason == "grpclib":
        monkeypatch.setattr(module.cri_support, "has_grpc", lambda: False)
    elif reason == "serves no CRI":
        fake.before["Version"] = unknown
    async with fake.served(one_cri if reason != "nothing listens" else one_cri.with_name("other.sock")):
        chosen = await choose_engine(configured(no_docker))
    assert chosen.info.name == "oci"
    assert reason in chosen.why or (reason == "nothing listens" and "CRI" not in chosen.why)


async def test_beside_a_kubelet_a_configured_cri_is_remarked_on(
    no_docker: Path, one_cri: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.cri_support, "find_kubelet", lambda: Kubelet.RUNS)
    async with FakeCri().served(one_cri):
        chosen = await choose_engine(configured(one_cri, "engine.kind=cri"))
        await chosen.engine.close()
    assert chosen.why == "engine.kind is cri"
    assert [remark.kind for remark in chosen.remarks] == [RemarkKind.KUBELET_BESIDE]


async def test_networks_of_other_engines(no_docker: Path, one_cri: Path) -> None:
    for sets in (("engine.kind=cri", "workload.network=bridge"), ("engine.kind=docker", "workload.network=cni")):
        with pytest.raises(ConfigError, match=r"workload[.]network"):
            check_engine(configured(no_docker, *sets))
    async with FakeCri().served(one_cri):
        with pytest.raises(EngineAbsentError, match=r"workload.network=cni \(no CNI\)"):
            await choose_engine(configured(one_cri, "engine.kind=cri", "workload.network=cni"))


def test_a_cris_socket_means_a_cri_and_stays_so() -> None:
    assert requested_kind(EngineConfig(socket="/run/k3s/containerd/containerd.sock")) is EngineKind.CRI
    assert resolved_config(load(None, []).config, "containerd").engine.kind is EngineKind.CRI
    assert resolved_config(load(None, []).config, "podman").engine.kind is EngineKind.DOCKER


def test_a_kubelet_is_found_by_its_name(tmp_path: Path) -> None:
    for pid, comm in (("1", "systemd"), ("20", "kubelet-helper")):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "comm").write_text(f"{comm}\n")
    assert find_kubelet(tmp_path) is Kubelet.ABSENT
    (tmp_path / "20" / "comm").write_text("kubelet\n")
    assert find_kubelet(tmp_path) is Kubelet.RUNS


@pytest.mark.parametrize(
    ("node", "drives"),
    [
        ("a CRI", False),
        ("a CRI and a kubelet", True),
        ("a CRI and hidden processes", True),
        ("Docker's containerd", True),
    ],
)
async def test_what_a_runtime_needs_is_kept_unless_a_cri_will_be_driven(
    no_docker: Path, one_cri: Path, monkeypatch: pytest.MonkeyPatch, node: str, *, drives: bool
) -> None:
    async def unknown(_: Message) -> None:
        raise GRPCError(Status.UNIMPLEMENTED, "unknown service")

    monkeypatch.setattr(module, "missing_privilege", lambda _: None)
    monkeypatch.setattr(module, "find_runtime", lambda _: Path("/usr/sbin/runc"))
    kubelet = Kubelet.HIDDEN if "hidden" in node else Kubelet.RUNS if "kubelet" in node else Kubelet.ABSENT
    monkeypatch.setattr(module.cri_support, "find_kubelet", lambda: kubelet)
    fake = FakeCri()
    if node == "Docker's containerd":
        fake.before["Version"] = unknown
    async with fake.served(one_cri):
        assert await asyncio.to_thread(drives_runtime, configured(no_docker)) is drives
