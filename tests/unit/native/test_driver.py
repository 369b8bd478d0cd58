"""The driver of kw-helper, with shell scripts in its place: answers, refusals, a child that ends or hangs."""

import asyncio
import os
from pathlib import Path

import pytest

from held_by_tracer import UNBLOCKED_S, Tracer, longest_step_s
from kickwatch.errors import KickwatchError
from kickwatch.native import binary, piped
from kickwatch.native.driver import Answer, Helper, HelperError, parse_answer


def program(directory: Path, commands: str, ready: str = "ready rseq=yes") -> Path:
    """A program that writes `ready`, and runs `commands` for each line that it reads."""
    path = directory / "kw-helper"
    path.write_text(f'#!/bin/sh\necho "{ready}"\nwhile read -r command; do\n{commands}\ndone\n')
    path.chmod(0o755)
    return path


def exists(pid: int) -> bool:
    """Also as a zombie."""
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("ready\n", Answer("ready")),
        ("progress 10\n", Answer("progress", 10)),
        (
            "done 7 policy=fifo calls=23:23",
            Answer("done", 7, {"policy": "fifo", "calls": "23:23"}, "policy=fifo calls=23:23"),
        ),
        ("error 16 rmdir x: busy", Answer("error", 16, {}, "rmdir x: busy")),
        ("error -1 text", Answer("error", None, {}, "-1 text")),
        ("", Answer("")),
    ],
)
def test_a_line_has_word_number_fields_and_text(line: str, answer: Answer) -> None:
    assert parse_answer(line) == answer


async def test_a_command_has_progress_and_one_answer(tmp_path: Path) -> None:
    script = program(tmp_path, 'echo "progress 1"; echo "progress 2"; echo "done 5 asked=$command"')
    progress: list[int] = []
    async with Helper(["canary"], program=script) as helper:
        assert helper.ready.fields == {"rseq": "yes"}
        answer = await helper.ask("create", 10, progress.append)
        assert (answer.value, answer.fields) == (5, {"asked": "create"})
        assert progress == [1, 2]
        assert helper.lives
    assert not helper.lives


async def test_an_error_line_is_an_error_with_its_errno_and_the_child_still_answers(tmp_path: Path) -> None:
    script = program(tmp_path, '[ "$command" = bad ] && echo "error 22 unknown command" || echo "done 1"')
    async with Helper(["canary"], program=script) as helper:
        with pytest.raises(HelperError, match="kw-helper canary: `bad`: unknown command") as failure:
            await helper.ask("bad", 10)
        assert failure.value.errno == 22
        assert (await helper.ask("good", 10)).value == 1


async def test_a_child_that_ends_is_an_error_with_status_and_standard_error(tmp_path: Path) -> None:
    script = program(tmp_path, "echo 'no such cgroup' >&2; exit 3")
    async with Helper(["canary"], program=script) as helper:
        with pytest.raises(HelperError, match=r"ended during `create` \(status 3\) no such cgroup"):
            await helper.ask("create", 10)
        assert not helper.lives


async def test_a_late_answer_is_not_taken_for_that_of_the_next_command(tmp_path: Path) -> None:
    script = program(tmp_path, 'sleep 0.5; echo "done 1"')
    async with Helper(["canary"], program=script, stop_s=5) as helper:
        with pytest.raises(HelperError, match=r"no answer to `create` in 0\.05 s"):
            await helper.ask("create", 0.05)
        with pytest.raises(HelperError, match="lost a command before `remove`"):
            await helper.ask("remove", 10)


async def test_a_child_that_ignores_its_end_is_killed(tmp_path: Path) -> None:
    script = program(tmp_path, "true")
    script.write_text("#!/bin/sh\necho ready\nexec sleep 600\n")
    helper = Helper(["canary"], program=script, stop_s=0.1)
    async with helper:
        pid = helper.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_child_whose_exit_a_tracer_holds_back_does_not_block_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Python 3.12 on asyncio waits for the exit status in the event loop."""
    monkeypatch.setattr(piped, "KILLED_S", 0.3)
    script = program(tmp_path, "true")
    script.write_text("#!/bin/sh\necho ready\nexec sleep 600\n")
    async with Helper(["canary"], program=script, stop_s=0.1) as helper:
        pid = helper.pid
        tracer = await asyncio.to_thread(Tracer, pid)
        longest = asyncio.create_task(longest_step_s())
    longest.cancel()
    assert await longest < UNBLOCKED_S
    assert tracer.holds  # the helper was left without its exit status
    await asyncio.to_thread(tracer.release)
    while exists(pid):  # noqa: ASYNC110 -- reaped all the same, as soon as the tracer lets it
        await asyncio.sleep(0.01)


async def test_a_child_that_writes_much_and_is_not_read_ends_all_the_same(tmp_path: Path) -> None:
    script = program(tmp_path, "echo done; yes progress | head -c 1000000; echo error >&2")
    async with Helper(["canary"], program=script, stop_s=60) as helper:
        await helper.ask("create", 10)
    assert not helper.lives


async def test_a_cancelled_start_leaves_no_child(tmp_path: Path) -> None:
    script = program(tmp_path, "true")
    script.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/pid\nexec sleep 600\n")
    helper = Helper(["canary"], program=script, stop_s=0.1)
    starting = asyncio.create_task(helper.__aenter__())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not helper.lives
    assert helper.pid
    assert not exists(helper.pid)


async def test_a_child_that_cannot_work_is_an_error(tmp_path: Path) -> None:
    script = program(tmp_path, "exit", "error 2 /sys/fs/cgroup/x: No such file or directory")
    with pytest.raises(HelperError, match="No such file or directory"):
        await Helper(["canary"], program=script).__aenter__()


async def test_a_child_that_never_gets_ready_is_an_error_and_is_ended(tmp_path: Path) -> None:
    script = program(tmp_path, "true")
    script.write_text("#!/bin/sh\nexec sleep 600\n")
    helper = Helper(["canary"], program=script, start_s=0.1, stop_s=0.1)
    with pytest.raises(HelperError, match="no answer to `start`"):
        await helper.__aenter__()
    assert not helper.lives


async def test_a_program_that_cannot_be_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HelperError, match="cannot be started"):
        await Helper(["canary"], program=tmp_path / "absent").__aenter__()


def test_a_program_that_is_not_built_is_an_error() -> None:
    with pytest.raises(KickwatchError, match="absent is missing"):
        binary("absent")
