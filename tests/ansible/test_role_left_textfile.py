"""The tasks of the role that remove the textfile of a killed daemon, by Ansible, on files of this machine."""

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
OURS, FOREIGN = (
    "# HELP kickwatch_up Up.\n# HELP node_load1 Load.\n",
    "# HELP node_load1 Load.\n# HELP kickwatch_up Up.\n",
)
FINDING = (
    "Find the record of a metrics file",
    "Read where the metrics files are",
    "Find the metrics files that a killed daemon left",
)


def play(record: Path) -> list[dict[str, Any]]:
    """The role's tasks that find the file, and its task that removes it with nothing else in the list."""
    tasks = {task["name"]: task for task in yaml.safe_load((ROLE / "tasks/absent.yml").read_text())}
    removal = next(task for name, task in tasks.items() if name.startswith("Remove kickwatch's files"))
    removing = {
        "ansible.builtin.file": removal["ansible.builtin.file"],
        "loop": "{{ _metrics }}",
        "vars": {"_metrics": removal["vars"]["_metrics"]},
    }
    return [
        {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"_kickwatch_textfile_record": str(record), "ansible_python_interpreter": sys.executable},
            "tasks": [*(tasks[name] for name in FINDING), removing],
        }
    ]


def remove(directory: Path, record: Path, *arguments: str) -> None:
    playbook = directory / "play.yml"
    playbook.write_text(json.dumps(play(record)))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "--inventory=localhost,", *arguments, playbook],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"ANSIBLE_HOME": str(directory / "home"), "ANSIBLE_NOCOLOR": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("text", "stays"), [(OURS, False), (FOREIGN, True)])
def test_the_textfile_of_a_killed_daemon_is_removed_where_its_record_says(
    tmp_path: Path, text: str, *, stays: bool
) -> None:
    """Whatever its name. What another has written there since stays."""
    record, left = tmp_path / "textfile", tmp_path / "node" / ".k[1] {{ 7 }}.prom"
    left.parent.mkdir()
    left.write_text(text)
    (left.parent / ".k1 7.prom").write_text(OURS)  # of another pattern, not of the record
    record.write_text(str(left))
    remove(tmp_path, record)
    assert left.exists() is stays
    assert (left.parent / ".k1 7.prom").exists()
    assert not record.exists()


def test_every_textfile_on_record_is_removed(tmp_path: Path) -> None:
    """Of a daemon that may not write the directory of the one before: only files in their own directory."""
    record, left = tmp_path / "textfile", [tmp_path / "old/kickwatch.prom", tmp_path / "new/kick\nwatch.prom"]
    others = [tmp_path / "old/kick\nwatch.prom", tmp_path / "new/kickwatch.prom"]
    for path in (*left, *others):
        path.parent.mkdir(exist_ok=True)
        path.write_text(OURS)
    record.write_text("\0".join(map(str, left)))
    remove(tmp_path, record)
    assert [path for path in (*left, *others) if path.exists()] == others
    assert not record.exists()


def test_check_mode_removes_no_textfile(tmp_path: Path) -> None:
    record, left = tmp_path / "textfile", tmp_path / "kickwatch.prom"
    left.write_text(OURS)
    record.write_text(str(left))
    remove(tmp_path, record, "--check")
    assert left.exists()
    assert record.exists()


@pytest.mark.parametrize("recorded", [None, "absent/kickwatch.prom"])
def test_a_record_without_a_textfile_is_no_error(tmp_path: Path, recorded: str | None) -> None:
    record = tmp_path / "textfile"
    if recorded is not None:
        record.write_text(str(tmp_path / recorded))
    remove(tmp_path, record)
    assert not record.exists()
