"""Decides how to find out what became of invocations. Pure: it is told what was seen, and says where to look next.

A status that was seen to be final is never taken back, and the deadline is a time of the calendar, not a number of looks: a
restart neither extends nor shortens it. It ends the wait after a look that succeeded, or when looks have failed for long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from bedrock_async_invoke.bedrock_clock import CLOCK_MARGIN, RESOLUTION
from bedrock_async_invoke.errors import AsyncInvokeError, Meaning
from bedrock_async_invoke.manifest import Invocation, InvocationStatus, output_folder

COMPLETED, FAILED, IN_PROGRESS = "Completed", "Failed", "InProgress"
NOT_FOUND = "NotFound"
"""No status of Bedrock's: at the deadline it knew nothing of the invocation, neither in its list nor by its ARN."""
TERMINAL = frozenset({COMPLETED, FAILED})
"""https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_GetAsyncInvoke.html"""


@dataclass(frozen=True, slots=True)
class ListSince:
    """Look at the list, from this time on, until all of ``wanted`` were seen or the list ends."""

    submitted_after: datetime | None
    """Before the oldest submission among ``wanted``, by Bedrock's clock; None for everything there is."""
    wanted: frozenset[str]
    """ARNs that are not known to have ended."""


@dataclass(frozen=True, slots=True)
class GetEach:
    """Ask for each of these ARNs: the list does not show them."""

    invocation_arns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Done:
    """All have ended, or the deadline is over."""

    deadline_exceeded: bool


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Bedrock could not be asked too many times in a row, or refuses to be asked."""

    reason: str


Decision = ListSince | GetEach | Wait | Done | GiveUp


@dataclass
class StatusPoller:
    """Follows invocations until each has ended or the deadline is over.

    :param invocations: those to follow; one without an ARN was not accepted and is left out.
    :param poll_interval: seconds between two looks.
    :param timeout: seconds from the last submission to the deadline.
    :param waiting_since: seconds since the epoch; the deadline counts from here while no submission's time is known.
    :param use_list: whether to look at the list; if not, each invocation is asked for by itself.
    :param patience: how many looks at the list may miss an invocation before it is asked for by itself.
    :param max_failures: how many looks in a row may fail; being throttled is no failure.
    """

    invocations: Iterable[Invocation]
    poll_interval: float
    timeout: float
    waiting_since: float
    use_list: bool = True
    patience: int = 2
    max_failures: int = 10
    _by_arn: dict[str, Invocation] = field(init=False)
    _statuses: dict[str, InvocationStatus] = field(init=False, default_factory=dict)
    _pending: set[str] = field(init=False)
    _misses: dict[str, int] = field(init=False, default_factory=dict)
    _remarks: dict[str, str] = field(init=False, default_factory=dict)
    _not_found: set[str] = field(init=False, default_factory=set)
    _looked: bool = field(init=False, default=False)
    _look_failed: bool = field(init=False, default=False)
    _look_age: float = field(init=False, default=0.0)
    _failures: int = field(init=False, default=0)
    _late_looks: int = field(init=False, default=0)
    _slowdown: int = field(init=False, default=0)
    _failure: str = field(init=False, default="")
    _refused: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        """Index the invocations by ARN."""
        self._by_arn = {one.invocation_arn: one for one in self.invocations if one.invocation_arn is not None}
        self._pending = set(self._by_arn)

    @property
    def pending(self) -> frozenset[str]:
        """Return the ARNs that are not known to have ended."""
        return frozenset(self._pending)

    @property
    def statuses(self) -> list[InvocationStatus]:
        """Return the last status of every invocation; one that was never seen counts as in progress."""
        found = []
        for arn, one in self._by_arn.items():
            status = self._statuses.get(arn) or _status_of(one, {})
            if arn in self._pending and status.failure_message is None:
                status = replace(status, failure_message=self._remarks.get(arn))
            if arn in self._pending & self._not_found:
                status = replace(status, status=NOT_FOUND)
            found.append(status)
        return found

    @property
    def deadline(self) -> float:
        """Return when the wait ends at the latest, in seconds since the epoch."""
        known = [one.submitted_at for one in self._by_arn.values()]
        known += [one.submitted_at for one in self._statuses.values()]
        submitted = [_time(each).timestamp() for each in known if each is not None]
        return max(submitted, default=self.waiting_since) + self.timeout

    def decide(self, now: float) -> Decision:
        """Return what to do next, at ``now`` seconds since the epoch."""
        if not self._pending:
            return Done(deadline_exceeded=False)
        if self._refused or self._failures >= self.max_failures:
            return GiveUp(self._failure)
        if not self._looked:
            self._looked, self._look_failed = True, False
            if self.use_list:
                return ListSince(self._oldest(), self.pending)
            return GetEach(tuple(sorted(self._pending)))
        # Those that the list shows are never asked for one by one.
        # At the deadline there is no later look that could show them.
        deadline = self.deadline
        patience = self.patience if now < deadline else 1
        missed = tuple(sorted(arn for arn in self._pending if self._misses.get(arn, 0) >= patience))
        if missed and not self._look_failed:
            for arn in missed:
                self._misses[arn] = 0
            return GetEach(missed)
        # A look that fails is made again even then, but not for ever.
        if now >= deadline and (not self._look_failed or self._late_looks >= self.max_failures):
            return Done(deadline_exceeded=True)
        self._late_looks += now >= deadline
        self._looked = False
        seconds = max(0.0, self.poll_interval * (1 + self._slowdown) - self._look_age)
        return Wait(min(seconds, deadline - now) if now < deadline else seconds)

    def listed(self, summaries: Iterable[Mapping[str, Any]], age_seconds: float = 0.0) -> None:
        """Take in a look at the list: the summaries of any invocations, ours among them.

        :param age_seconds: how long ago the look was had: the next one is due so much earlier.
        """
        self._failures = self._slowdown = 0
        self._look_age = age_seconds
        seen = self._take(summaries)
        for arn in self._pending - seen:
            self._misses[arn] = self._misses.get(arn, 0) + 1

    def got(self, answers: Iterable[Mapping[str, Any]], refusals: Mapping[str, AsyncInvokeError] | None = None) -> None:
        """Take in answers of GetAsyncInvoke, and which ARNs it refused to speak of."""
        seen = self._take(answers)
        if seen and not self.use_list:
            self._failures = self._slowdown = 0
        for arn, error in (refusals or {}).items():
            self._remarks[arn] = f"GetAsyncInvoke answers {error}"
            # Which of the two it answers for an unknown ARN is not documented.
            if error.code in {"ValidationException", "ResourceNotFoundException"}:
                self._not_found.add(arn)
            if not self.use_list:
                self._refused, self._failure = True, str(error)

    def failed(self, error: AsyncInvokeError) -> None:
        """Take in that Bedrock could not be asked."""
        self._look_failed = True
        self._look_age = 0.0
        self._failure = str(error)
        self._slowdown = min(self._slowdown + 1, 3)
        self._refused = error.meaning is Meaning.REFUSED
        if error.meaning is not Meaning.THROTTLED:
            self._failures += 1

    def _take(self, answers: Iterable[Mapping[str, Any]]) -> frozenset[str]:
        seen = set()
        for answer in answers:
            arn = answer["invocationArn"]
            if arn not in self._by_arn:
                continue
            seen.add(arn)
            self._not_found.discard(arn)
            # A page that lags behind must not take back what was already seen to have ended.
            if arn in self._pending:
                status = self._statuses[arn] = _status_of(self._by_arn[arn], answer)
                if status.status in TERMINAL:
                    self._pending.discard(arn)
            self._misses[arn] = 0
        return frozenset(seen)

    def _oldest(self) -> datetime | None:
        times = [self._submitted_after(arn) for arn in self._pending]
        known = [each for each in times if each is not None]
        return min(known) if len(known) == len(times) else None

    def _submitted_after(self, arn: str) -> datetime | None:
        """Return a time before an invocation was submitted: by Bedrock's clock, once it has said so."""
        if (seen := self._statuses.get(arn)) is not None and seen.submitted_at is not None:
            return _time(seen.submitted_at) - RESOLUTION
        submitted_at = self._by_arn[arn].submitted_at
        return None if submitted_at is None else _time(submitted_at) - CLOCK_MARGIN


def _status_of(invocation: Invocation, answer: Mapping[str, Any]) -> InvocationStatus:
    arn = invocation.invocation_arn or ""
    output = answer.get("outputDataConfig", {}).get("s3OutputDataConfig", {}).get("s3Uri", "")
    return InvocationStatus(
        # One that is followed by its ARN alone tells its token by itself.
        request_id=invocation.request_id or answer.get("clientRequestToken", ""),
        invocation_arn=arn,
        status=answer.get("status") or IN_PROGRESS,
        failure_message=answer.get("failureMessage"),
        submitted_at=_text(answer.get("submitTime")) or invocation.submitted_at,
        ended_at=_text(answer.get("endTime")),
        output_uri=output_folder(output, arn) if output else "",
    )


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat()
