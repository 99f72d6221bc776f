"""How many calls a second are let through."""

from __future__ import annotations

import threading
from collections.abc import Callable


class CallRate:
    """A token bucket for each name: a second's calls may come at once, then they come as fast as it fills. Thread-safe.

    :param now_ms: the clock, in milliseconds.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, int]] = {}

    def take(self, name: str, per_second: float) -> bool:
        """Return whether one more call is let through; one that is not does not count."""
        with self._lock:
            now = self._now_ms()
            # Less than one call a second fills up to one call all the same.
            most = max(per_second, 1.0)
            left, since = self._left.get(name, (most, now))
            left = min(most, left + max(0, now - since) * per_second / 1000)
            is_let_through = left >= 1.0
            self._left[name] = (left - 1.0 if is_let_through else left, now)
            return is_let_through
