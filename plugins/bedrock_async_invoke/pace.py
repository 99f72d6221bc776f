"""Learns how fast slots of the window become free, and says how long to wait between two looks at the list."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

LEAST_SECONDS = 0.33
# After so many ends an earlier one counts a third.
_REMEMBERED_ENDS = 20
# While none has ended, the wait grows with the time that has passed.
_SHARE_OF_SILENCE = 0.2
# A small window is looked at once for about each end; in a larger one a look waits for several, since each is a smaller
# part of it: with 300 in progress a slot then stays empty for a fiftieth of the time that an invocation takes.
_ENDS_A_LOOK = 0.9
_SMALL_WINDOW = 20
_ENDS_A_LOOK_FOR_EACH = 0.043
# After an end that is expected: the list is asked when it should show it.
_AFTER_AN_END_SECONDS = 0.1
# Ends that are expected so close together, as a share of the time between two ends, are waited for together.
_TOGETHER = 0.15
# What is expected may fail to come, so that a look waits for it only a little longer than it would without.
_LONGER_FOR_EXPECTED = 1.5


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

    def look_interval(self, occupied: int, most: float, expected: Sequence[float] = ()) -> float:
        """Return the seconds between two looks while the window is full.

        About one slot becomes free in that time, or several in a large window. Where it is expected when invocations end, the
        look comes right after as many of them, unless some are overdue: then nothing is expected of the others either.

        :param occupied: how many invocations are in progress.
        :param most: the most seconds.
        :param expected: in how many seconds after the last look each is expected to end, earliest first.
        """
        ends = max(_ENDS_A_LOOK, _ENDS_A_LOOK_FOR_EACH * (occupied - _SMALL_WINDOW))
        each = self._seconds / self._ends if self._ends else 0.0
        seconds = ends * each if each else _SHARE_OF_SILENCE * self._seconds
        # Where they end faster than it may look, there is nothing to choose.
        if expected and expected[0] > 0 and (not each or seconds > LEAST_SECONDS):
            then = _end_of_several(expected, max(round(ends), 1), _TOGETHER * each) + _AFTER_AN_END_SECONDS
            seconds = min(then, seconds * _LONGER_FOR_EXPECTED if each else most)
        return min(max(seconds, LEAST_SECONDS), most)


def _end_of_several(expected: Sequence[float], ends: int, together: float) -> float:
    """Return when as many are expected to have ended, and those that end together with the last of them."""
    last = min(ends, len(expected)) - 1
    while last + 1 < len(expected) and expected[last + 1] - expected[last] <= together:
        last += 1
    return expected[last]
