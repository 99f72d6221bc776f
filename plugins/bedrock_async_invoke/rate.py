"""Decides how fast calls may follow each other when nobody says how fast they may. Pure: fed with what the calls met.

Until the first throttling nothing is known, and the number of calls at once is the only bound. From then on there is a rate:
it grows by as much in every second, faster when it has met nothing for long, and shrinks by a tenth when it is throttled; all
calls that were under way at that moment have met the same limit, and shrink it once.
"""

from __future__ import annotations

from collections import deque
from math import inf

DECREASE = 0.9
LEAST_RATE = 0.1
"""Calls a second: so slow it goes on asking, whatever it meets."""

# Of the rate, in every step of time; after so many steps without throttling twice as much, after twice as many three times.
_INCREASE = 0.02
_ACCELERATING_STEPS = 5.0
# After so many steps what is there now is another limit: from then on the rate doubles.
_STEPS_OF_PEACE, _DOUBLING_STEPS = 10.0, 5.0
# A step is a second, or as long as so many calls take: a slow rate meets its limit less often.
_CALLS_OF_A_STEP = 5.0
# What is measured goes back so far; where that is too few answers to tell, further.
_MEASURED_SECONDS, _MOST_MEASURED_SECONDS = 1.0, 10.0
_ENOUGH_ANSWERS = 10
# Calls that could not be begun in time are made up for as far as that.
_CREDIT_SECONDS = 0.1
_FIRST_PAUSE_SECONDS = 0.25
# Calls a second, where nothing was answered yet; from there on the rate doubles with every step until it is throttled.
_UNKNOWN_RATE = 5.0


class InvokeRate:
    """Calls a second, by additive increase and multiplicative decrease.

    Times are seconds of any clock that never goes back.

    :param longest_pause: the most seconds that throttling makes it pause at once, where the service asks for no others.
    """

    def __init__(self, longest_pause: float = 60.0) -> None:
        self._longest_pause = longest_pause
        self._base = inf
        self._base_at = -inf
        self._is_guessed = False
        self._next = -inf
        self._paused_until = -inf
        self._answers: deque[float] = deque()
        self._measured_since: float | None = None
        # Throttled since the last answer, each time it was slowed down.
        self._in_a_row = 0

    def calls_a_second(self, now: float) -> float:
        """Return the rate; infinite as long as no limit was met."""
        if self._base == inf:
            return inf
        steps = max(0.0, now - self._base_at) / max(1.0, _CALLS_OF_A_STEP / self._base)
        if self._is_guessed:
            return float(self._base * 2 ** min(steps, 100.0))
        counted = min(steps, _STEPS_OF_PEACE)
        grown = self._base * (1 + _INCREASE * counted * (1 + counted / _ACCELERATING_STEPS))
        # More than a hundred doublings are no rate any more.
        return float(grown * 2 ** min((steps - counted) / _DOUBLING_STEPS, 100.0))

    def next_at(self) -> float:
        """Return when the next call may be begun."""
        return max(self._next, self._paused_until)

    def begun(self, now: float) -> None:
        """Take in that a call is begun."""
        self._measured_since = now if self._measured_since is None else self._measured_since
        self._next = max(self._next, now - _CREDIT_SECONDS) + 1 / self.calls_a_second(now)

    def answered(self, now: float) -> None:
        """Take in that a call had its answer."""
        self._in_a_row = 0
        self._answers.append(now)
        self._forget(now)

    def throttled(self, began: float, now: float, retry_after: float | None = None) -> None:
        """Take in that a call was throttled.

        :param began: when the call was begun; one that was begun before the last decrease tells nothing new.
        :param retry_after: the seconds that the service asks to wait.
        """
        if retry_after is not None:
            self._paused_until = max(self._paused_until, now + retry_after)
        if began <= self._base_at:
            return
        if self._in_a_row and retry_after is None:
            # Nothing was answered between two decreases: the rate is not what stands in the way.
            pause = min(_FIRST_PAUSE_SECONDS * 2 ** (self._in_a_row - 1), self._longest_pause)
            self._paused_until = max(self._paused_until, now + pause)
        self._in_a_row += 1
        measured = self._measured(now)
        # A rate that was not reached is no limit that was met. Nothing at all was answered where others use up the quota.
        met = min(self.calls_a_second(now), measured or _UNKNOWN_RATE)
        self._is_guessed = not measured
        self._base, self._base_at = max(LEAST_RATE, DECREASE * met), now
        self._next = now + 1 / self._base

    def _measured(self, now: float) -> float:
        """Return the answers a second of late."""
        self._forget(now)
        recent = sum(at > now - _MEASURED_SECONDS for at in self._answers)
        if recent >= _ENOUGH_ANSWERS:
            return recent / _MEASURED_SECONDS
        since = now if self._measured_since is None else self._measured_since
        return len(self._answers) / min(max(now - since, _MEASURED_SECONDS), _MOST_MEASURED_SECONDS)

    def _forget(self, now: float) -> None:
        while self._answers and self._answers[0] <= now - _MOST_MEASURED_SECONDS:
            self._answers.popleft()
