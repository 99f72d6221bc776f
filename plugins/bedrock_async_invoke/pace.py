"""Learns how fast slots of the window become free, and says how long to wait between two looks at the list."""

from __future__ import annotations

from math import exp

LEAST_SECONDS = 0.4
# After so many ends an earlier one counts a third.
_REMEMBERED_ENDS = 20
# While none has ended, the wait grows with the time that has passed.
_SHARE_OF_SILENCE = 0.2
# Of the time that an invocation takes: so long may a slot stay empty, twice, before a look notices.
_SHARE_OF_DURATION = 0.036


class Pace:
    """The ends of invocations per second, of the last ones."""

    def __init__(self) -> None:
        self._ends = 0.0
        self._seconds = 0.0

    def observe(self, ended: int, seconds: float) -> None:
        """Take in how many have ended in so many seconds."""
        kept = exp(-ended / _REMEMBERED_ENDS)
        # Of many at once the first ones are forgotten as well.
        weight = (1 - kept) * _REMEMBERED_ENDS / ended if ended else 1.0
        self._ends = kept * self._ends + weight * ended
        self._seconds = kept * self._seconds + weight * seconds

    def look_interval(self, occupied: int, most: float) -> float:
        """Return the seconds between two looks while the window is full.

        About one slot becomes free in that time, or more in a large window: as many as keeps the time that slots stay
        empty a small share of the time that an invocation takes, which is ``occupied`` divided by the ends per second.

        :param occupied: how many invocations are in progress.
        :param most: the most seconds.
        """
        if self._ends:
            seconds = max(1.0, _SHARE_OF_DURATION * occupied) * self._seconds / self._ends
        else:
            seconds = _SHARE_OF_SILENCE * self._seconds
        return min(max(seconds, LEAST_SECONDS), most)
