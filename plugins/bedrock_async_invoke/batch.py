"""What is to be submitted, and what became of it so far: the requests of a manifest, or one request."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from bedrock_async_invoke.clients import Clients
from bedrock_async_invoke.manifest import (
    INVOCATIONS,
    AsyncInvokeRequest,
    Invocation,
    Outcome,
    beside,
    format_lines,
    invocation_arn,
    read_invocations,
    read_requests,
)
from bedrock_async_invoke.submission import LIST_LAG_SECONDS

DAY_SECONDS = 86_400.0
LEASE_SECONDS = 60.0

_RECORD_EVERY_SECONDS = 10.0
_MOST_WRITES = 10
_WITHOUT_INVOCATION = frozenset({Outcome.REFUSED, Outcome.UNANSWERED})


@dataclass(frozen=True)
class Submission:
    """What is to be submitted, and how: the requests of a manifest, or one request."""

    model_id: str
    manifest_uri: str | None = None
    request: dict[str, Any] | None = None
    """The members of one :class:`~bedrock_async_invoke.manifest.AsyncInvokeRequest`."""
    max_in_flight: int | None = None
    kms_key_id: str | None = None
    bucket_owner: str | None = None
    tags: dict[str, str] | None = None
    check_source: bool = True
    adopt_since: float = field(default_factory=lambda: time.time() - DAY_SECONDS)
    """Seconds since the epoch; what was submitted earlier is not looked for, unless an intent says that it was."""
    keep_refusals_since: float | None = None
    """Seconds since the epoch; a request that was refused earlier is asked for again. None for all of them."""
    poll_interval: float = 15.0
    intents_uri: str | None = None
    """The prefix that an intent is created below before a request is started."""
    submitter_uri: str | None = None
    """The folder of the lease under which all processes submit, and of their tickets."""
    lease_seconds: float = LEASE_SECONDS
    list_lag_seconds: float = LIST_LAG_SECONDS
    """How long the list may take to show an invocation that was just accepted."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a trigger and a ticket."""
        return asdict(self)


class SubmissionFailedError(Exception):
    """Not everything could be submitted; the message says why, what is kept and what a retry will do."""


class Batch:
    """The requests of a submission, each with its outcome as soon as it has one.

    :raises SubmissionFailedError: where there is no manifest.
    """

    def __init__(self, clients: Clients, submission: Submission) -> None:
        self._clients = clients
        self.submission = submission
        self.requests: Mapping[str, AsyncInvokeRequest] = {one.request_id: one for one in self._read_requests()}
        self._outcomes: dict[str, Invocation] = {}
        self._etag: str | None = None
        self._written: int | None = None
        self._written_at = time.monotonic()
        self.reload()
        for one in self.requests.values():
            if one.finished_output_uri is not None:
                self.settle(self._reused(one.request_id, one.finished_output_uri))

    def _read_requests(self) -> Sequence[AsyncInvokeRequest]:
        manifest_uri = self.submission.manifest_uri
        if manifest_uri is None:
            return [AsyncInvokeRequest.from_dict(self.submission.request or {})]
        content = self._clients.read(manifest_uri)
        if content is None:
            raise SubmissionFailedError(
                f"There is no manifest {manifest_uri}, so nothing was submitted; run the task that writes it again"
            )
        return read_requests(content, manifest_uri)

    def _reused(self, request_id: str, output_uri: str) -> Invocation:
        folder = output_uri.rstrip("/")
        # It may be that of an earlier attempt, whose request id is the name of the folder around it.
        made_for, invocation_id = folder.split("/")[-2:]
        arn = invocation_arn(self._clients.region_name, made_for, invocation_id)
        return Invocation(request_id, arn, Outcome.REUSED, output_uri=folder)

    @property
    def outcomes(self) -> Mapping[str, Invocation]:
        """Return what became of the requests so far, by request id."""
        return self._outcomes

    @property
    def pending(self) -> list[AsyncInvokeRequest]:
        """Return the requests without an outcome, in the manifest's order."""
        return [one for request_id, one in self.requests.items() if request_id not in self._outcomes]

    @property
    def is_done(self) -> bool:
        """Return whether every request has an outcome."""
        return len(self._outcomes) == len(self.requests)

    def settle(self, invocation: Invocation) -> None:
        """Take in the outcome of a request; the first one stands."""
        if invocation.request_id in self.requests:
            self._outcomes.setdefault(invocation.request_id, invocation)

    def reload(self) -> None:
        """Take over what is on record, by whomever it was written."""
        if self.invocations_uri is None:
            return
        found = self._clients.read_object(self.invocations_uri)
        if found is None:
            self._etag = None
            return
        self._etag = found.etag
        recorded = read_invocations(found.content, self.invocations_uri)
        for one in recorded:
            if not self._is_asked_again(one):
                self.settle(one)
        if self._outcomes.keys() == {one.request_id for one in recorded}:
            self._written = len(recorded)

    def _is_asked_again(self, recorded: Invocation) -> bool:
        # That costs nothing, and a missing permission may have been given since.
        since = self.submission.keep_refusals_since
        at = recorded.submitted_at
        return recorded.outcome in _WITHOUT_INVOCATION and (
            since is None or at is None or datetime.fromisoformat(at).timestamp() < since
        )

    @property
    def invocations_uri(self) -> str | None:
        """Return where the outcomes are written; None where there is no manifest to write them beside."""
        manifest_uri = self.submission.manifest_uri
        return None if manifest_uri is None else beside(manifest_uri, INVOCATIONS)

    def record(self, *, at_once: bool = True) -> None:
        """Write the outcomes so far, unless that is done already; if not at once, then only from time to time.

        What another process has written meanwhile is kept.
        """
        if self.invocations_uri is None or self._written == len(self._outcomes):
            return
        if not at_once and time.monotonic() - self._written_at < _RECORD_EVERY_SECONDS:
            return
        for _ in range(_MOST_WRITES):
            content = format_lines(self._outcomes[one] for one in self.requests if one in self._outcomes)
            etag = self._clients.write_if(self.invocations_uri, content, etag=self._etag)
            if etag is not None:
                self._etag, self._written, self._written_at = etag, len(self._outcomes), time.monotonic()
                return
            self.reload()
        raise SubmissionFailedError(
            f"{self.invocations_uri} was changed by others {_MOST_WRITES} times in a row; what was submitted is found again "
            "by a retry"
        )

    @property
    def output_prefix(self) -> str:
        """Return the folder that the outputs lie in."""
        return next((one.output_uri.rstrip("/").rpartition("/")[0] for one in self.requests.values()), "")

    @property
    def kept(self) -> str:
        """Return what to tell people when submitting ends early."""
        return (
            f"{len(self._outcomes)} of {len(self.requests)} requests have an outcome"
            + (f", kept in {self.invocations_uri}" if self.invocations_uri else "")
            + "; a retry goes on with the others and submits none of them twice: what Bedrock has under their tokens it adopts"
        )

    def summary(self) -> dict[str, Any]:
        """Return counts, small enough for an XCom; of one request, what became of it."""
        invocations = self._outcomes.values()
        if self.submission.manifest_uri is None:
            return next(
                {"invocation_arn": one.invocation_arn, "error_code": one.error_code, "error_message": one.error_message}
                for one in invocations
            )
        outcomes = [one.outcome for one in invocations]
        return {
            "invocations_uri": self.invocations_uri,
            "requests": len(self.requests),
            **{str(outcome): outcomes.count(outcome) for outcome in Outcome},
        }
