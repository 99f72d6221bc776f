from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from local_stack.processes import (
    BackgroundProcess,
    DeadlineError,
    LocalStackError,
    ProcessEndedError,
    ProcessRecord,
    started_at,
    wait_until,
)

SLEEPS = "print('ready', flush=True); import time; time.sleep(60)"
IGNORES_SIGTERM = (
    f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(2, signal.SIG_IGN); {SLEEPS}"
)
# A child in a process group of its own, as Airflow's tasks are, and one in a session of its own.
HAS_CHILDREN = f"""
import os, subprocess, sys
code = "import time; time.sleep(60)"
in_own_group = subprocess.Popen([sys.executable, "-c", code], process_group=0)
in_own_session = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
print(in_own_group.pid, in_own_session.pid, flush=True)
{SLEEPS}
"""
LEAVES_A_CHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], process_group=0)
print("ready", child.pid, flush=True)
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[BackgroundProcess]:
    process = BackgroundProcess("sleeper", tmp_path, grace_seconds=5)
    yield process
    process.kill()
    process.stop()


def start(process: BackgroundProcess, code: str = SLEEPS) -> None:
    process.start([sys.executable, "-c", code], environment=dict(os.environ))
    wait_until(lambda: "ready" in process.last_lines(), seconds=10, what="the process is ready")


def test_a_process_is_recognised_by_another_command_that_looks(process: BackgroundProcess, tmp_path: Path) -> None:
    start(process)

    seen = BackgroundProcess("sleeper", tmp_path)

    assert seen.is_running
    assert seen.pid == process.pid
    seen.stop()
    assert not process.is_running


def test_a_process_that_runs_is_not_started_again(process: BackgroundProcess) -> None:
    start(process)

    with pytest.raises(LocalStackError, match="is running already"):
        start(process)


def test_a_record_can_hold_details_for_later_commands(process: BackgroundProcess) -> None:
    process.start([sys.executable, "-c", SLEEPS], environment=dict(os.environ), details={"port": 4321})

    record = process.record

    assert record is not None
    assert record.details == {"port": 4321}


def test_stopping_ends_children_in_groups_and_sessions_of_their_own(process: BackgroundProcess) -> None:
    start(process, HAS_CHILDREN)
    children = [int(pid) for pid in process.last_lines().split()[1:3]]
    assert all(psutil.pid_exists(pid) for pid in children)
    assert {found.pid for found in process.processes()} >= {process.pid, *children}

    process.stop()

    assert not any(started_at(pid) for pid in children)


def test_stopping_ends_what_a_process_has_left_behind(process: BackgroundProcess) -> None:
    start(process, LEAVES_A_CHILD)
    wait_until(lambda: not process.is_running, seconds=10, what="the process has ended")
    (child,) = process.processes()

    process.stop()

    assert started_at(child.pid) is None


def test_a_process_that_ignores_its_signal_is_killed(tmp_path: Path) -> None:
    process = BackgroundProcess("stubborn", tmp_path, grace_seconds=0.1)
    start(process, IGNORES_SIGTERM)

    process.stop()

    assert process.processes() == []


def test_a_pid_that_belongs_to_another_process_now_is_never_signalled(
    process: BackgroundProcess, tmp_path: Path
) -> None:
    start(process)
    record = process.record
    assert record is not None
    recycled = BackgroundProcess("recycled", tmp_path)
    replace(record, name="recycled", started_at="another boot/1").write(recycled.record_path)

    assert not recycled.is_running
    assert recycled.processes() == []
    recycled.kill()
    recycled.stop()

    assert process.is_running
    assert not recycled.record_path.exists()


def test_stopping_what_does_not_run_does_nothing(process: BackgroundProcess) -> None:
    process.stop()

    assert not process.is_running


def test_a_killed_process_is_gone_at_once_with_its_children(process: BackgroundProcess) -> None:
    start(process, HAS_CHILDREN)

    process.kill()

    assert process.processes() == []
    assert not process.is_running


def test_what_a_process_has_started_goes_on_when_it_alone_is_killed_and_is_still_ended_with_it(
    process: BackgroundProcess,
) -> None:
    start(process, HAS_CHILDREN)
    children = [int(pid) for pid in process.last_lines().split()[1:3]]

    process.kill_alone()

    assert not process.is_running
    assert {found.pid for found in process.processes()} == set(children)
    process.start([sys.executable, "-c", SLEEPS], environment=dict(os.environ))
    assert {found.pid for found in process.processes()} == {process.pid, *children}
    process.stop()
    assert not any(started_at(pid) for pid in children)
    assert process.processes() == []


def test_what_was_left_behind_can_be_ended_while_the_process_goes_on(process: BackgroundProcess) -> None:
    start(process, HAS_CHILDREN)
    process.kill_alone()
    process.start([sys.executable, "-c", SLEEPS], environment=dict(os.environ))

    process.kill_left_behind()

    assert [found.pid for found in process.processes()] == [process.pid]


def test_what_a_process_has_left_behind_is_ended_when_it_was_never_started_again(process: BackgroundProcess) -> None:
    start(process, HAS_CHILDREN)
    process.kill_alone()
    children = [found.pid for found in process.processes()]

    process.kill()

    assert len(children) == 2
    assert not any(started_at(pid) for pid in children)


def test_a_process_that_ends_too_early_is_an_error_with_its_last_words(process: BackgroundProcess) -> None:
    process.start([sys.executable, "-c", "raise SystemExit('no such library')"], environment=dict(os.environ))

    with pytest.raises(ProcessEndedError, match=r"(?s)sleeper ended before it answered.*sleeper\.log.*no such library"):
        process.wait_until_ready(lambda: False, seconds=10, what="it answered")


def test_a_process_that_is_not_ready_in_time_is_an_error_with_its_last_words(process: BackgroundProcess) -> None:
    start(process)

    with pytest.raises(DeadlineError, match=r"(?s)waited 0 s in vain: it answered.*\| ready"):
        process.wait_until_ready(lambda: False, seconds=0.1, what="it answered")


def test_a_program_that_does_not_exist_is_an_error(process: BackgroundProcess) -> None:
    with pytest.raises(LocalStackError, match="could not be started"):
        process.start(["/no/such/program"], environment={})


@pytest.mark.parametrize("exit_code", [0, 3])
def test_a_command_is_run_to_its_end(process: BackgroundProcess, exit_code: int) -> None:
    command = [sys.executable, "-c", f"raise SystemExit({exit_code})"]

    assert process.run(command, environment=dict(os.environ), seconds=10) == exit_code
    assert not process.record_path.exists()


def test_a_command_that_takes_too_long_is_ended(process: BackgroundProcess) -> None:
    with pytest.raises(DeadlineError, match="sleeper has ended"):
        process.run([sys.executable, "-c", SLEEPS], environment=dict(os.environ), seconds=0.1)

    assert process.processes() == []


@pytest.mark.parametrize("content", ["", "{", '{"name": "other"}', "[]"])
def test_a_record_that_can_not_be_understood_counts_as_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.process.json"
    path.write_text(content)

    assert ProcessRecord.read(path) is None
