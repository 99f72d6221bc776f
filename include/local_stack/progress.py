"""Says what a long command is doing: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_BAR_WIDTH = 24


class Progress:
    """Writes the phases of a command with their times, and how far the one that is running has come.

    :param stream: where to; on a terminal the line of the running phase is written over and over.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._is_terminal = self._stream.isatty()
        self._begun = time.monotonic()
        self._phase_begun = self._begun
        self._last = ""

    @property
    def seconds(self) -> float:
        """How long the command has run."""
        return time.monotonic() - self._begun

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Say that a phase begins, and how long it took when it has ended without an error."""
        self._phase_begun = time.monotonic()
        self.show(name)
        yield
        self.line(f"{time.monotonic() - self._phase_begun:6.1f} s  {name}")

    def show(self, state: str, done: int = 0, total: int = 0) -> None:
        """Show how far the running phase has come; writes nothing that was written before."""
        if not self._is_terminal:
            if state != self._last:
                self._write(f"        ...  {state}\n")
        else:
            filled = _BAR_WIDTH * done // total if total else 0
            bar = f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] " if total else ""
            elapsed = time.monotonic() - self._phase_begun
            line = f"{elapsed:6.1f} s  {bar}{state}"
            self._write("\r\x1b[2K" + line[: shutil.get_terminal_size().columns - 1])
        self._last = state

    def line(self, text: str = "") -> None:
        """Write a line that stays."""
        self._write(("\r\x1b[2K" if self._is_terminal else "") + text + "\n")
        self._last = ""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
