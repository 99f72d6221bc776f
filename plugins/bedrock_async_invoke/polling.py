"""Decides how to find out what became of invocations. Pure: it is told what was seen, and says where to look next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bedrock_async_invoke.manifest import Invocation, InvocationStatus, output_folder

COMPLETED, FAILED, IN_PROGRESS = "Completed", "Failed", "InProgress"
TERMINAL = frozenset({COMPLETED, FAILED})
"""https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_GetAsyncInvoke.html"""


@dataclass(frozen=True, slots=True)
class ListSince:
    """Look at the list, from this time on, until all of ``wanted`` were seen or the list ends."""

    submitted_after: str | None
    """ISO 8601; None for everything there is."""
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
    """Bedrock could not be asked too many times in a row."""

    reason: str


Decision = ListSince | GetEach | Wait | Done | GiveUp


@dataclass
class StatusPoller:
    """Follows invocations until each has ended or the deadline is over.

    :param invocations: those that were accepted.
    :param poll_interval: seconds between two looks.
    :param deadline: seconds since the epoch.
    :param patience: how many looks at the list may miss an invocation before it is asked for by itself.
    :param max_failures: how many looks in a row may fail.
    """

    invocations: Iterable[Invocation]
    poll_interval: float
    deadline: float
    patience: int = 2
    max_failures: int = 10
    _by_arn: dict[str, Invocation] = field(init=False)
    _statuses: dict[str, InvocationStatus] = field(init=False, default_factory=dict)
    _misses: dict[str, int] = field(init=False, default_factory=dict)
    _failures: int = field(init=False, default=0)
    _failure: str = field(init=False, default="")
    _looked: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        """Index the invocations by ARN."""
        self._by_arn = {one.invocation_arn: one for one in self.invocations if one.invocation_arn is not None}

    @property
    def pending(self) -> frozenset[str]:
        """Return the ARNs that are not known to have ended."""
        return frozenset(
            arn for arn in self._by_arn if arn not in self._statuses or self._statuses[arn].status not in TERMINAL
        )

    @property
    def statuses(self) -> list[InvocationStatus]:
        """Return the last status of every invocation; one that was never seen counts as in progress."""
        return [
            self._statuses.get(arn) or _status_of(one, {"status": IN_PROGRESS}) for arn, one in self._by_arn.items()
        ]

    def decide(self, now: float) -> Decision:
        """Return what to do next, at ``now`` seconds since the epoch."""
        pending = self.pending
        if not pending:
            return Done(deadline_exceeded=False)
        if self._failures >= self.max_failures:
            return GiveUp(self._failure)
        if not self._looked:
            self._looked = True
            return ListSince(self._oldest(pending), pending)
        # Those that the list shows are never asked for one by one.
        missed = tuple(sorted(arn for arn in pending if self._misses.get(arn, 0) >= self.patience))
        if missed:
            for arn in missed:
                self._misses[arn] = 0
            return GetEach(missed)
        if now >= self.deadline:
            return Done(deadline_exceeded=True)
        self._looked = False
        return Wait(max(0.0, min(self.poll_interval, self.deadline - now)))

    def listed(self, summaries: Iterable[Mapping[str, Any]]) -> None:
        """Take in a look at the list: the summaries of any invocations, ours among them."""
        self._failures = 0
        seen = self._take(summaries)
        for arn in self.pending - seen:
            self._misses[arn] = self._misses.get(arn, 0) + 1

    def got(self, answers: Iterable[Mapping[str, Any]]) -> None:
        """Take in answers of GetAsyncInvoke."""
        self._take(answers)

    def failed(self, error: Exception) -> None:
        """Take in that Bedrock could not be asked."""
        self._failures += 1
        self._failure = str(error)

    def _take(self, answers: Iterable[Mapping[str, Any]]) -> frozenset[str]:
        seen = set()
        for answer in answers:
            arn = answer["invocationArn"]
            if arn not in self._by_arn:
                continue
            seen.add(arn)
            known = self._statuses.get(arn)
            # A page that lags behind must not take back what was already seen to have ended.
            if known is None or known.status not in TERMINAL:
                self._statuses[arn] = _status_of(self._by_arn[arn], answer)
            self._misses[arn] = 0
        return frozenset(seen)

    def _oldest(self, pending: frozenset[str]) -> str | None:
        times = [self._by_arn[arn].submitted_at for arn in pending]
        known = [time for time in times if time is not None]
        return min(known) if len(known) == len(times) else None


def _status_of(invocation: Invocation, answer: Mapping[str, Any]) -> InvocationStatus:
    arn = invocation.invocation_arn or ""
    output = answer.get("outputDataConfig", {}).get("s3OutputDataConfig", {}).get("s3Uri", "")
    return InvocationStatus(
        request_id=invocation.request_id,
        invocation_arn=arn,
        status=answer.get("status") or IN_PROGRESS,
        failure_message=answer.get("failureMessage"),
        submitted_at=_text(answer.get("submitTime")) or invocation.submitted_at,
        ended_at=_text(answer.get("endTime")),
        output_uri=output_folder(output, arn) if output else "",
    )


def _text(time: Any) -> str | None:
    return None if time is None else str(time.isoformat())
