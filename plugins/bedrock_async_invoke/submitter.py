"""Makes the calls that the submission window decides on. Blocking: for a worker, or for a thread of the triggerer."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from bedrock_async_invoke.clients import Clients
from bedrock_async_invoke.errors import AsyncInvokeError, Meaning
from bedrock_async_invoke.manifest import (
    INVOCATIONS,
    AsyncInvokeRequest,
    Invocation,
    Outcome,
    beside,
    format_lines,
    read_invocations,
    read_requests,
)
from bedrock_async_invoke.polling import IN_PROGRESS
from bedrock_async_invoke.submission import (
    LIST_LAG_SECONDS,
    Decision,
    Done,
    GiveUp,
    Look,
    Start,
    SubmissionWindow,
    Wait,
)

logger = logging.getLogger(__name__)

DAY_SECONDS = 86_400.0

_LIST_LAG = timedelta(seconds=LIST_LAG_SECONDS)
# How far this machine's clock may be off from Bedrock's.
_CLOCK_MARGIN = timedelta(minutes=5)
_RECORD_EVERY_SECONDS = 10.0
_JITTER = 0.2


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
    """Seconds since the epoch; what was submitted earlier is not looked for."""
    poll_interval: float = 15.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a trigger."""
        return asdict(self)


class SubmissionFailedError(Exception):
    """Not everything could be submitted; the message says why, what is kept and what a retry will do."""


class Submitter:
    """Starts requests through the window.

    Between any two of its calls the process may end: what was started is found again in ``invocations.jsonl`` or, by its
    token, in Bedrock's list.

    :param try_refused_again: whether to ask again for requests that are on record as refused. That costs nothing, and a
        missing permission may have been given since.
    :raises SubmissionFailedError: where there is no manifest.
    """

    def __init__(self, clients: Clients, submission: Submission, *, try_refused_again: bool = True) -> None:
        self._clients = clients
        self._submission = submission
        self._requests: Mapping[str, AsyncInvokeRequest] = {one.request_id: one for one in self._read_requests()}
        self._window = SubmissionWindow(
            self._requests, max_in_flight=submission.max_in_flight, poll_interval=submission.poll_interval
        )
        recorded = self._recorded()
        self._window.remember(one for one in recorded if not (try_refused_again and one.outcome is Outcome.REFUSED))
        # Started lately and not seen in the list, which lags: they take room in the window all the same.
        self._unlisted: dict[str, datetime] = {
            one.invocation_arn: datetime.fromisoformat(one.submitted_at)
            for one in recorded
            if one.outcome is Outcome.STARTED and one.invocation_arn and one.submitted_at
        }
        # Since when there may be invocations under our tokens that are not known here; None where there can't be any.
        self._unknown_since: datetime | None = self._adopt_since
        self._written: int | None = None
        self._written_at = time.monotonic()
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Return whether it was told to stop."""
        return self._stopped

    def stop(self) -> None:
        """Let a step that runs in another thread end after the call that it is making, and start nothing more."""
        self._stopped = True

    def step(self) -> float | None:
        """Do what can be done now; return how many seconds to wait before the next step, or None when all is done.

        What became of the requests is on record whenever it returns or raises.

        :raises SubmissionFailedError: when Bedrock could not be reached too many times in a row, or it was told to stop.
        """
        try:
            while True:
                if self._stopped:
                    raise SubmissionFailedError(f"Submitting was stopped. {self._kept}")
                decision = self._window.decide(time.monotonic())
                if isinstance(decision, Done):
                    return None
                if isinstance(decision, GiveUp):
                    raise SubmissionFailedError(f"Bedrock could not be relied on: {decision.reason}. {self._kept}")
                if isinstance(decision, Wait):
                    logger.info("%d requests wait %.0f s: %s", self._window.pending, decision.seconds, decision.reason)
                    return decision.seconds * random.uniform(1, 1 + _JITTER)  # noqa: S311 - to spread the calls
                self._act(decision)
                # A process that is killed outright leaves what it wrote last; the list tells the rest.
                if time.monotonic() - self._written_at > _RECORD_EVERY_SECONDS:
                    self.record()
        finally:
            self.record()

    @property
    def _kept(self) -> str:
        return (
            f"{len(self._window.outcomes)} of {len(self._requests)} requests have an outcome"
            + (f", kept in {self.invocations_uri}" if self.invocations_uri else "")
            + "; a retry goes on with the others and submits none of them twice: what Bedrock has under their tokens it adopts"
        )

    def _act(self, decision: Decision) -> None:
        if isinstance(decision, Look):
            self._look()
        elif isinstance(decision, Start):
            self._start(self._requests[decision.request_id])

    @property
    def invocations_uri(self) -> str | None:
        """Return where the outcomes are written; None where there is no manifest to write them beside."""
        manifest_uri = self._submission.manifest_uri
        return None if manifest_uri is None else beside(manifest_uri, INVOCATIONS)

    def record(self) -> None:
        """Write what became of the requests so far, unless that is written already."""
        outcomes = list(self._window.outcomes.values())
        if self.invocations_uri is not None and self._written != len(outcomes):
            self._clients.write(self.invocations_uri, format_lines(outcomes))
            self._written = len(outcomes)
        self._written_at = time.monotonic()

    @property
    def output_prefix(self) -> str:
        """Return the folder that the outputs lie in."""
        return next((one.output_uri.rstrip("/").rpartition("/")[0] for one in self._requests.values()), "")

    @property
    def invocations(self) -> Mapping[str, Invocation]:
        """Return what became of the requests so far, by request id."""
        return self._window.outcomes

    def summary(self) -> dict[str, Any]:
        """Return counts, small enough for an XCom; of one request, what became of it."""
        invocations = self._window.outcomes.values()
        if self._submission.manifest_uri is None:
            return next(
                {"invocation_arn": one.invocation_arn, "error_code": one.error_code, "error_message": one.error_message}
                for one in invocations
            )
        outcomes = [one.outcome for one in invocations]
        return {
            "invocations_uri": self.invocations_uri,
            "requests": len(self._requests),
            **{str(outcome): outcomes.count(outcome) for outcome in Outcome},
        }

    def _read_requests(self) -> Sequence[AsyncInvokeRequest]:
        submission = self._submission
        if submission.manifest_uri is None:
            return [AsyncInvokeRequest.from_dict(submission.request or {})]
        content = self._clients.read(submission.manifest_uri)
        if content is None:
            raise SubmissionFailedError(
                f"There is no manifest {submission.manifest_uri}, so nothing was submitted; run the task that writes it again"
            )
        return read_requests(content, submission.manifest_uri)

    def _recorded(self) -> Sequence[Invocation]:
        if self.invocations_uri is None:
            return []
        content = self._clients.read(self.invocations_uri)
        return [] if content is None else read_invocations(content, self.invocations_uri)

    @property
    def _adopt_since(self) -> datetime:
        return datetime.fromtimestamp(self._submission.adopt_since, UTC)

    def _look(self) -> None:
        """Count what is in progress, and adopt what is ours and was not known to be."""
        lagging = _now() - _LIST_LAG
        self._unlisted = {arn: at for arn, at in self._unlisted.items() if at > lagging}
        try:
            in_progress = [] if self._submission.max_in_flight is None else self._summaries(status=IN_PROGRESS)
            since = self._look_since
            found = in_progress + ([] if since is None else self._summaries(submitted_after=since))
        except AsyncInvokeError as error:
            logger.warning("looking at the list of invocations failed: %s", error)
            self._window.list_failed(error, time.monotonic())
            return
        self._unknown_since = None
        # One that was listed once, whatever its status, is counted by the list from then on.
        for one in found:
            self._unlisted.pop(one["invocationArn"], None)
        # In either of the two looks: what the first did not show yet may be in the second.
        counted = {one["invocationArn"] for one in found if self._takes_room(one)}
        self._window.listed(len(counted) + len(self._unlisted), self._adoptable(found))

    @property
    def _look_since(self) -> datetime | None:
        """Return since when submissions are to be looked at, whatever their status; None if that tells nothing."""
        known = [] if self._unknown_since is None else [self._unknown_since]
        if self._unlisted and self._submission.max_in_flight is not None:
            known.append(min(self._unlisted.values()) - _CLOCK_MARGIN)
        return min(known, default=None)

    def _summaries(self, **condition: Any) -> list[dict[str, Any]]:
        return [one for page in self._clients.bedrock.list_async_invokes(**condition) for one in page]

    def _takes_room(self, summary: Mapping[str, Any]) -> bool:
        # The model may be named by its id or by its ARN; Bedrock answers with the ARN.
        model_id = str(summary.get("modelArn", "")).rpartition("/")[2]
        return (
            summary.get("status", IN_PROGRESS) == IN_PROGRESS
            and model_id == self._submission.model_id.rpartition("/")[2]
        )

    def _adoptable(self, summaries: Sequence[Mapping[str, Any]]) -> list[Invocation]:
        return [
            Invocation(
                request_id=one["clientRequestToken"],
                invocation_arn=one["invocationArn"],
                outcome=Outcome.ADOPTED,
                submitted_at=one["submitTime"].astimezone(UTC).isoformat(),
            )
            for one in summaries
            if one.get("clientRequestToken") in self._requests
        ]

    def _start(self, request: AsyncInvokeRequest) -> None:
        submission = self._submission
        before = _now()
        try:
            self._check_source(request)
            arn = self._clients.bedrock.start_async_invoke(
                model_id=submission.model_id,
                model_input=request.model_input,
                output_s3_uri=request.output_uri,
                client_request_token=request.request_id,
                kms_key_id=submission.kms_key_id,
                bucket_owner=submission.bucket_owner,
                tags=submission.tags,
            )
        except AsyncInvokeError as error:
            self._failed(request, error, before)
            return
        self._unlisted[arn] = before
        self._window.started(Invocation(request.request_id, arn, Outcome.STARTED, before.isoformat()))

    def _failed(self, request: AsyncInvokeRequest, error: AsyncInvokeError, before: datetime) -> None:
        self._window.start_failed(request.request_id, error, time.monotonic())
        if error.meaning is Meaning.UNAVAILABLE:
            logger.warning("no answer to rely on for %s: %s", request.request_id, error)
            self._unknown_since = min(before - _CLOCK_MARGIN, self._unknown_since or before)
        elif error.meaning is Meaning.REFUSED:
            logger.warning("%s is refused: %s", request.source_uri or request.request_id, error)
            if request.request_id not in self._window.outcomes:
                self._unknown_since = self._adopt_since

    def _check_source(self, request: AsyncInvokeRequest) -> None:
        """Refuse a request whose object is no longer the one that it was made from: Bedrock takes no version id."""
        uri, etag = request.source_uri, request.source_etag
        if not self._submission.check_source or uri is None:
            return
        found = self._clients.etag(uri)
        if found is None:
            raise AsyncInvokeError(Meaning.REFUSED, "SourceNotFound", f"{uri} was deleted before it was submitted")
        if etag is not None and found != etag:
            raise AsyncInvokeError(
                Meaning.REFUSED,
                "SourceChanged",
                f"{uri} was replaced before it was submitted (ETag {etag}, now {found})",
            )


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def submit_blocking(submitter: Submitter) -> None:
    """Submit everything, waiting in this thread while the window is full.

    :raises SubmissionFailedError: as :meth:`Submitter.step`.
    """
    while (seconds := submitter.step()) is not None:
        until = time.monotonic() + seconds
        # In short pieces: Airflow asks a task to stop by a signal, after which a sleep goes on.
        while not submitter.stopped and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 1.0))
