from __future__ import annotations

import io

import pytest

from local_stack.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_elsewhere_than_on_a_terminal_a_state_is_written_once_and_plainly() -> None:
    stream = io.StringIO()
    progress = Progress(stream)

    with progress.phase("run"):
        for state in ("1/3 tasks", "1/3 tasks", "2/3 tasks"):
            progress.show(state, 1, 3)

    lines = stream.getvalue().splitlines()
    assert [line.strip(". ") for line in lines[:-1]] == ["run", "1/3 tasks", "2/3 tasks"]
    assert lines[-1].endswith(" s  run")
    assert "\x1b" not in stream.getvalue()


def test_on_a_terminal_the_bar_is_written_over_itself() -> None:
    stream = Terminal()
    progress = Progress(stream)

    progress.show("half", 1, 2)

    assert stream.getvalue().startswith("\r\x1b[2K")
    assert f"[{'#' * 12}{'.' * 12}] half" in stream.getvalue()
    assert "\n" not in stream.getvalue()


def test_a_phase_that_fails_is_not_said_to_have_ended() -> None:
    stream = io.StringIO()

    with pytest.raises(RuntimeError), Progress(stream).phase("run"):
        raise RuntimeError

    assert " s  run" not in stream.getvalue()
