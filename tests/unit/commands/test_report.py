"""`kickwatch report`: what it reads, what it prints, its one-line errors, and that it disturbs nothing."""

import json
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing
from itertools import groupby
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from kickwatch.commands.report import report
from kickwatch.errors import KickwatchError
from kickwatch.history.store import reading
from kickwatch.report.html.page import page as html_page
from made_up_trials import story
from report_history import faulty_history, store

EACH = 6
HISTORIES = Path(__file__).parents[2] / "fixtures" / "histories"


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("state")
    store(directory, faulty_history(EACH))
    return directory


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(report, list(map(str, arguments)))
    if isinstance(result.exception, KickwatchError):
        raise result.exception
    return result


def test_a_state_directory_its_file_and_a_copy_are_the_same(state: Path, tmp_path: Path) -> None:
    whole = run("--json", state)
    assert whole.exit_code == 0
    shutil.copy(state / "history.db", tmp_path / "copy.db")
    assert run("--json", state / "history.db").stdout == run("--json", tmp_path / "copy.db").stdout == whole.stdout
    found = json.loads(whole.stdout)
    assert found["replay"]["otherwise"] == 0  # as the daemon judged
    assert found["verdict"] == "broadcasting"


def test_lines_have_the_same_figures(state: Path, tmp_path: Path) -> None:
    lines = tmp_path / "trials.jsonl"
    lines.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in faulty_history(EACH)))
    found, whole = (json.loads(run("--json", path).stdout) for path in (lines, state))
    for name in ("total", "bill", "waits", "latency_ms", "per_cpu", "stacks", "pairs"):
        assert found[name] == whole[name], name


def test_the_configured_directory_is_the_default(state: Path) -> None:
    assert run("--json", "--set", f"state.directory={state}").stdout == run("--json", state).stdout


def test_text_is_the_default(state: Path) -> None:
    assert run(state).stdout == run("--text", state).stdout
    assert run(state).stdout.startswith("VERDICT: broadcasting")


def test_html_is_one_file(state: Path, tmp_path: Path) -> None:
    assert run("--html", tmp_path / "r.html", state).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    assert (tmp_path / "r.html").read_text().startswith("<!DOCTYPE html>")


def test_html_that_cannot_be_written(state: Path, tmp_path: Path) -> None:
    with pytest.raises(KickwatchError, match="cannot be written"):
        run("--html", tmp_path / "none" / "r.html", state)


def test_releases_and_histories_are_compared(state: Path) -> None:
    by_release = json.loads(run("--compare", "4.19.1-patched", "4.19.1", "--json", state).stdout)
    assert by_release["a"]["containers"] == by_release["b"]["containers"] == EACH * 20
    assert by_release["rows"][0]["difference"]["value"] > 1.0
    same = json.loads(run("--compare", state, state / "history.db", "--json").stdout)
    assert {row["difference"]["value"] for row in same["rows"]} == {0.0}
    assert "B - A" in run("--compare", "4.19.1-patched", "4.19.1", state).stdout


def test_a_release_that_is_not_there(state: Path) -> None:
    with pytest.raises(KickwatchError, match=r"no trial of 5\.10"):
        run("--compare", "5.10", "4.19.1", state)


def test_a_bug_report(state: Path) -> None:
    assert run("--bug", state).stdout.startswith("Subject: do_nothing broadcast")


@pytest.mark.parametrize("given", [("--json", "--text"), ("--bug", "--json"), ("--bug", "--compare", "a", "b")])
def test_what_excludes_each_other_is_a_usage_error(state: Path, given: tuple[str, ...]) -> None:
    assert run(*given, state).exit_code == 2


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("no record\n")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(KickwatchError, match="line 1 is not a trial record"):
        run(tmp_path / "bad.jsonl")
    with pytest.raises(KickwatchError, match="cannot be read"):
        run(tmp_path / "none")
    with pytest.raises(KickwatchError, match="has no trials"):
        run("--bug", tmp_path / "empty.jsonl")
    assert "no trials" in run(tmp_path / "empty.jsonl").stdout


def test_a_writer_is_not_disturbed(state: Path, tmp_path: Path) -> None:
    """While a report reads, the daemon can write, and nothing of the directory changes but by the daemon."""
    shutil.copytree(state, tmp_path / "live")
    file = tmp_path / "live" / "history.db"
    with reading(file) as reader:
        rows = reader.execute("SELECT record FROM trials")
        rows.fetchone()
        with closing(sqlite3.connect(file, timeout=0.1)) as writer, writer:
            writer.execute("DELETE FROM states WHERE after = 3")
    before = {path.name: path.read_bytes() for path in (tmp_path / "live").iterdir()}
    run(tmp_path / "live")
    after = {path.name: path.read_bytes() for path in (tmp_path / "live").iterdir()}
    assert after == before


@pytest.mark.parametrize("archive", sorted(HISTORIES.glob("*.tar.xz")), ids=lambda path: path.name)
def test_histories_of_earlier_releases(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    found = json.loads(run("--json", tmp_path).stdout)
    trials = list(story())
    assert found["total"]["trials"] + found["total"]["void_trials"] == len(trials) == 60
    assert [span["value"] for span in found["spans"]["kernel"]] == [
        kernel for kernel, _ in groupby(one["node"]["kernel"] for one in trials)
    ]
    assert html_page(found).startswith("<!DOCTYPE html>")
    assert "VERDICT:" in run(tmp_path).stdout


# They only grow: somebody's script reads them.
KEYS = """
    schema verdict reasons findings more_containers replay first_unix_s last_unix_s total kernels nodes spans
    spans_left_out gaps pauses changes changes_left_out evidence bins cpus_per_item bin_trials bill bill_left_out waits
    latency_ms pairs per_cpu stacks
"""
KERNEL_KEYS = """
    kernel ipi_rung trials void_trials void containers failed attributed_containers creation_path_broadcasts
    creation_path_broadcasts_per_container broadcasts_per_container requests_per_container containers_with_broadcasts
    containers_known slab_mutex_waits slab_mutex_waits_per_container slab_mutex_wait_ms latency_ms bill waiters
"""


def test_keys_of_the_contract(state: Path) -> None:
    found = json.loads(run("--json", state).stdout)
    assert found["schema"] == 1
    assert found.keys() >= set(KEYS.split())
    assert found["kernels"][0].keys() >= set(KERNEL_KEYS.split())


def test_the_daemon_loads_neither_report_nor_plots() -> None:
    script = "import sys, kickwatch.commands.run, kickwatch.service.daemon; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in loaded if name.startswith(("kickwatch.report", "vl_convert"))] == []
