"""Decides what to start next. Pure: it is told what was observed, and says what to do; it makes no call and reads no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bedrock_async_invoke.errors import AsyncInvokeError, Meaning
from bedrock_async_invoke.manifest import Invocation, Outcome


@dataclass(frozen=True, slots=True)
class Look:
    """Look at Bedrock's list, then ask again."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start this request, and say what came of it."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait so many seconds, then look again."""

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

    :param request_ids: in the order in which they are to be started.
    :param max_in_flight: the most invocations in progress at once; None for no limit but Bedrock's own.
    :param poll_interval: seconds between two looks while the window is full.
    :param consistency_delay: seconds after an answer that can't be relied on until the list is trusted to show what became
        of it.
    :param max_failures: how many answers in a row may fail to come.
    """

    def __init__(
        self,
        request_ids: Iterable[str],
        *,
        max_in_flight: int | None,
        poll_interval: float,
        consistency_delay: float = 5.0,
        max_failures: int = 8,
        longest_wait: float = 120.0,
    ) -> None:
        self._pending = deque(request_ids)
        self._outcomes: dict[str, Invocation] = {}
        self._max_in_flight = max_in_flight
        self._poll_interval = poll_interval
        self._consistency_delay = consistency_delay
        self._max_failures = max_failures
        self._longest_wait = longest_wait
        self._in_flight: int | None = None
        self._failures = 0
        self._backoff = 0.0
        self._wait: Wait | None = None

    @property
    def outcomes(self) -> Mapping[str, Invocation]:
        """Return what became of the requests so far, by request id."""
        return self._outcomes

    @property
    def pending(self) -> int:
        """Return how many requests have no outcome yet."""
        return len(self._pending)

    def decide(self) -> Decision:
        """Return what to do next."""
        if not self._pending:
            return Done()
        if self._failures >= self._max_failures:
            return GiveUp(self._wait.reason if self._wait else "no answer")
        if self._wait is not None:
            wait, self._wait = self._wait, None
            return wait
        if self._in_flight is None:
            return Look()
        if self._max_in_flight is not None and self._in_flight >= self._max_in_flight:
            self._in_flight = None
            return Wait(self._poll_interval, f"{self._max_in_flight} invocations are in progress")
        return Start(self._pending[0])

    def remember(self, invocations: Iterable[Invocation]) -> None:
        """Take over outcomes that an earlier try has written."""
        self._settle(invocations)

    def listed(self, in_flight: int, known: Iterable[Invocation]) -> None:
        """Take in a look at the list: how many invocations are in progress, and which of ours it knows."""
        self._in_flight = in_flight
        self._failures = 0
        self._settle(known)

    def list_failed(self, error: AsyncInvokeError) -> None:
        """Take in that the list could not be looked at; without it nothing is started."""
        self._failures += 1
        self._hold(error)

    def started(self, invocation: Invocation) -> None:
        """Take in that Bedrock accepted a request."""
        self._failures = 0
        self._backoff = 0.0
        self._in_flight = (self._in_flight or 0) + 1
        self._settle([invocation])

    def start_failed(self, request_id: str, error: AsyncInvokeError) -> None:
        """Take in that a request was not accepted, or that nobody knows whether it was."""
        if error.meaning is Meaning.REFUSED:
            self._settle([Invocation(request_id, None, Outcome.REFUSED, None, error.code, error.message)])
            return
        if error.meaning is Meaning.UNAVAILABLE:
            self._failures += 1
        # The next start is preceded by a look at the list, which shows what an answer that did not come would have said.
        self._in_flight = None
        self._hold(error)

    def _hold(self, error: AsyncInvokeError) -> None:
        self._backoff = min(max(2 * self._backoff, self._poll_interval), self._longest_wait)
        seconds = self._backoff
        if error.meaning is Meaning.UNAVAILABLE:
            seconds = max(seconds, self._consistency_delay)
        self._wait = Wait(seconds, str(error))

    def _settle(self, invocations: Iterable[Invocation]) -> None:
        settled = {one.request_id: one for one in invocations}
        waiting = set(self._pending)
        self._outcomes |= {request_id: one for request_id, one in settled.items() if request_id in waiting}
        self._pending = deque(one for one in self._pending if one not in settled)
