"""How a file, the environment and `--set` become one configuration.

Each overrides the one before. Nothing is reset to a default in silence: what cannot be used is an error that names the
place, the key, what was given and what is allowed.
"""

import difflib
import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kickwatch.configuration.types import Config, WorkloadConfig
from kickwatch.errors import ConfigError

_SHOWN_CHARS = 60
_ENVIRONMENT = "KICKWATCH_"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and one line for each unknown key that was passed over (`strict=False` only)."""

    config: Config
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Given:
    """A value and the file or option that gave it."""

    value: object
    source: str


SERIAL_BY_FORCE = (
    "workload.kmem_tcp_limit_bytes forces workload.concurrency to 1: the static key it flips is shared by all memcgs"
)


def load(
    path: Path | None, sets: Sequence[str] = (), environment: Mapping[str, str] | None = None, *, strict: bool = True
) -> Loaded:
    """Defaults, overridden by the TOML file at `path`, by `environment`, by each `KEY=VALUE` of `sets` in turn.

    `KICKWATCH_TRIAL_WINDOW_S` in the environment is `trial.window_s`. Names that begin with no section are ignored.

    Raises ConfigError, one line, for whatever cannot be used. An unknown key is an error too, or with `strict=False`
    a warning: a daemon started with the file of a newer release watches on.
    """
    given: dict[str, _Given] = {}
    if path is not None:
        given |= _flat(_read(path), str(path))
    given |= _from_environment(environment or {})
    for assignment in sets:
        given |= _parse_set(assignment)
    known = known_keys()
    unknown = {key: item for key, item in given.items() if key not in known}
    complaints = [_unknown(key, item.source) for key, item in unknown.items()]
    if strict and complaints:
        raise complaints[0]
    config = _build({key: item for key, item in given.items() if key in known})
    forced = (SERIAL_BY_FORCE,) if config.workload.kmem_tcp_limit_bytes and config.workload.concurrency != 1 else ()
    return Loaded(config, (*(str(complaint) for complaint in complaints), *forced))


def known_keys() -> dict[str, Any]:
    """Every key as `section.key`, with its type."""
    return {
        f"{section.name}.{field.name}": field.type
        for section in msgspec.structs.fields(Config)
        for field in msgspec.structs.fields(section.type)
    }


def allowed(key: str) -> str:
    """What may be given for a known key, in words; bounds are inclusive."""
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
    """Twelve hex digits that are the same for the same configuration, whichever file it came from."""
    return hashlib.sha256(msgspec.json.encode(config, order="sorted")).hexdigest()[:12]


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})", "name a readable TOML file") from error
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, UnicodeDecodeError, a number of 5000 digits
        raise ConfigError(f"{path} is not valid TOML ({error})", "correct it there") from error


def _flat(document: Mapping[str, Any], source: str) -> dict[str, _Given]:
    """`section.key` to value. A section that is unknown, or is none, stands under its own name."""
    given: dict[str, _Given] = {}
    for section, value in document.items():
        if section not in Config.__struct_fields__:
            given[section] = _Given(value, source)
        elif isinstance(value, dict):
            given |= {f"{section}.{key}": _Given(inner, source) for key, inner in value.items()}
        else:
            raise ConfigError(f"{source}: {section} is a section, and cannot be {_shown(value)}", f"write [{section}]")
    return given


def _from_environment(environment: Mapping[str, str]) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    for name, text in sorted(environment.items()):
        section, underscore, key = name.removeprefix(_ENVIRONMENT).lower().partition("_")
        if name.startswith(_ENVIRONMENT) and underscore and section in Config.__struct_fields__:
            full = f"{section}.{key}"
            given[full] = _Given(_value_of(full, text), name)
    return given


def _parse_set(assignment: str) -> dict[str, _Given]:
    key, equals, text = (part.strip() for part in assignment.partition("="))
    if not equals or not key:
        raise ConfigError(f"--set {_shown(assignment)} is not KEY=VALUE", "write --set trial.window_s=5")
    return {key: _Given(_value_of(key, text), f"--set {_plain(assignment)}")}


def _value_of(key: str, text: str) -> object:
    """The TOML value of `text`, or `text` itself where it is none or where the key takes any string."""
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    value = document["value"]
    takes_text = known_keys().get(key) is str and not isinstance(value, str)
    return text if takes_text or len(document) > 1 else value


def _build(given: Mapping[str, _Given]) -> Config:
    known = known_keys()
    sections: dict[str, dict[str, object]] = {name: {} for name in Config.__struct_fields__}
    for key, item in given.items():
        section, _, name = key.partition(".")
        try:
            sections[section][name] = msgspec.convert(item.value, known[key])
        except (msgspec.ValidationError, ValueError) as error:
            raise ConfigError(f"{item.source}: {key} cannot be {_shown(item.value)}", f"give {allowed(key)}") from error
    config = msgspec.convert(sections, Config)
    _check_together(config.workload, given)
    return config


def _check_together(workload: WorkloadConfig, given: Mapping[str, _Given]) -> None:
    def place(*keys: str) -> str:
        return ", ".join(dict.fromkeys(given[key].source for key in keys if key in given))

    if workload.command and not workload.image:
        raise ConfigError(
            f"{place('workload.command')}: workload.command is set and workload.image is not",
            "kickwatch's own image takes no command; name an image or leave the command out",
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
    remedy = f"did you mean {nearest}?" if nearest else f"known are {', '.join(siblings or sections)}"
    return ConfigError(f"{source}: unknown key {_plain(key)}", remedy)


def _nearest(name: str, known: Sequence[str]) -> str | None:
    """The one of `known` whose last part is most like `name`."""
    by_name = {full.rpartition(".")[2]: full for full in known}
    found = difflib.get_close_matches(name, by_name, n=1)
    return by_name[found[0]] if found else None


def _plain(text: str) -> str:
    """`text` as it is where it stays on one short line, else quoted and cut."""
    return text if text.isprintable() and len(text) <= _SHOWN_CHARS else _shown(text)


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return "a number that long"
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."
