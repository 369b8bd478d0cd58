"""The Ansible role refuses invalid arguments before it touches a node, and its documents are consistent."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).parents[2] / "deploy/ansible"
ROLE = HERE / "roles/kickwatch"
# The node does not answer: arguments that the role does not refuse end in UNREACHABLE.
NO_NODE = {"ansible_connection": "ssh", "ansible_ssh_executable": "/bin/false"}


def playbook(inventory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the example playbook on one host of its group."""
    return subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, HERE / "kickwatch.yml", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOME": str(inventory.parent)},
    )


@pytest.fixture(scope="session")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inventory") / "hosts.yml"
    path.write_text(json.dumps({"kickwatch": {"hosts": {"node": NO_NODE}}}))
    return path


def documents(name: str) -> Any:
    return yaml.safe_load((ROLE / name).read_text(encoding="utf-8"))


def test_the_example_has_no_syntax_error_and_no_warning(inventory: Path) -> None:
    checked = playbook(inventory, "--syntax-check")
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"kickwatch_state": "gone"}, "kickwatch_state must be one of: present, absent"),
        ({"kickwatch_service_state": "restarted"}, "kickwatch_service_state must be one of: started, stopped"),
        ({"kickwatch_drain_timeout_s": "soon"}, "kickwatch_drain_timeout_s"),
        ({"kickwatch_config": "trial.window_s=5 s"}, "kickwatch_config"),
        ({"kickwatch_purge": "perhaps"}, "kickwatch_purge"),
        ({"kickwatch_pip_args": {"a": 1}}, "kickwatch_pip_args"),
        ({"kickwatch_wheel": "a.whl", "kickwatch_version": "1.0"}, "exclude each other"),
        ({"kickwatch_config": {"trial": 5}}, "kickwatch_config must map sections to their keys"),
        ({"kickwatch_venv": "/"}, "kickwatch_venv cannot be /,"),
        ({"kickwatch_venv": "/usr/local"}, "kickwatch_venv cannot be /usr/local,"),
        ({"kickwatch_venv": "/opt/kickwatch/"}, "kickwatch_venv cannot be /opt/kickwatch/,"),
        ({"kickwatch_venv": "kickwatch"}, "kickwatch_venv cannot be kickwatch,"),
    ],
)
def test_invalid_arguments_are_refused_before_connecting(inventory: Path, given: dict[str, Any], named: str) -> None:
    ran = playbook(inventory, "--extra-vars", json.dumps(given))
    assert ran.returncode == 2
    assert named in ran.stdout + ran.stderr
    assert re.search(r"unreachable=0 +failed=1", ran.stdout), ran.stdout


def test_the_defaults_are_not_refused(inventory: Path) -> None:
    assert re.search(r"unreachable=1 +failed=0", playbook(inventory).stdout)


def test_every_variable_is_documented_with_its_default() -> None:
    options = documents("meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert {name: option["default"] for name, option in options.items()} == documents("defaults/main.yml")
    table = (HERE.parents[1] / "docs/ansible.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(kickwatch_\w+)` \| `([^`]*)` \|", table, re.MULTILINE))
    assert {name: yaml.safe_load(default) for name, default in rows.items()} == documents("defaults/main.yml")


def test_the_role_removes_all_shared_files_of_the_wheel() -> None:
    project = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    carried = project["tool"]["hatch"]["build"]["targets"]["wheel"].get("shared-data", {})
    below_lib = {place.removeprefix("lib/") for place in carried.values() if place.startswith("lib/")}
    assert below_lib == set(documents("vars/main.yml")["_kickwatch_files"])


def test_the_role_uses_only_builtin_modules() -> None:
    def modules(tasks: list[dict[str, Any]]) -> set[str]:
        found = set()
        for task in tasks:
            found |= {key for key in task if "." in key}
            for inner in ("block", "rescue", "always"):
                found |= modules(task.get(inner, []))
            assert {"block", *found} & task.keys(), f"a module without its full name: {task}"
        return found

    files = sorted(path for part in ("tasks", "handlers") for path in (ROLE / part).glob("*.yml"))
    assert len(files) == 8
    for path in files:
        assert all(name.startswith("ansible.builtin.") for name in modules(documents(str(path.relative_to(ROLE)))))
