"""The simulator's own time, which an administrator may put forward."""

from __future__ import annotations

import threading
import time


class Clock:
    """The time of day in whole milliseconds since 1970 (UTC), shifted by ``offset_ms``.

    All time stamps and deadlines of the simulator come from here, so that hours of waiting can pass in no time.
    """

    def __init__(self, offset_ms: int = 0) -> None:
        self._offset_ms = offset_ms
        self._lock = threading.Lock()

    @property
    def offset_ms(self) -> int:
        """How far this clock is ahead of the machine's, in milliseconds."""
        return self._offset_ms

    def now_ms(self) -> int:
        """Return the present moment."""
        return time.time_ns() // 1_000_000 + self._offset_ms

    def advance(self, milliseconds: int) -> None:
        """Put the clock forward; it never goes back."""
        if milliseconds < 0:
            raise ValueError(f"The clock only goes forward, not by {milliseconds} ms.")
        with self._lock:
            self._offset_ms += milliseconds
