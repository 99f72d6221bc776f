"""Expects when invocations end, from how long earlier ones took in proportion to their priority. Pure.

The priority of a request is an estimate of how long its invocation takes, since the longest are started first; what a unit of
it takes is learnt from the invocations that have ended. Where priorities tell nothing, all are expected to take equally long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from statistics import median

_REMEMBERED = 31
_FEWEST = 3
_MOST_OPEN = 5000


class Forecast:
    """The invocations in progress that were started here, and when each is expected to end."""

    def __init__(self) -> None:
        # By ARN: when it was started, and its priority.
        self._running: dict[str, tuple[float, float]] = {}
        # Of those that are not in progress any more, until it is known how long they took.
        self._open: dict[str, float] = {}
        self._observed: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        self._seconds_each = 0.0
        self._seconds_of_a_unit = 0.0

    def started(self, arn: str, priority: float, now: float) -> None:
        """Take in that an invocation was started."""
        self._running[arn] = (now, priority)

    def in_progress(self, arns: Collection[str]) -> None:
        """Take in which ones are still in progress."""
        for arn in [arn for arn in self._running if arn not in arns]:
            self._open[arn] = self._running.pop(arn)[1]
        while len(self._open) > _MOST_OPEN:
            self._open.pop(next(iter(self._open)))

    def ended(self, arn: str, seconds: float) -> None:
        """Take in how long an invocation took; it counts once, and only if it was started here."""
        priority = self._open.pop(arn, None)
        if priority is None and (known := self._running.pop(arn, None)) is not None:
            priority = known[1]
        if priority is not None and seconds > 0:
            self._observed.append((priority, seconds))
            self._learn()

    def ends(self) -> list[float]:
        """Return when each that is in progress is expected to end, earliest first; none before enough have ended."""
        if len(self._observed) < _FEWEST:
            return []
        return sorted(began + self._seconds(priority) for began, priority in self._running.values())

    def _seconds(self, priority: float) -> float:
        return self._seconds_of_a_unit * priority if self._seconds_of_a_unit else self._seconds_each

    def _learn(self) -> None:
        each = median(seconds for _, seconds in self._observed)
        by_unit = [seconds / priority for priority, seconds in self._observed if priority > 0]
        unit = median(by_unit) if len(by_unit) == len(self._observed) else 0.0
        off_each = median(abs(seconds - each) / seconds for _, seconds in self._observed)
        off_unit = median(abs(seconds - unit * priority) / seconds for priority, seconds in self._observed)
        self._seconds_each, self._seconds_of_a_unit = each, unit if unit and off_unit <= off_each else 0.0
