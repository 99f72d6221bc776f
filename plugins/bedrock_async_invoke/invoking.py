"""Decides which request is to be sent through InvokeModel next. Pure: it is told what was observed, and says what to do.

Three rules are never relaxed. No more calls are under way than are allowed at once. Throttling says nothing about a request,
so it only slows down. What fails again and again without a refusal is given up alone, unless everything fails: then the
service is, and nothing is given up but the whole.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from bedrock_async_invoke.errors import AsyncInvokeError, Meaning
from bedrock_async_invoke.rate import InvokeRate

_FIRST_RETRY_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Call:
    """Send this request: say that it is begun, then what came of it."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until something has ended, but no longer than so many seconds, then ask again."""

    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """Every request is settled."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Bedrock as a whole fails or can't be reached."""

    reason: str


Decision = Call | Wait | Done | GiveUp


@dataclass(frozen=True, slots=True)
class InvokePatience:
    """When to stop trying."""

    tries: int = 5
    """Calls of one request without an answer or with the service's own error; then it is given up and the others go on."""
    failures: int = 10
    """Calls, of any requests, that fail in a row until the circuit breaker opens."""
    probes: int = 5
    """Single calls that the open circuit breaker lets through before all is given up."""
    breaker_seconds: float = 10.0
    """The pause before the first of them; it doubles up to ten times this."""


class InvokeSchedule:
    """The order in which requests are sent, and how many at once.

    Times are seconds of any clock that never goes back.

    :param at_once: the most calls under way.
    """

    def __init__(
        self,
        request_ids: Iterable[str],
        *,
        at_once: int,
        rate: InvokeRate | None = None,
        patience: InvokePatience | None = None,
    ) -> None:
        self._at_once = at_once
        self.rate = rate or InvokeRate()
        self._patience = patience or InvokePatience()
        self._ready = deque(request_ids)
        self._later: list[tuple[float, int, str]] = []
        self._number = 0
        self._under_way: set[str] = set()
        self._tries: dict[str, int] = {}
        self._failures = 0
        self._failure = ""
        self._probes = 0
        self._paused_until = -inf

    @property
    def unsettled(self) -> int:
        """Return how many requests have no outcome yet."""
        return len(self._ready) + len(self._later) + len(self._under_way)

    def decide(self, now: float) -> Decision:
        """Return what to do next."""
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        if not self.unsettled:
            return Done()
        if self._probes > self._patience.probes and not self._all_were_tried:
            return GiveUp(
                f"the circuit breaker stays open: {self._failures} calls failed in a row; the last one with {self._failure}"
            )
        allowed = 1 if self._probes else self._at_once
        if len(self._under_way) >= allowed:
            return Wait(inf, f"{len(self._under_way)} calls are under way")
        if not self._ready:
            return Wait(self._later[0][0] - now if self._later else inf, "earlier calls have to end first")
        not_before = max(self.rate.next_at(), self._paused_until)
        if now < not_before:
            return Wait(not_before - now, f"{self.rate.calls_a_second(now):.3g} calls a second are tried")
        return Call(self._ready[0])

    def begun(self, request_id: str, now: float) -> None:
        """Take in that a request is being sent."""
        self._ready.remove(request_id)
        self._under_way.add(request_id)
        self.rate.begun(now)

    def answered(self, request_id: str, now: float) -> None:
        """Take in that Bedrock has answered a request."""
        self._under_way.discard(request_id)
        self._failures = self._probes = 0
        self.rate.answered(now)

    def settled(self, request_id: str, *, by_bedrock: bool) -> None:
        """Take in that a request has an outcome without an answer that counts.

        :param by_bedrock: whether Bedrock has refused it, which shows that it is there.
        """
        self._under_way.discard(request_id)
        if by_bedrock:
            self._failures = self._probes = 0

    def hold(self, request_id: str, until: float) -> None:
        """Look at a request again at this time: somebody else may be sending it."""
        self._put_off(request_id, until)

    def put_back(self, request_id: str) -> None:
        """Take in that a request was not sent after all."""
        self._under_way.discard(request_id)
        self._ready.appendleft(request_id)

    def throttled(self, request_id: str, began: float, now: float, retry_after: float | None) -> None:
        """Take in that there was no room for a request; it is the next one again."""
        self.put_back(request_id)
        # Being throttled shows that the service is there.
        self._failures = self._probes = 0
        self.rate.throttled(began, now, retry_after)

    def failed(self, request_id: str, error: AsyncInvokeError, now: float) -> bool:
        """Take in that a call failed for the service's reason, or without an answer; return whether its request is given up."""
        self._failures += 1
        self._failure = str(error)
        patience = self._patience
        if self._failures >= patience.failures:
            self._paused_until = now + min(patience.breaker_seconds * 2**self._probes, 10 * patience.breaker_seconds)
            self._probes += 1
        if error.meaning is Meaning.UNAUTHENTICATED:
            # No request is to blame.
            self._put_off(request_id, now + _FIRST_RETRY_SECONDS)
            return False
        self._tries[request_id] = tries = self._tries.get(request_id, 0) + 1
        if tries >= patience.tries and (not self._probes or self._all_were_tried):
            self._under_way.discard(request_id)
            return True
        seconds = error.retry_after or min(_FIRST_RETRY_SECONDS * 2**tries, _LONGEST_RETRY_SECONDS)
        self._put_off(request_id, now + seconds)
        return False

    @property
    def _all_were_tried(self) -> bool:
        """Whether none is left of which one could hope that it shows the service to be well."""
        left = [*self._ready, *(one for _, _, one in self._later), *self._under_way]
        return all(self._tries.get(one) for one in left)

    def _put_off(self, request_id: str, until: float) -> None:
        self._under_way.discard(request_id)
        self._number += 1
        heapq.heappush(self._later, (until, self._number, request_id))
