"""Decides what to start next. Pure: it is told what was observed, and says what to do; it makes no call and reads no clock.

Two rules are never relaxed. A request whose Start had no answer to rely on is started again only after a look at the list,
and under the same token. Throttling says nothing about a request, so it only makes the window wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bedrock_async_invoke.errors import AsyncInvokeError, Meaning
from bedrock_async_invoke.manifest import Invocation, Outcome

LIST_LAG_SECONDS = 10.0
"""How long the list may take to show an invocation that was just accepted; AWS states no figure."""

_FIRST_WAIT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Look:
    """Look at Bedrock's list, then ask again."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start this request, and say what came of it."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait so many seconds, then ask again."""

    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """Every request has an outcome."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Bedrock can't be reached; what was started is kept."""

    reason: str


Decision = Look | Start | Wait | Done | GiveUp


class SubmissionWindow:
    """The order in which requests are started, and the room that there is for them.

    Times are seconds of any clock that never goes back.

    :param request_ids: in the order in which they are to be started.
    :param max_in_flight: the most invocations in progress at once; None for no limit but Bedrock's own.
    :param poll_interval: seconds between two looks while the window is full.
    :param consistency_delay: seconds after an answer that can't be relied on until the list is trusted to show what became
        of it.
    :param max_failures: how many Start calls, or looks at the list, may fail in a row.
    :param longest_wait: the most seconds that throttling or failures make it wait at once.
    """

    def __init__(
        self,
        request_ids: Iterable[str],
        *,
        max_in_flight: int | None,
        poll_interval: float,
        consistency_delay: float = LIST_LAG_SECONDS,
        max_failures: int = 8,
        longest_wait: float = 60.0,
    ) -> None:
        self._pending = dict.fromkeys(request_ids)
        self._outcomes: dict[str, Invocation] = {}
        self._max_in_flight = max_in_flight
        self._poll_interval = poll_interval
        self._consistency_delay = consistency_delay
        self._max_failures = max_failures
        self._longest_wait = longest_wait
        self._in_flight: int | None = None
        self._not_before = float("-inf")
        self._reason = ""
        self._backoff = 0.0
        self._start_failures = 0
        self._list_failures = 0
        self._list_refused = False
        self._conflicting: set[str] = set()

    @property
    def outcomes(self) -> Mapping[str, Invocation]:
        """Return what became of the requests so far, by request id."""
        return self._outcomes

    @property
    def pending(self) -> int:
        """Return how many requests have no outcome yet."""
        return len(self._pending)

    def decide(self, now: float) -> Decision:
        """Return what to do next."""
        if not self._pending:
            return Done()
        if self._list_refused or max(self._start_failures, self._list_failures) >= self._max_failures:
            return GiveUp(self._reason)
        if now < self._not_before:
            return Wait(self._not_before - now, self._reason)
        if self._in_flight is None:
            return Look()
        if self._max_in_flight is not None and self._in_flight >= self._max_in_flight:
            self._hold(now, self._poll_interval, f"{self._in_flight} invocations of the model are in progress")
            return Wait(self._poll_interval, self._reason)
        return Start(next(iter(self._pending)))

    def remember(self, invocations: Iterable[Invocation]) -> None:
        """Take over outcomes that are written already."""
        self._settle(invocations)

    def listed(self, in_flight: int, known: Iterable[Invocation]) -> None:
        """Take in a look at the list: how many invocations are in progress, and which of ours it knows."""
        self._in_flight = in_flight
        self._list_failures = 0
        if self._settle(known):
            # An answer was lost, but not the call: that is no reason to give up.
            self._start_failures = 0

    def list_failed(self, error: AsyncInvokeError, now: float) -> None:
        """Take in that the list could not be looked at; without it nothing is started."""
        if error.meaning is not Meaning.THROTTLED:
            self._list_failures += 1
        self._list_refused = error.meaning is Meaning.REFUSED
        self._back_off(now, str(error))

    def started(self, invocation: Invocation) -> None:
        """Take in that Bedrock accepted a request."""
        self._start_failures = 0
        self._backoff = 0.0
        self._in_flight = (self._in_flight or 0) + 1
        self._settle([invocation])

    def start_failed(self, request_id: str, error: AsyncInvokeError, now: float) -> None:
        """Take in that a request was not accepted, or that nobody knows whether it was."""
        if error.meaning is Meaning.THROTTLED:
            self._back_off(now, str(error))
        elif error.meaning is Meaning.UNAVAILABLE:
            self._start_failures += 1
            self._postpone(request_id)
            self._back_off(now, str(error), at_least=self._consistency_delay)
        elif error.code == "ConflictException" and request_id not in self._conflicting:
            # Something was started under this token before, perhaps by us: the list shows it, if so.
            self._conflicting.add(request_id)
            self._postpone(request_id)
            self._hold(now, self._consistency_delay, str(error))
        else:
            self._start_failures = 0
            self._settle([Invocation(request_id, None, Outcome.REFUSED, None, error.code, error.message)])

    def _postpone(self, request_id: str) -> None:
        """Let the others go first: one request that Bedrock fails over must not hold them up."""
        self._pending[request_id] = self._pending.pop(request_id)

    def _back_off(self, now: float, reason: str, at_least: float = 0.0) -> None:
        first = min(self._poll_interval, _FIRST_WAIT_SECONDS)
        self._backoff = min(max(2 * self._backoff, first), self._longest_wait)
        self._hold(now, max(self._backoff, at_least), reason)

    def _hold(self, now: float, seconds: float, reason: str) -> None:
        """Wait, and look at the list before anything else is started."""
        self._in_flight = None
        self._not_before = now + seconds
        self._reason = reason

    def _settle(self, invocations: Iterable[Invocation]) -> bool:
        """Take in outcomes of requests that have none, and say whether there were any."""
        new = {one.request_id: one for one in invocations if one.request_id in self._pending}
        for request_id, one in new.items():
            del self._pending[request_id]
            self._outcomes[request_id] = one
        return bool(new)
