"""Makes the calls that the submission window decides on. Blocking: for a worker, or for a thread of the triggerer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
    parse_lines,
)
from bedrock_async_invoke.polling import IN_PROGRESS
from bedrock_async_invoke.submission import Decision, Done, GiveUp, Look, Start, SubmissionWindow, Wait

logger = logging.getLogger(__name__)

# How long the list may take to show an invocation that was just accepted; AWS states no figure.
_LIST_LAG = timedelta(seconds=10)
# How far this machine's clock may be off from Bedrock's.
_CLOCK_MARGIN = timedelta(minutes=5)


@dataclass(frozen=True)
class Submission:
    """What is to be submitted, and how."""

    model_id: str
    manifest_uri: str
    max_in_flight: int | None = None
    kms_key_id: str | None = None
    bucket_owner: str | None = None
    tags: dict[str, str] | None = None
    check_source: bool = True
    adopt_lookback_seconds: float = 86_400.0
    poll_interval: float = 15.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a trigger."""
        return asdict(self)


class SubmissionFailedError(Exception):
    """Bedrock could not be reached; what was started is written beside the manifest."""


class Submitter:
    """Starts the requests of a manifest through the window.

    Between any two calls of :meth:`step` the process may end: what was started is found again in ``invocations.jsonl`` or,
    by its token, in Bedrock's list.
    """

    def __init__(self, clients: Clients, submission: Submission) -> None:
        self._clients = clients
        self._submission = submission
        content = clients.read(submission.manifest_uri)
        if content is None:
            raise FileNotFoundError(
                f"there is no manifest {submission.manifest_uri}; run the task that writes it again"
            )
        requests = [AsyncInvokeRequest.from_dict(line) for line in parse_lines(content)]
        self._requests: Mapping[str, AsyncInvokeRequest] = {one.request_id: one for one in requests}
        self._window = SubmissionWindow(
            self._requests, max_in_flight=submission.max_in_flight, poll_interval=submission.poll_interval
        )
        self._window.remember(self._recorded())
        self._started_at: dict[str, datetime] = {}
        # Where to look for invocations that may exist without being known here; None where there can't be any.
        self._unknown_since: datetime | None = datetime.now(UTC) - timedelta(seconds=submission.adopt_lookback_seconds)

    def step(self) -> float | None:
        """Do what can be done now; return how many seconds to wait before the next step, or None when all is done.

        :raises SubmissionFailedError: when Bedrock could not be reached too many times in a row.
        """
        try:
            while True:
                decision = self._window.decide()
                if isinstance(decision, (Done, Wait, GiveUp)):
                    return self._pause(decision)
                self._act(decision)
        finally:
            self.record()

    def _pause(self, decision: Done | Wait | GiveUp) -> float | None:
        if isinstance(decision, GiveUp):
            raise SubmissionFailedError(
                f"Bedrock could not be reached: {decision.reason}. {len(self._window.outcomes)} of {len(self._requests)} "
                f"requests have an outcome, kept in {self.invocations_uri}; a retry goes on with the others and submits "
                "none of them twice"
            )
        if isinstance(decision, Wait):
            logger.info("%d requests wait: %s", self._window.pending, decision.reason)
            return decision.seconds
        return None

    def _act(self, decision: Decision) -> None:
        if isinstance(decision, Look):
            self._look()
        elif isinstance(decision, Start):
            self._start(self._requests[decision.request_id])

    @property
    def invocations_uri(self) -> str:
        """Return where the outcomes are written."""
        return beside(self._submission.manifest_uri, INVOCATIONS)

    def record(self) -> None:
        """Write what became of the requests so far."""
        self._clients.write(self.invocations_uri, format_lines(self._window.outcomes.values()))

    @property
    def output_prefix(self) -> str:
        """Return the folder that the outputs lie in."""
        return next((one.output_uri.rpartition("/")[0] for one in self._requests.values()), "")

    def summary(self) -> dict[str, Any]:
        """Return counts, small enough for an XCom."""
        outcomes = [one.outcome for one in self._window.outcomes.values()]
        return {
            "invocations_uri": self.invocations_uri,
            "requests": len(self._requests),
            **{str(outcome): outcomes.count(outcome) for outcome in Outcome},
        }

    def _recorded(self) -> Sequence[Invocation]:
        content = self._clients.read(self.invocations_uri)
        return [] if content is None else [Invocation.from_dict(line) for line in parse_lines(content)]

    def _look(self) -> None:
        """Count what is in progress, and adopt what is ours and was not known to be."""
        now = datetime.now(UTC)
        try:
            in_progress = self._summaries(status=IN_PROGRESS)
            found = in_progress
            if self._unknown_since is not None:
                found = in_progress + self._summaries(submitted_after=self._unknown_since)
        except AsyncInvokeError as error:
            if error.meaning is Meaning.REFUSED:
                raise SubmissionFailedError(
                    f"ListAsyncInvokes is refused ({error}), so that nothing can be submitted safely; allow "
                    "bedrock:ListAsyncInvokes. Nothing was lost"
                ) from error
            self._window.list_failed(error)
            return
        self._unknown_since = None
        counted = {one["invocationArn"] for one in in_progress if self._is_of_the_model(one)}
        lagging = {arn for arn, started in self._started_at.items() if now - started < _LIST_LAG}
        self._window.listed(len(counted | lagging), self._adoptable(found))

    def _summaries(self, **condition: Any) -> list[dict[str, Any]]:
        return [one for page in self._clients.bedrock.list_async_invokes(**condition) for one in page]

    def _is_of_the_model(self, summary: Mapping[str, Any]) -> bool:
        return str(summary.get("modelArn", "")).endswith(f"/{self._submission.model_id}")

    def _adoptable(self, summaries: Sequence[Mapping[str, Any]]) -> list[Invocation]:
        return [
            Invocation(
                request_id=one["clientRequestToken"],
                invocation_arn=one["invocationArn"],
                outcome=Outcome.ADOPTED,
                submitted_at=one["submitTime"].isoformat(),
            )
            for one in summaries
            if one.get("clientRequestToken") in self._requests
        ]

    def _start(self, request: AsyncInvokeRequest) -> None:
        submission = self._submission
        before = datetime.now(UTC)
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
            self._window.start_failed(request.request_id, error)
            if error.meaning is Meaning.UNAVAILABLE:
                self._unknown_since = before - _CLOCK_MARGIN
            if error.meaning is Meaning.REFUSED:
                logger.warning("%s is refused: %s", request.source_uri or request.request_id, error)
            return
        self._started_at[arn] = datetime.now(UTC)
        self._window.started(Invocation(request.request_id, arn, Outcome.STARTED, before.isoformat()))

    def _check_source(self, request: AsyncInvokeRequest) -> None:
        """Refuse a request whose object is no longer the one that it was made from: Bedrock takes no version id."""
        uri, etag = request.source_uri, request.source_etag
        if not self._submission.check_source or uri is None or etag is None:
            return
        found = self._clients.etag(uri)
        if found is None:
            raise AsyncInvokeError(Meaning.REFUSED, "SourceNotFound", f"{uri} was deleted before it was submitted")
        if found != etag:
            raise AsyncInvokeError(
                Meaning.REFUSED,
                "SourceChanged",
                f"{uri} was replaced before it was submitted (ETag {etag}, now {found})",
            )


def submit_blocking(submitter: Submitter, sleep: Callable[[float], None] = time.sleep) -> None:
    """Submit everything, waiting in this thread while the window is full."""
    while (seconds := submitter.step()) is not None:
        sleep(seconds)
