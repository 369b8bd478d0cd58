"""The configuration: defaults, overrides, the shipped example, and one clear line for everything that is wrong."""

import os
import re
import tomllib
from errno import EACCES, EIO, EISDIR, ENOENT, ENOTDIR, EPERM, ESTALE
from pathlib import Path
from typing import IO

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickwatch.configuration.loading import (
    FILE_OFF,
    FORCED_SERIAL,
    Loaded,
    allowed,
    differences,
    digest,
    known_keys,
    load,
)
from kickwatch.configuration.types import Config, EngineConfig, EngineKind, LogFormat, Network
from kickwatch.errors import ConfigAbsentError, ConfigError
from kickwatch.workload.engine_choice import requested_kind

EXAMPLE = Path(__file__).parents[3] / "deploy" / "kickwatch.toml"
KEYS = sorted(known_keys())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "kickwatch.toml"


def error_of(path: Path | None, *sets: str, strict: bool = True) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, sets, strict=strict)
    assert caught.value.exit_status == 2
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_given_is_the_defaults() -> None:
    loaded = load(None)
    assert loaded.config == Config()
    assert loaded.warnings == ()
    assert loaded.config.engine.kind is EngineKind.AUTO
    assert loaded.config.workload.containers_per_trial == 23


def test_the_default_of_every_key_is_allowed() -> None:
    assert msgspec.convert(msgspec.to_builtins(Config()), Config) == Config()


def test_file_and_sets_override_in_turn(file: Path) -> None:
    file.write_text(
        '[workload]\nnetwork = "bridge"\nconcurrency = 4\ncommand = ["a", "b"]\nimage = "x"\n[trial]\nwindow_s = 3\n'
    )
    config = load(file, ["workload.concurrency=8", "trial.seed = 7", "workload.concurrency=9"]).config
    assert config.workload.network is Network.BRIDGE
    assert config.workload.concurrency == 9
    assert config.workload.command == ("a", "b")
    assert config.trial.window_s == 3.0
    assert config.trial.seed == 7


@pytest.mark.parametrize(
    ("assignment", "section", "name", "value"),
    [
        ("engine.socket=/run/podman/podman.sock", "engine", "socket", "/run/podman/podman.sock"),
        ('engine.socket="/run/x"', "engine", "socket", "/run/x"),
        ("engine.socket=unix:///run/x", "engine", "socket", "/run/x"),
        ("workload.image=3.12", "workload", "image", "3.12"),
        ("workload.image=a=b", "workload", "image", "a=b"),
        ("workload.image=", "workload", "image", ""),
        ("workload.image=1\nother=2", "workload", "image", "1\nother=2"),
        ("log.format=json", "log", "format", LogFormat.JSON),
        ("workload.kmem_tcp_limit_bytes=33554432", "workload", "kmem_tcp_limit_bytes", 33554432),
        ("workload.kmem_limit_bytes=0x1000", "workload", "kmem_limit_bytes", 4096),
        ("trial.window_s=1e1", "trial", "window_s", 10.0),
        ("node.isolated_cpus=4-7,12", "node", "isolated_cpus", "4-7,12"),
        ("node.isolated_cpus=4", "node", "isolated_cpus", "4"),
        ("node.isolated_cpus=", "node", "isolated_cpus", ""),
        ("control.cpus=3,4", "control", "cpus", "3,4"),
        ("control.cpus=0-1", "control", "cpus", "0-1"),
        ("control.cpus=", "control", "cpus", ""),
    ],
)
def test_set_takes_toml_values_and_bare_strings(assignment: str, section: str, name: str, value: object) -> None:
    assert getattr(getattr(load(None, [assignment]).config, section), name) == value


@pytest.mark.parametrize("path", ["", "/run/drain", "/with a space", "/a line\nand another"])
def test_a_path_may_hold_any_character(file: Path, path: str) -> None:
    file.write_text(f"[metrics]\ntextfile = {msgspec.json.encode(path).decode()}\n")
    assert load(file).config.metrics.textfile == path


@pytest.mark.parametrize("path", ["run/drain", " /run/drain", "\n/run/drain", "\n"])
def test_a_path_is_absolute_or_empty(file: Path, path: str) -> None:
    file.write_text(f"[metrics]\ntextfile = {msgspec.json.encode(path).decode()}\n")
    assert "metrics.textfile" in error_of(file)


def test_set_takes_a_list() -> None:
    sets = ["workload.image=busybox", 'workload.command=["sleep", "1"]']
    assert load(None, sets).config.workload.command == ("sleep", "1")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        (
            "workload.concurrency=0",
            "--set workload.concurrency=0: workload.concurrency cannot be 0: give a whole number from 1 to 64",
        ),
        ("workload.containers_per_trial=0", "cannot be 0: give a whole number from 1 to 10000"),
        ("workload.concurrency=1.5", "cannot be 1.5: give a whole number from 1 to 64"),
        ("workload.concurrency=true", "cannot be True: give a whole number"),
        ("workload.concurrency=many", "cannot be 'many': give a whole number"),
        ("trial.window_s=nan", "cannot be nan: give a number from 0.1 to 3600"),
        ("trial.window_s=inf", "cannot be inf: give a number from 0.1 to 3600"),
        ("trial.window_s=-1", "cannot be -1: give a number from 0.1 to 3600"),
        (
            "trial.seed=0x" + "f" * 5000,
            "trial.seed cannot be a number with that many digits: give a whole number from 0",
        ),
        ("engine.kind=podman", "cannot be 'podman': give one of auto, docker, cri, oci"),
        ("workload.network=macvlan", "cannot be 'macvlan': give one of none, bridge, host, cni"),
        ("engine.socket=tcp://node:2375", "give an absolute path, with or without unix://"),
        ("state.directory=", "state.directory cannot be '': give an absolute path"),
        ("workload.command=sleep", "cannot be 'sleep': give a list of strings"),
        ("workload.command=[1]", "cannot be [1]: give a list of strings"),
        ("node.isolated_cpus=all", "cannot be 'all': give a list of CPUs (2,4-7), or an empty string"),
        ("node.isolated_cpus=4-", "cannot be '4-': give a list of CPUs"),
        ("control.cpus=any", "cannot be 'any': give a list of CPUs"),
        ("control.cpus=5", "control.cpus cannot be '5': give at least two CPUs: one asks the others"),
        ("control.cpus=5-5", "give at least two CPUs"),
        ("control.cpus=5,5-5", "give at least two CPUs"),
        ("control.cpus=4-3", "4-3 ends before it begins"),
        ("node.isolated_cpus=0,7-4", "cannot be '0,7-4': 7-4 ends before it begins: write 4-7"),
        ("workload.concurrency", "is not KEY=VALUE: write --set trial.window_s=5"),
        ("=5", "is not KEY=VALUE"),
        ("workload=5", "unknown key workload: valid keys are workload.enabled, workload.image"),
        ("workload.concurency=5", "unknown key workload.concurency: did you mean workload.concurrency?"),
        ("window_s=5", "unknown key window_s: did you mean trial.window_s?"),
        ("trial.concurrency=5", "unknown key trial.concurrency: did you mean workload.concurrency?"),
        ("trial.zzz=5", "unknown key trial.zzz: valid keys are trial.window_s, trial.settle_s"),
        ("trail.window=5", "unknown key trail.window: did you mean trial.window_s?"),
        ("trail.qqqqqqq=5", "unknown key trail.qqqqqqq: did you mean trial?"),
        (
            "zzz=5",
            "unknown key zzz: valid sections are "
            "engine, node, workload, trial, control, budget, guard, service, metrics, state, log",
        ),
        ("a\nb=5", "unknown key 'a\\nb'"),
        ("workload.command=[]]", "cannot be '[]]': give a list of strings"),
    ],
)
def test_a_wrong_set_is_one_clear_line(assignment: str, message: str) -> None:
    assert message in error_of(None, assignment)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[workload]\nconcurrency = 0\n", "workload.concurrency cannot be 0: give a whole number from 1 to 64"),
        ('[engine]\ntimeout_s = "5"\n', "engine.timeout_s cannot be '5': give a number from 0.1 to 600"),
        ("engine = 5\n", "engine is a section and cannot be 5: write [engine]"),
        ("[[engine]]\nkind = 'docker'\n", "engine is a section and cannot be [{'kind': 'docker'}]: write [engine]"),
        ("[trail]\nwindow_s = 5\n", "unknown key trail: did you mean trial?"),
        ("[workload.extra]\na = 1\n", "unknown key workload.extra: valid keys are workload.enabled"),
        ("[engine]\nkind = docker\n", "is not valid TOML (Invalid value (at line 2, column 8)): fix its syntax"),
        ("[engine]\nkind = 'docker'\nkind = 'docker'\n", "is not valid TOML (Cannot overwrite a value (at line 3"),
        ("[trial]\nseed = " + "1" * 5000, "is not valid TOML"),
        ("a = " + "[" * 5000, "is not valid TOML"),
    ],
)
def test_a_wrong_file_is_one_clear_line_that_names_it(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    found = error_of(file)
    assert found.startswith(str(file))
    assert message in found


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    assert error_of(missing) == f"{missing} cannot be read (No such file or directory): give a readable TOML file"
    assert "Is a directory" in error_of(tmp_path)
    (tmp_path / "latin1.toml").write_bytes(b"# caf\xe9\n")
    assert "is not valid TOML" in error_of(tmp_path / "latin1.toml")


def test_a_file_without_permission(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, EACCES)  # root may read anything
    assert error_of(file) == f"{file} cannot be read (Permission denied): give a readable TOML file"


def failing(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """From now on no file can be opened."""

    def refuse(self: Path, encoding: str) -> IO[str]:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "open", refuse)


@pytest.mark.parametrize(
    ("code", "passes"),
    [(ENOENT, True), (ENOTDIR, True), (ESTALE, True), (EIO, True), (EACCES, False), (EPERM, False), (EISDIR, False)],
)
def test_an_error_that_may_pass_makes_the_file_absent(
    code: int, passes: bool, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system that answered ESTALE at a start kept the service down for good."""
    failing(monkeypatch, code)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert isinstance(caught.value, ConfigAbsentError) is passes


@pytest.mark.parametrize("text", ["", "\n", " \t\r\n\n", "\0" * 4096])
def test_an_emptied_file_is_not_the_defaults(file: Path, text: str) -> None:
    """`cp` truncates first, and a crash or a full disk leaves that. A passive node then started containers."""
    file.write_text(text)
    with pytest.raises(ConfigAbsentError, match=f"{file} is empty"):
        load(file)
    file.write_text("# as shipped\n")
    assert load(file) == Loaded(Config())


def test_a_null_device_and_a_pipe_are_configurations() -> None:
    """As in `--config /dev/null` and `--config <(command)`. A pipe is empty once it was read: at a reload."""
    assert load(Path("/dev/null")) == Loaded(Config())
    reading, writing = os.pipe()
    try:
        os.write(writing, b"[workload]\nenabled = false\n")
        os.close(writing)
        assert not load(Path(f"/dev/fd/{reading}")).config.workload.enabled
        with pytest.raises(ConfigAbsentError, match="is empty"):
            load(Path(f"/dev/fd/{reading}"))
    finally:
        os.close(reading)


def test_unknown_keys_are_warnings_where_asked(file: Path) -> None:
    file.write_text("[workload]\nconcurency = 4\nhold_s = 2.0\n[future]\na = 1\n")
    loaded = load(file, ["trial.windows=5"], strict=False)
    assert loaded.config == Config(workload=msgspec.structs.replace(Config().workload, hold_s=2.0))
    assert loaded.warnings == (
        f"{file}: unknown key workload.concurency: did you mean workload.concurrency?",
        f"{file}: unknown key future: valid sections are "
        "engine, node, workload, trial, control, budget, guard, service, metrics, state, log",
        "--set trial.windows=5: unknown key trial.windows: did you mean trial.window_s?",
    )


def test_a_wrong_value_is_an_error_even_where_unknown_keys_are_not(file: Path) -> None:
    file.write_text("[workload]\nconcurrency = 0\nunknown = 1\n")
    assert "workload.concurrency cannot be 0" in error_of(file, strict=False)


def test_the_tcp_limit_forces_serial_churn_and_says_so(file: Path) -> None:
    file.write_text("[workload]\nconcurrency = 4\n")
    assert load(file, ["workload.kmem_tcp_limit_bytes=1"]).warnings == (FORCED_SERIAL,)
    assert load(file, ["workload.kmem_tcp_limit_bytes=1", "workload.concurrency=1"]).warnings == ()
    assert load(None, ["workload.kmem_tcp_limit_bytes=1"]).warnings == ()


def test_metrics_that_are_off_with_a_textfile_say_so() -> None:
    textfile = "metrics.textfile=/var/lib/node/kickwatch.prom"
    assert load(None, [textfile, "metrics.enabled=false"]).warnings == (FILE_OFF,)
    assert load(None, [textfile, "metrics.listen="]).warnings == ()
    assert load(None, ["metrics.enabled=false"]).warnings == ()


def test_a_command_needs_an_image() -> None:
    assert "set without workload.image" in error_of(None, 'workload.command=["true"]')


def test_the_example_holds_every_key_with_its_default() -> None:
    stripped = re.sub(r"(?m)^#(?=[a-z_]+ = )", "", EXAMPLE.read_text())
    assert tomllib.loads(stripped) == msgspec.json.decode(msgspec.json.encode(Config()))


def test_the_example_as_shipped_changes_nothing() -> None:
    assert load(EXAMPLE).config == Config()


@pytest.mark.parametrize("key", KEYS)
def test_the_example_states_what_each_key_allows(key: str) -> None:
    section, _, name = key.partition(".")
    body = EXAMPLE.read_text().split(f"[{section}]\n")[1].split("\n[")[0]
    paragraph = next(part for part in body.split("\n\n") if f"#{name} = " in part)
    assert allowed(key) in paragraph.replace("\n# ", " ")
    unit = {"_s": "seconds", "_bytes": "bytes", "_hz": "per second"}.get(f"_{name.rpartition('_')[2]}")
    assert unit is None or unit in paragraph


@given(st.binary(max_size=80))
def test_any_file_is_a_configuration_or_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("config") / "any.toml"
    path.write_bytes(content)
    one_line_or_loaded(path)


@given(st.sampled_from(KEYS), st.text(max_size=30))
def test_any_set_is_a_configuration_or_one_line(key: str, value: str) -> None:
    one_line_or_loaded(None, f"{key}={value}")


def one_line_or_loaded(path: Path | None, *sets: str) -> None:
    try:
        load(path, sets)
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1, str(error)  # noqa: PT017 - both outcomes are right


def test_the_environment_is_between_the_file_and_the_options(file: Path) -> None:
    file.write_text("[trial]\nwindow_s = 3\nsettle_s = 3\ninterval_s = 3\n")
    environment = {
        "KICKWATCH_TRIAL_SETTLE_S": "4",
        "KICKWATCH_TRIAL_INTERVAL_S": "4",
        "KICKWATCH_WORKLOAD_ENABLED": "false",
    }
    config = load(file, ["trial.interval_s=5"], environment).config
    assert (config.trial.window_s, config.trial.settle_s, config.trial.interval_s) == (3, 4, 5)
    assert config.workload.enabled is False


def test_the_environment_is_named_and_other_peoples_names_are_left_alone() -> None:
    assert load(None, (), {"KICKWATCH_REQUIRE": "kernel", "TRIAL_WINDOW_S": "x"}).config == Config()
    with pytest.raises(ConfigError, match=r"^KICKWATCH_TRIAL_WINDOW_S: trial\.window_s cannot be 'x': give a number"):
        load(None, (), {"KICKWATCH_TRIAL_WINDOW_S": "x"})
    with pytest.raises(ConfigError, match=r"unknown key trial.windows: did you mean trial.window_s\?"):
        load(None, (), {"KICKWATCH_TRIAL_WINDOWS": "1"})


def test_differences_name_key_and_values_and_equal_ones_have_one_digest() -> None:
    one, other = load(None, ["trial.seed=7"]).config, load(None, ["trial.seed=8", "log.level=error"]).config
    assert differences(one, one) == []
    assert differences(one, other) == ["trial.seed: 7 -> 8", "log.level: info -> error"]
    assert digest(one) == digest(load(None, ["trial.seed=7"]).config) != digest(other)
    assert re.fullmatch("[0-9a-f]{12}", digest(one))


def test_docker_host_stands_for_the_default_socket_alone(tmp_path: Path) -> None:
    environment = {"DOCKER_HOST": "unix:///run/user/7/docker.sock"}
    assert load(None, (), environment).config.engine.socket == "/run/user/7/docker.sock"
    file = tmp_path / "k.toml"
    file.write_text('[engine]\nsocket = "/run/mine"\n')
    assert load(file, (), environment).config.engine.socket == "/run/mine"
    assert load(None, ("engine.socket=/run/set",), environment).config.engine.socket == "/run/set"


def test_docker_host_beside_another_configured_socket_is_reported(tmp_path: Path) -> None:
    """Docker's own tools go where it points, and kickwatch does not."""
    environment = {"DOCKER_HOST": "unix:///run/b.sock"}
    (warning,) = load(None, ["engine.socket=/run/a.sock"], environment).warnings
    assert warning == "DOCKER_HOST is /run/b.sock: not used, since --set engine.socket=/run/a.sock has /run/a.sock"
    file = tmp_path / "k.toml"
    file.write_text('[engine]\nkind = "docker"\nsocket = "unix:///run/a.sock"\n')
    (warning,) = load(file, (), environment).warnings
    assert warning == f"DOCKER_HOST is /run/b.sock: not used, since {file} has unix:///run/a.sock"
    for same in ("/run/b.sock", "unix:///run/b.sock"):
        assert load(None, [f"engine.socket={same}"], environment).warnings == ()


@pytest.mark.parametrize("kind", ["cri", "oci"])
@pytest.mark.parametrize("host", ["unix:///run/user/7/docker.sock", "tcp://node:2375"])
def test_docker_host_is_no_socket_of_another_engine(tmp_path: Path, kind: str, host: str) -> None:
    """engine.kind=cri asked Docker for a CRI."""
    file = tmp_path / "k.toml"
    file.write_text(f'[engine]\nkind = "{kind}"\n')
    for loaded in (
        load(None, (f"engine.kind={kind}",), {"DOCKER_HOST": host}),
        load(None, (), {"DOCKER_HOST": host, "KICKWATCH_ENGINE_KIND": kind}),
        load(file, (), {"DOCKER_HOST": host}),
    ):
        assert loaded.config.engine == EngineConfig(kind=EngineKind(kind))
        assert loaded.warnings == ()


def test_a_socket_in_docker_host_is_dockers_whatever_its_name() -> None:
    """Under `auto` a socket named as containerd's was taken for a CRI."""
    for sets in ((), ("engine.kind=docker",), ("engine.kind=auto",)):
        engine = load(None, sets, {"DOCKER_HOST": "unix:///run/user/7/containerd.sock"}).config.engine
        assert (requested_kind(engine), engine.socket) == (EngineKind.DOCKER, "/run/user/7/containerd.sock")
    default = load(None, (), {"DOCKER_HOST": "unix:///var/run/docker.sock"}).config.engine
    assert requested_kind(default) is EngineKind.AUTO


@pytest.mark.parametrize("host", ["tcp://node:2375", "ssh://root@node"])
def test_an_engine_on_another_node_is_not_used_and_reported(host: str) -> None:
    loaded = load(None, (), {"DOCKER_HOST": host})
    assert loaded.config == Config()
    (warning,) = loaded.warnings
    assert warning.startswith(f"DOCKER_HOST is {host}: not used")
    assert load(None, ("engine.socket=/run/set",), {"DOCKER_HOST": host}).warnings == ()
