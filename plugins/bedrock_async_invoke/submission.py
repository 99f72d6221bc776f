"""Decides what to start next. Pure: it is told what was observed, and says what to do; it makes no call and reads no clock.

Three rules are never relaxed. A request whose Start had no answer to rely on is started again only after a look at the list
that began when the list had had the time to show it, and under the same token; until then it takes room in the window.
Throttling says nothing about a request, so it only shrinks the pace. What is started first is what has the highest priority.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import inf

from bedrock_async_invoke.errors import AsyncInvokeError, Meaning
from bedrock_async_invoke.forecast import Forecast
from bedrock_async_invoke.manifest import Invocation, Outcome
from bedrock_async_invoke.pace import Pace

LIST_LAG_SECONDS = 30.0
"""How long the list may take to show an invocation that was just accepted; AWS states no figure."""

_FIRST_WAIT_SECONDS = 2.0
_DECREASE = 0.9


@dataclass(frozen=True, slots=True)
class Candidate:
    """A request that is to be started."""

    request_id: str
    priority: float = 0.0
    """The higher, the earlier; of equal ones, the one that was added first."""
    max_in_flight: int | None = None
    """The most invocations in progress beside which it may be started, itself among them; None for no limit."""


@dataclass(frozen=True, slots=True)
class Look:
    """Look at Bedrock's list, then ask again."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start this request: say that it is being started, then what came of it."""

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
    """Bedrock as a whole fails or can't be reached; what was started is kept."""

    reason: str


Decision = Look | Start | Wait | Done | GiveUp


@dataclass(frozen=True, slots=True)
class Patience:
    """When to stop trying."""

    tries: int = 5
    """Start calls of one request without an answer to rely on; it counts as unanswered then and the others go on."""
    failed_looks: int = 8
    """Looks at the list that fail in a row."""
    failed_starts: int = 10
    """Start calls, of any requests, that fail in a row until the circuit breaker opens."""
    probes: int = 5
    """Single Start calls that the open circuit breaker lets through before it is given up."""
    breaker_seconds: float = 30.0
    """The pause before the first of them; it doubles up to ten times this."""
    longest_wait: float = 60.0
    """The most seconds that throttling makes it wait at once."""


@dataclass(slots=True)
class _Pending:
    candidate: Candidate
    number: int
    not_before: float = -inf
    """Before this it is not started, and no look that began earlier tells whether it was."""
    tries: int = 0
    error: AsyncInvokeError | None = None
    """What the last of them met."""
    conflicting: bool = False


class SubmissionWindow:
    """The order in which requests are started, and the room that there is for them.

    Times are seconds of any clock that never goes back.

    :param poll_interval: the most seconds between two looks while the window is full; they come sooner where invocations end
        faster.
    :param list_lag: seconds after an answer that can't be relied on until the list is trusted to show what became of it.
    """

    def __init__(
        self, *, poll_interval: float, list_lag: float = LIST_LAG_SECONDS, patience: Patience | None = None
    ) -> None:
        self.poll_interval = poll_interval
        self._list_lag = list_lag
        self._patience = patience or Patience()
        self._pending: dict[str, _Pending] = {}
        self._outcomes: dict[str, Invocation] = {}
        self._fresh: list[Invocation] = []
        self._added = 0
        # By limit, so that a request whose limit is reached does not hold up one with a higher limit.
        self._ready: dict[int | None, list[tuple[float, int, str]]] = {}
        self._held: list[tuple[float, int, str]] = []
        # Of these a Start may have had its effect.
        self._uncertain: set[str] = set()
        # Of these too, and nobody asks for them any more: until when they take room.
        self._forgotten: dict[str, float] = {}
        # Of these a Start call is under way.
        self._starting: set[str] = set()
        self._in_flight: int | None = None
        self._limit = inf
        self._looked_at = -inf
        self._pace = Pace()
        self._forecast = Forecast()
        self._paused_until = -inf
        self._reason = ""
        self._backoff = 0.0
        self._failed_starts = 0
        self._failure = ""
        self._probes = 0
        self._failed_looks = 0
        self._list_refused = False

    @property
    def outcomes(self) -> Mapping[str, Invocation]:
        """Return what became of the requests so far, by request id."""
        return self._outcomes

    @property
    def looked_at(self) -> float:
        """Return when the last look at the list began that succeeded."""
        return self._looked_at

    @property
    def pending(self) -> int:
        """Return how many requests have no outcome yet."""
        return len(self._pending)

    def unsettled_until(self) -> float:
        """Return when the list shows at the latest what became of every Start call that had no answer to rely on."""
        return max((self._pending[request_id].not_before for request_id in self._uncertain), default=-inf)

    def is_pending(self, request_id: str) -> bool:
        """Return whether a request has no outcome yet."""
        return request_id in self._pending

    def take_settled(self) -> list[Invocation]:
        """Return what was settled since this was last asked."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def add(self, candidates: Iterable[Candidate]) -> None:
        """Take in requests. What they may have become before is not known, so that a look comes first."""
        for candidate in candidates:
            if candidate.request_id not in self._pending and candidate.request_id not in self._outcomes:
                self._pending[candidate.request_id] = _Pending(candidate, self._added)
                self._queue(candidate.request_id)
                self._added += 1
                self._in_flight = None

    def forget(self, request_ids: Iterable[str]) -> None:
        """Start these no more, and keep no outcome of them."""
        for request_id in request_ids:
            if request_id in self._uncertain:
                self._uncertain.discard(request_id)
                self._forgotten[request_id] = self._pending[request_id].not_before
            self._starting.discard(request_id)
            self._pending.pop(request_id, None)
            self._outcomes.pop(request_id, None)

    def upcoming(self, most: int) -> list[str]:
        """Return the requests that are to be started next, the first one first, whether or not there is room for them."""
        found: list[tuple[float, int, str]] = []
        for queue in self._ready.values():
            # Not sorted as a whole: there may be a hundred thousand.
            ready: list[tuple[float, int, str]] = []
            passed: list[tuple[float, int, str]] = []
            while queue and len(ready) < most:
                entry = heapq.heappop(queue)
                if self._is_ready(entry):
                    ready.append(entry)
                elif self._is_current(entry):
                    passed.append(entry)
            for entry in (*ready, *passed):
                heapq.heappush(queue, entry)
            found += ready
        return [request_id for _, _, request_id in sorted(found)[:most]]

    def decide(self, now: float) -> Decision:
        """Return what to do next."""
        if not self._pending:
            return Done()
        if (hindrance := self._hindrance(now)) is not None:
            return hindrance
        if self._in_flight is None or self._release(now):
            return Look()
        if self._is_hopeless:
            # None is left of which one could hope that it shows the service to be well.
            self._resign()
        if not self._pending:
            return Done()
        best = self._best()
        return self._waiting(now) if best is None else Start(best)

    def _hindrance(self, now: float) -> GiveUp | Wait | None:
        if self._list_refused or self._failed_looks >= self._patience.failed_looks:
            return GiveUp(f"its list can't be looked at: {self._reason}")
        if self._is_hopeless and not all(pending.tries for pending in self._pending.values()):
            return GiveUp(
                f"the circuit breaker stays open: {self._failed_starts} Start calls failed in a row, over several "
                f"minutes; the last one with {self._failure}"
            )
        if now < self._paused_until:
            return Wait(self._paused_until - now, self._reason)
        return None

    def _waiting(self, now: float) -> Wait | Look:
        """Return what to do while nothing can be started."""
        if not self._any_ready():
            until = self._held[0][0] if self._held else now + self.poll_interval
            return Wait(max(until - now, 0.0), "it is not known yet what became of earlier Start calls")
        expected = [end - self._looked_at for end in self._forecast.ends()]
        next_look = self._looked_at + self._pace.look_interval(self._occupied, self.poll_interval, expected)
        if now >= next_look:
            return Look()
        return Wait(next_look - now, f"{self._occupied} invocations of the model are in progress")

    @property
    def _is_hopeless(self) -> bool:
        """Whether the circuit breaker has let through all its probes in vain."""
        return self._probes > self._patience.probes

    def _resign(self) -> None:
        """Settle what is known not to run; the rest is looked for once more."""
        self._settle([_unanswered(one) for name, one in self._pending.items() if name not in self._uncertain])

    def listed(
        self, in_flight: int, known: Iterable[Invocation], began: float, in_progress: Collection[str] | None = None
    ) -> None:
        """Take in a look at the list.

        :param in_flight: how many invocations are in progress, whoever started them.
        :param known: which of ours it knows.
        :param began: when the look began.
        :param in_progress: the ARNs of those that are, or may be, in progress; None where that was not looked at.
        """
        self._observe_ends(in_flight, began)
        if in_progress is not None:
            self._forecast.in_progress(in_progress)
        self._in_flight, self._looked_at = in_flight, began
        self._forgotten = {one: until for one, until in self._forgotten.items() if until > began}
        self._failed_looks = 0
        # Those that are being started have an answer to come, or are asked for again when it is lost.
        if self._settle(one for one in known if one.request_id not in self._starting):
            # An answer was lost, but not the call: that is no reason to give up.
            self._succeeded()

    def ended(self, invocation_arn: str, seconds: float) -> None:
        """Take in how long an invocation took, whoever started it."""
        self._forecast.ended(invocation_arn, seconds)

    def distrust_list(self, until: float) -> None:
        """Start nothing before this time: there may be invocations that the list does not show yet."""
        self._pause(until, 0.0, "the list may not show yet what an earlier submitter has started")
        self._in_flight = None

    def list_failed(self, error: AsyncInvokeError, now: float) -> None:
        """Take in that the list could not be looked at; without it nothing is started."""
        if error.meaning is not Meaning.THROTTLED:
            self._failed_looks += 1
        self._list_refused = error.meaning is Meaning.REFUSED
        self._in_flight = None
        self._back_off(now, error)

    def starting(self, request_id: str) -> None:
        """Take in that a request is being started: it takes room in the window until it is said what came of it."""
        self._starting.add(request_id)

    def not_started(self, request_id: str) -> None:
        """Take in that no Start call was made of a request that was being started."""
        if request_id in self._pending:
            self._try_again(request_id)

    def started(self, invocation: Invocation, *, is_listed: bool = False, now: float | None = None) -> None:
        """Take in that Bedrock accepted a request.

        :param is_listed: whether the last look has counted it already.
        :param now: when that was, if it is to be expected when the invocation ends.
        """
        self._succeeded()
        pending = self._pending.get(invocation.request_id)
        if now is not None and pending is not None and invocation.invocation_arn is not None:
            self._forecast.started(invocation.invocation_arn, pending.candidate.priority, now)
        if self._in_flight is not None and not is_listed:
            self._in_flight += 1
        # Additive increase: one more a round of as many.
        self._limit += 1 / self._limit
        self._settle([invocation])

    def known(self, invocation: Invocation) -> None:
        """Take in that a request has an invocation already, without a look at the list."""
        self._settle([invocation])

    def refused(self, request_id: str, error: AsyncInvokeError, at: str | None = None) -> None:
        """Take in that a request can't be started at all; others can."""
        self._settle([Invocation(request_id, None, Outcome.REFUSED, at, error.code, error.message)])

    def hold(self, request_id: str, until: float) -> None:
        """Start a request only after a look that begins at this time or later: somebody else may have started it."""
        self._postpone(request_id, until, may_be_running=False)

    def start_failed(self, request_id: str, error: AsyncInvokeError, now: float, at: str | None = None) -> None:
        """Take in that a request was not accepted, or that nobody knows whether it was."""
        if error.meaning is Meaning.THROTTLED:
            self._try_again(request_id)
            self._throttled(now, error)
        elif error.meaning is Meaning.UNAUTHENTICATED:
            self._try_again(request_id)
            self._count_failure(now, error)
        elif error.meaning is Meaning.UNAVAILABLE:
            pending = self._pending[request_id]
            pending.tries, pending.error = pending.tries + 1, error
            self._count_failure(now, error)
            self._postpone(request_id, now + self._list_lag, may_be_running=True)
        elif error.code == "ConflictException" and not self._pending[request_id].conflicting:
            # Something was started under this token before, perhaps by us: the list shows it, if so.
            self._pending[request_id].conflicting = True
            self._postpone(request_id, now + self._list_lag, may_be_running=False)
        else:
            # That Bedrock has looked at the request shows that it is there.
            self._succeeded()
            self.refused(request_id, error, at)

    def _throttled(self, now: float, error: AsyncInvokeError) -> None:
        """Shrink the window, once for all calls that were under way: the others met the same limit."""
        if self._in_flight is not None:
            # Multiplicative decrease: what there was room for is the most that is known to fit.
            fitting = self._in_flight + len(self._uncertain)
            self._limit = max(1.0, _DECREASE * min(fitting, self._limit))
            self._in_flight = None
            self._back_off(now, error)
        elif error.retry_after is not None:
            self._pause(now, error.retry_after, str(error))

    def _try_again(self, request_id: str) -> None:
        self._starting.discard(request_id)
        self._queue(request_id)

    def _succeeded(self) -> None:
        self._failed_starts = self._probes = 0
        self._backoff = 0.0

    def _count_failure(self, now: float, error: AsyncInvokeError) -> None:
        """Take in a failure that is the service's: one alone says little, many in a row open the circuit breaker."""
        self._failed_starts += 1
        self._failure = str(error)
        patience = self._patience
        if self._failed_starts >= patience.failed_starts:
            pause = min(patience.breaker_seconds * 2**self._probes, 10 * patience.breaker_seconds)
            self._probes += 1
            self._pause(now, pause, f"the circuit breaker is open, {self._failed_starts} Start calls failed: {error}")
        elif self._failed_starts > 1 or error.meaning is Meaning.UNAUTHENTICATED:
            self._back_off(now, error)

    def _postpone(self, request_id: str, until: float, *, may_be_running: bool) -> None:
        pending = self._pending[request_id]
        pending.not_before = until
        self._starting.discard(request_id)
        if may_be_running:
            self._uncertain.add(request_id)
        heapq.heappush(self._held, (until, pending.number, request_id))

    def _release(self, now: float) -> bool:
        """Put back into the queue what has waited long enough; return whether a look has to come before that."""
        while self._held and self._held[0][0] <= now:
            not_before, _, request_id = self._held[0]
            pending = self._pending.get(request_id)
            if pending is not None and pending.not_before == not_before:
                if self._looked_at < not_before:
                    return True
                self._uncertain.discard(request_id)
                if pending.tries >= self._patience.tries or self._is_hopeless:
                    self._settle([_unanswered(pending)])
                else:
                    self._queue(request_id)
            heapq.heappop(self._held)
        return False

    def _queue(self, request_id: str) -> None:
        pending = self._pending[request_id]
        queue = self._ready.setdefault(pending.candidate.max_in_flight, [])
        heapq.heappush(queue, (-pending.candidate.priority, pending.number, request_id))

    def _best(self) -> str | None:
        """Return the request that is to be started first among those that there is room for."""
        occupied = self._occupied
        tops = []
        for most, queue in self._ready.items():
            while queue and not self._is_ready(queue[0]):
                heapq.heappop(queue)
            if queue and occupied < min(inf if most is None else most, self._limit):
                tops.append(queue[0])
        if tops and self._failed_starts > 1:
            # One at a time: what came of it decides on the next.
            return None if self._starting else self._probe()
        return min(tops)[2] if tops else None

    def _probe(self) -> str:
        """Return the request that tells most of the service: one that was not failed itself, and as unlike those as can be."""
        ready = [entry for queue in self._ready.values() for entry in queue if self._is_ready(entry)]
        return max(ready, key=lambda entry: (-self._pending[entry[2]].tries, entry))[2]

    def _is_current(self, entry: tuple[float, int, str]) -> bool:
        """Return whether an entry of a queue still stands for a request without an outcome."""
        pending = self._pending.get(entry[2])
        return pending is not None and pending.number == entry[1]

    def _is_ready(self, entry: tuple[float, int, str]) -> bool:
        return (
            self._is_current(entry)
            and self._pending[entry[2]].not_before <= self._looked_at
            and entry[2] not in self._starting
        )

    def _any_ready(self) -> bool:
        return any(self._ready.values())

    @property
    def _occupied(self) -> int:
        """How many invocations are in progress, those included of which it is not known."""
        return (self._in_flight or 0) + len(self._uncertain) + len(self._forgotten) + len(self._starting)

    def _observe_ends(self, in_flight: int, began: float) -> None:
        seconds = began - self._looked_at
        if self._in_flight is not None and 0 < seconds < inf:
            self._pace.observe(max(0, self._in_flight - in_flight), seconds)

    def _back_off(self, now: float, error: AsyncInvokeError) -> None:
        """Pause for as long as the service asks, or twice as long as the last time."""
        first = min(self.poll_interval, _FIRST_WAIT_SECONDS)
        self._backoff = min(max(2 * self._backoff, first), self._patience.longest_wait)
        self._pause(now, self._backoff if error.retry_after is None else error.retry_after, str(error))

    def _pause(self, now: float, seconds: float, reason: str) -> None:
        self._paused_until = now + seconds
        self._reason = reason

    def _settle(self, invocations: Iterable[Invocation]) -> bool:
        """Take in outcomes of requests that have none, and say whether there were any."""
        new = {one.request_id: one for one in invocations if one.request_id in self._pending}
        for request_id, one in new.items():
            del self._pending[request_id]
            self._uncertain.discard(request_id)
            self._starting.discard(request_id)
            self._outcomes[request_id] = one
        self._fresh += new.values()
        return bool(new)


def _unanswered(pending: _Pending) -> Invocation:
    error = pending.error
    code, message = ("", "") if error is None else (error.code, error.message)
    return Invocation(
        pending.candidate.request_id,
        None,
        Outcome.UNANSWERED,
        None,
        code,
        f"{pending.tries} Start calls had no answer to rely on, and the list shows no invocation; the last: {message}",
    )
