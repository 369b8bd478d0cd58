"""How a file, the environment and `--set` become one configuration.

Each overrides the one before. A value that cannot be used is never replaced by a default: it is an error that names the
file or option, the key, the value, and what is allowed.
"""

import difflib
import hashlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kickwatch.configuration.docker_socket import DockerHost, beside, docker_host, plain_path
from kickwatch.configuration.toml_file import read_toml
from kickwatch.configuration.types import Config, EngineConfig, EngineKind, WorkloadConfig
from kickwatch.errors import ConfigError

_SHOWN_CHARS = 60
_ENVIRONMENT = "KICKWATCH_"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and warnings: a line for each key that was ignored or overridden."""

    config: Config
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Given:
    """A value, and the file, variable or option it comes from."""

    value: object
    source: str


FORCED_SERIAL = (
    "workload.kmem_tcp_limit_bytes forces workload.concurrency to 1: all memory cgroups share the static key it flips"
)
FILE_OFF = 'metrics.enabled = false switches metrics.textfile off as well: for the file alone, set metrics.listen = ""'


def load(
    path: Path | None, sets: Sequence[str] = (), environment: Mapping[str, str] | None = None, *, strict: bool = True
) -> Loaded:
    """The defaults, overridden by the TOML file at `path`, then `environment`, then each `KEY=VALUE` of `sets`.

    `KICKWATCH_TRIAL_WINDOW_S` in the environment is `trial.window_s`. Variables that name no section are ignored. A
    Unix socket in DOCKER_HOST stands for the default of `engine.socket` where `engine.kind` is `docker`, or `auto`,
    which then means `docker`.

    Raises ConfigError, one line, for a value that cannot be used. An unknown key is an error too; with `strict=False`
    it is a warning, so the daemon also starts with the file of a newer release.
    """
    given = _flat(read_toml(path), str(path)) if path is not None else {}
    given |= _from_environment(environment or {})
    for assignment in sets:
        given |= _parse_set(assignment)
    host = _docker_host(given, environment or {})
    given |= _from_docker_host(host)
    known = known_keys()
    unknown = {key: item for key, item in given.items() if key not in known}
    complaints = [_unknown(key, item.source) for key, item in unknown.items()]
    if strict and complaints:
        raise complaints[0]
    config = _build({key: item for key, item in given.items() if key in known})
    unused = (host.warning,) if host.warning else ()
    return Loaded(config, (*(str(complaint) for complaint in complaints), *_overridden(config), *unused))


def known_keys() -> dict[str, Any]:
    """Every key as `section.key`, with its type."""
    return {
        f"{section.name}.{field.name}": field.type
        for section in msgspec.structs.fields(Config)
        for field in msgspec.structs.fields(section.type)
    }


def allowed(key: str) -> str:
    """The values that a known key accepts, in words; bounds are inclusive."""
    info = msgspec.inspect.type_info(known_keys()[key])
    if isinstance(info, msgspec.inspect.Metadata):
        return str((info.extra_json_schema or {}).get("description", "a string"))
    if isinstance(info, msgspec.inspect.IntType):
        return f"a whole number from {info.ge} to {info.le}"
    if isinstance(info, msgspec.inspect.FloatType):
        return f"a number from {info.ge:g} to {info.le:g}"
    if isinstance(info, msgspec.inspect.BoolType):
        return "true or false"
    if isinstance(info, msgspec.inspect.EnumType):
        return "one of " + ", ".join(info.cls)
    return "a list of strings" if isinstance(info, msgspec.inspect.VarTupleType) else "a string"


def differences(old: Config, new: Config) -> list[str]:
    """`key: old -> new` for every key that differs."""
    before, after = msgspec.to_builtins(old), msgspec.to_builtins(new)
    return [
        f"{section}.{key}: {before[section][key]} -> {value}"
        for section, keys in after.items()
        for key, value in keys.items()
        if before[section][key] != value
    ]


def digest(config: Config) -> str:
    """Twelve hex digits: equal for equal configurations, wherever their values come from."""
    return hashlib.sha256(msgspec.json.encode(config, order="sorted")).hexdigest()[:12]


def _flat(document: Mapping[str, Any], source: str) -> dict[str, _Given]:
    """`section.key` to value. An unknown section, or a key outside any section, keeps its own name."""
    given: dict[str, _Given] = {}
    for section, value in document.items():
        if section not in Config.__struct_fields__:
            given[section] = _Given(value, source)
        elif isinstance(value, dict):
            given |= {f"{section}.{key}": _Given(inner, source) for key, inner in value.items()}
        else:
            raise ConfigError(f"{source}: {section} is a section and cannot be {_shown(value)}", f"write [{section}]")
    return given


def _from_environment(environment: Mapping[str, str]) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    for name, text in sorted(environment.items()):
        section, underscore, key = name.removeprefix(_ENVIRONMENT).lower().partition("_")
        if name.startswith(_ENVIRONMENT) and underscore and section in Config.__struct_fields__:
            full = f"{section}.{key}"
            given[full] = _Given(_value_of(full, text), name)
    return given


def _docker_host(given: Mapping[str, _Given], environment: Mapping[str, str]) -> DockerHost:
    """DOCKER_HOST, if the engine may be Docker: another engine has a socket of its own."""
    kind = given["engine.kind"].value if "engine.kind" in given else EngineKind.AUTO
    if kind not in (EngineKind.AUTO, EngineKind.DOCKER):
        return DockerHost("", "")
    host, socket = docker_host(environment), given.get("engine.socket")
    return host if socket is None else beside(host, str(socket.value), socket.source)


def _from_docker_host(host: DockerHost) -> dict[str, _Given]:
    if not host.socket:
        return {}
    found = {"engine.socket": _Given(host.socket, "DOCKER_HOST")}
    if host.socket != EngineConfig().socket:  # Docker listens there, whatever the socket is named, and nothing else
        found["engine.kind"] = _Given(EngineKind.DOCKER.value, "DOCKER_HOST")
    return found


def _parse_set(assignment: str) -> dict[str, _Given]:
    key, equals, text = (part.strip() for part in assignment.partition("="))
    if not equals or not key:
        raise ConfigError(f"--set {_shown(assignment)} is not KEY=VALUE", "write --set trial.window_s=5")
    return {key: _Given(_value_of(key, text), f"--set {_plain(assignment)}")}


def _value_of(key: str, text: str) -> object:
    """The TOML value of `text`; `text` itself if it is not valid TOML, or if the key takes any string."""
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    value = document["value"]
    takes_text = _takes_text(key) and not isinstance(value, str)
    return text if takes_text or len(document) > 1 else value


def _takes_text(key: str) -> bool:
    """True for a key whose value is a string of any kind, such as a CPU list: `4` is one, and TOML's number 4."""
    if key not in known_keys():
        return False
    info = msgspec.inspect.type_info(known_keys()[key])
    return isinstance(info.type if isinstance(info, msgspec.inspect.Metadata) else info, msgspec.inspect.StrType)


def _build(given: Mapping[str, _Given]) -> Config:
    known = known_keys()
    sections: dict[str, dict[str, object]] = {name: {} for name in Config.__struct_fields__}
    for key, item in given.items():
        section, _, name = key.partition(".")
        try:
            sections[section][name] = msgspec.convert(item.value, known[key])
        except (msgspec.ValidationError, ValueError) as error:
            raise ConfigError(f"{item.source}: {key} cannot be {_shown(item.value)}", f"give {allowed(key)}") from error
    if "engine.socket" in given:
        sections["engine"]["socket"] = plain_path(str(sections["engine"]["socket"]))
    config = msgspec.convert(sections, Config)
    _check_together(config.workload, given)
    _check_cpus("node.isolated_cpus", config.node.isolated_cpus, given)
    _check_cpus("control.cpus", config.control.cpus, given)
    _check_two_cpus(config.control.cpus, given)
    return config


def _check_cpus(key: str, cpus: str, given: Mapping[str, _Given]) -> None:
    """Raises ConfigError for a range that ends before it begins: it would be read as no CPU at all."""
    for part in cpus.split(","):
        first, dash, last = part.partition("-")
        if dash and int(first) > int(last):
            what = f"{given[key].source}: {key} cannot be {_shown(cpus)}"
            raise ConfigError(what, f"{part} ends before it begins: write {last}-{first}")


def _check_two_cpus(cpus: str, given: Mapping[str, _Given]) -> None:
    """Raises ConfigError for a list with one CPU: one sends, and another one must be there to be asked."""
    ranges = [part.partition("-") for part in cpus.split(",") if part]
    named = {cpu for first, _, last in ranges for cpu in range(int(first), int(last or first) + 1)}
    if len(named) == 1:
        what = f"{given['control.cpus'].source}: control.cpus cannot be {_shown(cpus)}"
        raise ConfigError(what, "give at least two CPUs: one asks the others")


def _overridden(config: Config) -> Iterator[str]:
    """A line for each key that another one overrides."""
    if config.workload.kmem_tcp_limit_bytes and config.workload.concurrency != 1:
        yield FORCED_SERIAL
    if config.metrics.textfile and not config.metrics.enabled:
        yield FILE_OFF


def _check_together(workload: WorkloadConfig, given: Mapping[str, _Given]) -> None:
    if workload.command and not workload.image:
        source = given["workload.command"].source
        raise ConfigError(
            f"{source}: workload.command is set without workload.image",
            "set an image, or remove the command (kickwatch's own image takes none)",
        )


def _unknown(key: str, source: str) -> ConfigError:
    sections = Config.__struct_fields__
    section, dot, name = key.partition(".")
    siblings = [known for known in known_keys() if known.startswith(f"{section}.")]
    nearest = _nearest(name, siblings) if siblings else None
    if dot or section not in sections:
        nearest = nearest or _nearest(name or section, list(known_keys()))
    if section not in sections:
        nearest = nearest or _nearest(section, sections)
    valid = f"valid keys are {', '.join(siblings)}" if siblings else f"valid sections are {', '.join(sections)}"
    remedy = f"did you mean {nearest}?" if nearest else valid
    return ConfigError(f"{source}: unknown key {_plain(key)}", remedy)


def _nearest(name: str, known: Sequence[str]) -> str | None:
    """The key of `known` whose last part is closest to `name`; None if none is close."""
    by_name = {full.rpartition(".")[2]: full for full in known}
    found = difflib.get_close_matches(name, by_name, n=1)
    return by_name[found[0]] if found else None


def _plain(text: str) -> str:
    """`text` unchanged if it is one short line, else quoted and cut."""
    return text if text.isprintable() and len(text) <= _SHOWN_CHARS else _shown(text)


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return "a number with that many digits"
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."
