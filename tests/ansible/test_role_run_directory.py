"""The tasks of the role that remove the directory in /run, by Ansible, on files of this machine."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.long

ROLE = Path(__file__).parents[2] / "deploy/ansible/roles/kickwatch"
TASKS = (
    "Find what is installed",
    "Remove the directory in /run unless another kickwatch uses it",
    "Say that the directory in /run stays",
)


def remove(tmp_path: Path) -> str:
    """Run these tasks, and the one that removes files with nothing but the directory in its list."""
    tasks = {task["name"]: task for task in yaml.safe_load((ROLE / "tasks/absent.yml").read_text())}
    removal = next(task for name, task in tasks.items() if name.startswith("Remove kickwatch's files"))
    removing = {
        "ansible.builtin.file": removal["ansible.builtin.file"],
        "loop": "{{ _run }}",
        "vars": {"_run": removal["vars"]["_run"]},
    }
    own = {"_kickwatch_run": f"{tmp_path}/run", "_kickwatch_lock": f"{tmp_path}/run.lock"}
    play: dict[str, Any] = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars_files": [f"{ROLE}/defaults/main.yml"],
        "vars": yaml.safe_load((ROLE / "vars/main.yml").read_text())
        | {"ansible_python_interpreter": sys.executable}
        | own,
        "tasks": [*(tasks[name] for name in TASKS), removing],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "--inventory=localhost,", tmp_path / "play.yml"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"ANSIBLE_HOME": f"{tmp_path}/home", "ANSIBLE_NOCOLOR": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_a_running_trial_needs_stays(tmp_path: Path) -> None:
    """Without the state of its bundles it could not remove its containers."""
    (tmp_path / "run/oci").mkdir(parents=True)
    with (tmp_path / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert f"{tmp_path}/run stays, since another kickwatch uses it" in remove(tmp_path)
        assert (tmp_path / "run/oci").is_dir()
    remove(tmp_path)
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "run.lock").exists()


def test_a_lock_that_is_missing_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    remove(tmp_path)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "run.lock").exists()
