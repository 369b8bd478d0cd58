"""The configuration file that the Ansible role writes is loaded by kickwatch exactly as the inventory specifies it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from hypothesis import given
from hypothesis import strategies as st
from msgspec.inspect import BoolType, EnumType, FloatType, IntType, Metadata, VarTupleType, type_info

from kickwatch.commands.common import DEFAULT_CONFIG
from kickwatch.configuration.loading import known_keys, load
from kickwatch.configuration.types import Config, MetricsConfig, TrialConfig
from kickwatch.errors import ConfigError
from kickwatch.outlets.metrics import left_textfile

ROLE = Path(__file__).parents[2] / "deploy/ansible/roles/kickwatch"
LOADER = DataLoader()
VARIABLES = LOADER.load_from_file(str(ROLE / "defaults/main.yml"), trusted_as_template=True) | LOADER.load_from_file(
    str(ROLE / "vars/main.yml"), trusted_as_template=True
)
TEMPLATE = trust_as_template((ROLE / "templates/kickwatch.toml.j2").read_text(encoding="utf-8"))
# TOML allows any character except lone surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
DESCRIBED = {
    "an absolute path": TEXT.map("/{}".format),
    "an absolute path, or an empty string": st.just("") | TEXT.map("/{}".format),
    "a list of CPUs (2,4-7), or an empty string": st.sampled_from(["", "2,3", "0-1", "4-7,12"]),
    "an absolute path, with or without unix://": TEXT.map("/{}".format),
    "an address and a port, 127.0.0.1:9893, or an empty string": st.sampled_from(["", "192.0.2.1:1", "[::1]:9893"]),
}


def values(key: str) -> st.SearchStrategy[Any]:
    """Values that the key allows, as YAML would load them."""
    info = type_info(known_keys()[key])
    if isinstance(info, Metadata):
        return DESCRIBED[(info.extra_json_schema or {})["description"]]
    if isinstance(info, IntType):
        return st.integers(info.ge, info.le)
    if isinstance(info, FloatType):
        return st.floats(info.ge, info.le) | st.integers(int(info.ge or 0) + 1, int(info.le or 1))
    if isinstance(info, BoolType):
        return st.booleans()
    if isinstance(info, EnumType):
        return st.sampled_from([str(word) for word in info.cls])
    return st.lists(TEXT) if isinstance(info, VarTupleType) else TEXT


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Some keys with allowed values, by section."""
    keys = draw(st.sets(st.sampled_from(sorted(known_keys()))))
    chosen: dict[str, dict[str, Any]] = {}
    for key in sorted(keys):
        section, _, name = key.partition(".")
        chosen.setdefault(section, {})[name] = draw(values(key))
    workload = chosen.get("workload", {})
    if workload.get("command") and not workload.get("image"):
        workload["image"] = "busybox"  # a command without an image is refused
    return chosen


def rendered(**variables: Any) -> str:
    """The file, as Ansible's module `template` renders it."""
    templar = Templar(loader=LOADER, variables=VARIABLES | variables)
    return str(templar.template(TEMPLATE, escape_backslashes=False, overrides={"trim_blocks": True}))


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("role") / "kickwatch.toml"


def loaded(file: Path, **variables: Any) -> Config:
    file.write_text(rendered(**variables), encoding="utf-8")
    return load(file).config


@given(configurations())
def test_kickwatch_loads_what_the_inventory_specifies(file: Path, given: dict[str, dict[str, Any]]) -> None:
    assert loaded(file, kickwatch_config=given) == msgspec.convert(given, Config)


def test_the_roles_defaults_are_kickwatchs(file: Path) -> None:
    assert loaded(file) == Config()


def test_the_same_inventory_gives_the_same_bytes_in_any_order() -> None:
    one: dict[str, dict[str, Any]] = {"trial": {"window_s": 2.0, "seed": 7}, "budget": {"preset": "stress"}}
    other = {section: dict(reversed(keys.items())) for section, keys in reversed(one.items())}
    assert rendered(kickwatch_config=one) == rendered(kickwatch_config=other)


def test_null_removes_a_key(file: Path) -> None:
    assert loaded(file, kickwatch_config={"trial": {"window_s": None, "seed": 7}}).trial == TrialConfig(seed=7)


def test_an_empty_address_serves_no_metrics(file: Path) -> None:
    assert loaded(file, kickwatch_metrics_listen="").metrics == MetricsConfig(listen="")


def test_an_empty_address_keeps_the_textfile(file: Path) -> None:
    given = {"metrics": {"textfile": "/var/lib/node/kickwatch.prom"}}
    metrics = loaded(file, kickwatch_metrics_listen="", kickwatch_config=given).metrics
    assert metrics == MetricsConfig(listen="", textfile="/var/lib/node/kickwatch.prom")


def test_the_configuration_has_precedence_over_the_address(file: Path) -> None:
    given = {"metrics": {"listen": "192.0.2.1:9", "enabled": True}}
    assert loaded(file, kickwatch_metrics_listen="127.0.0.1:1", kickwatch_config=given).metrics.listen == "192.0.2.1:9"


def test_an_untrusted_template_in_a_value_stays_text(file: Path) -> None:
    assert loaded(file, kickwatch_config={"workload": {"image": "{{ 7 * 6 }}"}}).workload.image == "{{ 7 * 6 }}"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"trial": {"windows_s": 5}}, "trial.windows_s"),
        ({"trail": {"window_s": 5}}, "trail"),
        ({"trial": {"window_s": float("nan")}}, "not valid TOML"),
        ({"trial": {"window_s": 0}}, "trial.window_s"),
        ({"trial": {"window_s": {"s": 5}}}, "not valid TOML"),
    ],
)
def test_invalid_keys_and_values_are_refused_by_name(file: Path, given: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        loaded(file, kickwatch_config=given)


def test_the_drain_file_is_the_daemons() -> None:
    def drain_file(config: dict[str, Any]) -> object:
        templar = Templar(loader=LOADER, variables=VARIABLES | {"kickwatch_config": config})
        return templar.template(trust_as_template("{{ _kickwatch_drain_file }}"))

    assert drain_file({}) == Config().service.drain_file
    assert drain_file({"service": {"drain_file": "/run/kickwatch/other"}}) == "/run/kickwatch/other"
    assert drain_file({"service": {"drain_file": ""}}) == ""


@pytest.mark.parametrize(
    ("config", "directory"),
    [
        ({}, Config().state.directory),
        ({"state": {"directory": "/srv/kickwatch"}}, "/srv/kickwatch"),
        ({"state": {"directory": None}}, Config().state.directory),
    ],
)
def test_the_record_of_a_textfile_is_in_the_state_directory(config: dict[str, Any], directory: str) -> None:
    templar = Templar(loader=LOADER, variables=VARIABLES | {"kickwatch_config": config})
    record = templar.template(trust_as_template("{{ _kickwatch_textfile_record }}"))
    assert record == f"{directory}/{left_textfile.RECORD}"


def test_the_paths_are_the_daemons() -> None:
    assert VARIABLES["_kickwatch_config_file"] == str(DEFAULT_CONFIG)
    assert VARIABLES["_kickwatch_history"] == Config().state.directory
