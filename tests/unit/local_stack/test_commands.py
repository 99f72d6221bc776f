from __future__ import annotations

import stat
from pathlib import Path

import pytest

from local_stack import __main__ as commands
from local_stack.compose import write_environment_file
from local_stack.processes import LocalStackError


def test_an_error_is_said_with_what_to_do_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise LocalStackError("SeaweedFS ended before it answered")

    monkeypatch.setitem(commands.COMMANDS, ("demo",), fail)

    assert commands.main(["demo"]) == commands.FAILED
    said = capsys.readouterr().err
    assert "SeaweedFS ended before it answered" in said
    assert "make demo-down" in said


def test_an_interrupted_command_says_that_things_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(commands.COMMANDS, ("stack", "up"), interrupt)

    assert commands.main(["stack", "up"]) == commands.INTERRUPTED
    assert "goes on" in capsys.readouterr().err


def test_a_command_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SystemExit):
        commands.main(["stack", "sideways"])


def test_the_compose_environment_is_written_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "compose.env"

    assert write_environment_file(path)
    written = path.read_text()
    assert not write_environment_file(path)

    assert path.read_text() == written
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
