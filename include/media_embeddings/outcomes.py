"""Decides what became of a request: from what Bedrock answered at the start, how the invocation ended, and its message.

Bedrock documents no texts of its failure messages, so they are told apart by the words that they are likely to use; one
that says nothing known counts as the model's own failure and is tried again up to the library's limit of attempts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from media_embeddings.planning import Status
from media_embeddings.reasons import Reason, ReasonCode


@dataclass(frozen=True, slots=True)
class Invocation:
    """A line of ``invocations.jsonl``: what became of the attempt to start."""

    request_id: str
    invocation_arn: str | None
    outcome: str
    submitted_at: datetime | None
    error_code: str | None
    error_message: str | None
    lost_answers: int = 0
    """Calls of InvokeModel that may have been made and of which no answer is there."""

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Invocation:
        """Return the invocation of a JSON line."""
        return cls(
            request_id=value["request_id"],
            invocation_arn=value.get("invocation_arn"),
            outcome=value["outcome"],
            submitted_at=_time(value.get("submitted_at")),
            error_code=value.get("error_code"),
            error_message=value.get("error_message"),
            lost_answers=value.get("lost_answers", 0),
        )


@dataclass(frozen=True, slots=True)
class InvocationStatus:
    """A line of ``statuses.jsonl``: how an invocation ended, or where it stood at the deadline."""

    request_id: str
    invocation_arn: str
    status: str
    failure_message: str | None
    submitted_at: datetime | None
    ended_at: datetime | None
    output_uri: str

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> InvocationStatus:
        """Return the status of a JSON line."""
        return cls(
            request_id=value["request_id"],
            invocation_arn=value["invocation_arn"],
            status=value["status"],
            failure_message=value.get("failure_message"),
            submitted_at=_time(value.get("submitted_at")),
            ended_at=_time(value.get("ended_at")),
            output_uri=value["output_uri"],
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be written of a request that has no output to merge."""

    status: Status
    reason: Reason


COMPLETED, FAILED, IN_PROGRESS = "Completed", "Failed", "InProgress"
"""The statuses that GetAsyncInvoke documents;
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_GetAsyncInvoke.html"""


def verdict(invocation: Invocation | None, status: InvocationStatus | None) -> Verdict | None:
    """Return what became of a request, or None where its invocation is completed and its output is to be read."""
    if invocation is None:
        return _unfinished("it was not submitted before the start task ended")
    if invocation.outcome == "unanswered":
        # No invocation came of it: the same attempt may be made again, and costs nothing until it succeeds.
        return Verdict(
            Status.DEFERRED,
            Reason(ReasonCode.SERVICE_ERROR, f"{invocation.error_message}; the next run tries it under the same token"),
        )
    if invocation.invocation_arn is None:
        return Verdict(Status.FAILED, _refusal(invocation))
    if status is None:
        return _unfinished("it was submitted, but the wait task ended before its status was known")
    if status.status == COMPLETED:
        return None
    if status.status == FAILED:
        return Verdict(Status.FAILED, failure_reason(status.failure_message))
    if status.status == IN_PROGRESS:
        message = (
            f"invocation {status.invocation_arn} was still in progress at the library's deadline; the next run goes on "
            "with it, without submitting it again"
        )
        return Verdict(Status.DEFERRED, Reason(ReasonCode.DEADLINE_EXCEEDED, message))
    message = f"invocation {status.invocation_arn} had the unknown status {status.status!r} at the library's deadline"
    return Verdict(Status.FAILED, Reason(ReasonCode.UNKNOWN_STATUS, message))


def _unfinished(message: str) -> Verdict:
    return Verdict(
        Status.DEFERRED,
        Reason(ReasonCode.NOT_FINISHED, f"{message}; the next run goes on with it under the same token"),
    )


_REFUSALS: Mapping[str, ReasonCode] = {
    "SourceNotFound": ReasonCode.SOURCE_GONE,
    "SourceChanged": ReasonCode.CHANGED_DURING_RUN,
    "AccessDeniedException": ReasonCode.ACCESS_DENIED,
    "ConflictException": ReasonCode.INVALID_REQUEST,
    "ResourceNotFoundException": ReasonCode.SERVICE_ERROR,
}


def _refusal(invocation: Invocation) -> Reason:
    message = f"{invocation.error_code}: {invocation.error_message}"
    if invocation.error_code == "ValidationException":
        return Reason(_told_by_words(invocation.error_message, ReasonCode.INVALID_REQUEST), message)
    return Reason(_REFUSALS.get(invocation.error_code or "", ReasonCode.SERVICE_ERROR), message)


def failure_reason(message: str | None) -> Reason:
    """Return the reason for an invocation that ended ``Failed`` with this message."""
    if not message:
        return Reason(ReasonCode.MODEL_FAILED, "Bedrock gave no failure message")
    return Reason(_told_by_words(message, ReasonCode.MODEL_FAILED), message)


# The first code one of whose words occurs is taken, so the more particular stand first.
_WORDS: tuple[tuple[ReasonCode, tuple[str, ...]], ...] = (
    (ReasonCode.SERVICE_ERROR, ("internal", "try again", "unavailable", "throttl", "timed out", "timeout")),
    (
        ReasonCode.ACCESS_DENIED,
        ("access denied", "accessdenied", "not authorized", "permission", "forbidden"),
    ),
    (ReasonCode.SOURCE_GONE, ("does not exist", "not found", "no such key", "nosuchkey")),
    (ReasonCode.TOO_LONG, ("too long", "token limit", "tokens", "maximum duration", "duration exceeds")),
    (ReasonCode.TOO_LARGE, ("too large", "maximum size", "size exceeds", "exceeds the maximum file size")),
    (ReasonCode.UNSUPPORTED_MEDIA, ("unsupported", "not supported", "content is not", "wrong format", "codec")),
    (
        ReasonCode.CORRUPT,
        ("corrupt", "decode", "invalid data", "malformed", "truncated", "could not be read"),
    ),
)


def _told_by_words(message: str | None, otherwise: ReasonCode) -> ReasonCode:
    text = (message or "").lower()
    for code, words in _WORDS:
        if any(word in text for word in words):
            return code
    return otherwise


def _time(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)
