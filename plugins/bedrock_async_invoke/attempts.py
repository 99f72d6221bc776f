"""One attempt at starting a request: its source is looked at, its intent declared, and Start called.

Attempts are made side by side, each in a thread of its own, so they change nothing that they share: what came of them is
returned, and taken in by the submitter.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from bedrock_async_invoke import lease as leases
from bedrock_async_invoke.batch import Batch, Submission
from bedrock_async_invoke.clients import Clients
from bedrock_async_invoke.errors import AsyncInvokeError, Meaning
from bedrock_async_invoke.hooks import START_CONNECT_SECONDS, START_READ_SECONDS
from bedrock_async_invoke.intents import INVOKE, FoundIntent, Intent, Intents
from bedrock_async_invoke.lease import Lease
from bedrock_async_invoke.manifest import (
    AsyncInvokeRequest,
    Invocation,
    Outcome,
    invocation_arn,
    invoke_id,
    output_folder,
)

logger = logging.getLogger(__name__)

_LOOKED_AT_SOURCE_SECONDS = 30.0
"""A source that was looked at longer ago is looked at again before Start, and its intent with it."""
_HOLDS_SECONDS = _LOOKED_AT_SOURCE_SECONDS + START_CONNECT_SECONDS + START_READ_SECONDS
"""So long after an intent was written its Start call may still be under way."""


@dataclass(frozen=True, slots=True)
class Started:
    """Bedrock has accepted the request."""

    invocation: Invocation
    trouble: Exception | None = None
    """Why the invocation could not be added to the intent."""


@dataclass(frozen=True, slots=True)
class Known:
    """The request has an invocation already; nothing was started."""

    invocation: Invocation


@dataclass(frozen=True, slots=True)
class Held:
    """Somebody else may have started the request: a look that begins at ``due`` or later will tell."""

    since: datetime
    """When that may have been, by S3's clock."""
    due: float


@dataclass(frozen=True, slots=True)
class NotStarted:
    """The request was not accepted, or nobody knows whether it was."""

    error: AsyncInvokeError


@dataclass(frozen=True, slots=True)
class FencedOff:
    """The lease is no longer this process's, so nothing was started."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Something failed before the Start call, which was not made."""

    error: Exception


Ending = Started | Known | Held | NotStarted | FencedOff | Broken


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request of which everything is done but the Start call: its source was looked at, its intent declared."""

    etag: str
    """Of its intent."""
    fence: int
    at: float
    """When its source was looked at."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt, and how it has ended."""

    batch: Batch
    request: AsyncInvokeRequest
    began: datetime
    ending: Ending


class Starter:
    """Makes attempts for one submitter.

    :param owner: names the submitter in intents.
    :param lease: without one nothing fences it off.
    :param clients: returns the clients to use; they change.
    """

    def __init__(self, clients: Callable[[], Clients], owner: str, lease: Lease | None, list_lag: float) -> None:
        self._clients = clients
        self._owner = owner
        self._lease = lease
        self._list_lag = list_lag
        self._lease_lock = threading.Lock()
        # Of Start calls that had their effect, or may have had it: when they ended, by request id, in that order.
        self._called: dict[str, tuple[datetime, float]] = {}
        self._called_lock = threading.Lock()

    def prepare(
        self, batch: Batch, request: AsyncInvokeRequest, *, fence: int, looked_at: float
    ) -> Prepared | Known | Held:
        """Do everything that comes before the Start call of a request.

        :param fence: the lease's, under which it is to be started.
        :param looked_at: when the last look at the list began that has not found the request.
        :raises AsyncInvokeError: if the source is not what was asked for, or nobody can say.
        """
        at = leases.now()
        self._check_source(batch.submission, request)
        declared = self._declare(batch.submission, request, fence, looked_at)
        return Prepared(declared, fence, at) if isinstance(declared, str) else declared

    def attempt(
        self,
        batch: Batch,
        request: AsyncInvokeRequest,
        *,
        fence: int,
        looked_at: float,
        preparation: Future[Prepared | Known | Held] | None = None,
    ) -> Attempt:
        """Start a request unless something speaks against it.

        :param fence: the lease's, under which it is to be started.
        :param looked_at: when the last look at the list began that has not found the request.
        :param preparation: what was begun of it before there was room for it. What it was told may have changed, so only
            its success counts, and that not for long.
        """
        submission, began = batch.submission, datetime.fromtimestamp(time.time(), UTC)
        try:
            prepared = self._usable(preparation, fence) or self.prepare(
                batch, request, fence=fence, looked_at=looked_at
            )
            if not isinstance(prepared, Prepared):
                return Attempt(batch, request, began, prepared)
            # Last of all: a process may have been stopped anywhere before.
            if not self._holds(fence):
                return Attempt(batch, request, began, FencedOff())
        except AsyncInvokeError as error:
            return Attempt(batch, request, began, NotStarted(error))
        except Exception as error:  # noqa: BLE001 - raised by whoever takes the attempt in
            return Attempt(batch, request, began, Broken(error))
        began = datetime.fromtimestamp(time.time(), UTC)
        try:
            arn = self._start(submission, request)
        except AsyncInvokeError as error:
            if error.meaning is Meaning.UNAVAILABLE:
                self._remember_call(request.request_id, began, looked_at)
            return Attempt(batch, request, began, NotStarted(error))
        self._remember_call(request.request_id, began, looked_at)
        invocation = Invocation(request.request_id, arn, Outcome.STARTED, began.isoformat())
        return Attempt(
            batch,
            request,
            began,
            Started(invocation, self._add_to_intent(submission, invocation, fence, prepared.etag)),
        )

    def _usable(self, preparation: Future[Prepared | Known | Held] | None, fence: int) -> Prepared | None:
        if preparation is None or preparation.cancel() or preparation.exception() is not None:
            return None
        prepared = preparation.result()
        is_fresh = isinstance(prepared, Prepared) and leases.now() - prepared.at < _LOOKED_AT_SOURCE_SECONDS
        return prepared if isinstance(prepared, Prepared) and is_fresh and prepared.fence == fence else None

    def _remember_call(self, request_id: str, began: datetime, looked_at: float) -> None:
        with self._called_lock:
            self._called[request_id] = began, leases.now()
            # What the last look could show needs no memory.
            for old in [name for name, (_, at) in self._called.items() if at + self._list_lag <= looked_at]:
                del self._called[old]

    def _called_lately(self, request_id: str, looked_at: float) -> Held | None:
        """Return that the last look could not show yet what came of a call of this very process.

        Its window may know nothing of it: a request is forgotten with its batch, and may come back with another one.
        """
        with self._called_lock:
            began, at = self._called.get(request_id, (None, 0.0))
        return Held(began, at + self._list_lag) if began is not None and looked_at < at + self._list_lag else None

    def _holds(self, fence: int) -> bool:
        if self._lease is None:
            return True
        with self._lease_lock:
            return self._lease.hold() and self._lease.fence == fence

    def _start(self, submission: Submission, request: AsyncInvokeRequest) -> str:
        return self._clients().bedrock.start_async_invoke(
            model_id=submission.model_id,
            model_input=request.model_input,
            output_s3_uri=request.output_uri,
            client_request_token=request.request_id,
            kms_key_id=submission.kms_key_id,
            bucket_owner=submission.bucket_owner,
            tags=submission.tags,
        )

    def _add_to_intent(self, submission: Submission, invocation: Invocation, fence: int, etag: str) -> Exception | None:
        if submission.intents_uri is None:
            return None
        known = replace(
            self._intent(submission, invocation.request_id, fence),
            invocation_arn=invocation.invocation_arn,
            submitted_at=invocation.submitted_at,
        )
        try:
            if Intents(self._clients(), submission.intents_uri).replace(known, etag) is None:
                return IntentChangedError(f"{invocation.request_id}: somebody else has changed its intent meanwhile")
        except Exception as error:  # noqa: BLE001 - the invocation must not be lost for it
            return error
        return None

    def _intent(self, submission: Submission, request_id: str, fence: int) -> Intent:
        return Intent(
            request_id,
            self._owner,
            fence,
            submission.manifest_uri,
            holds_seconds=_HOLDS_SECONDS,
            lease_uri=None if self._lease is None else self._lease.uri,
        )

    def _declare(
        self, submission: Submission, request: AsyncInvokeRequest, fence: int, looked_at: float
    ) -> str | Known | Held:
        """Create the request's intent and return its ETag, or why the request is not to be started now."""
        if (held := self._called_lately(request.request_id, looked_at)) is not None:
            return held
        if submission.intents_uri is None:
            return ""
        intents = Intents(self._clients(), submission.intents_uri)
        mine = self._intent(submission, request.request_id, fence)
        found = intents.declare(mine)
        if isinstance(found, str):
            return found
        theirs = found.intent
        if theirs.invocation_arn is not None:
            return Known(Invocation(request.request_id, theirs.invocation_arn, Outcome.ADOPTED, theirs.submitted_at))
        if (theirs.owner, theirs.fence) == (mine.owner, mine.fence):
            return found.etag
        if theirs.operation == INVOKE and (answered := self._answer_of_invoke(request)) is not None:
            return Known(answered)
        return self._take_over(intents, mine, found, looked_at)

    def _answer_of_invoke(self, request: AsyncInvokeRequest) -> Invocation | None:
        """Return that an earlier run has sent the request through InvokeModel, and kept the answer."""
        arn = invocation_arn(self._clients().region_name, request.request_id, invoke_id(request.request_id))
        folder = output_folder(request.output_uri, arn)
        if self._clients().etag(f"{folder}/output.json") is None:
            return None
        return Invocation(request.request_id, arn, Outcome.REUSED, output_uri=folder)

    def _take_over(self, intents: Intents, mine: Intent, found: FoundIntent, looked_at: float) -> str | Held:
        """Take over an intent that has no invocation, if a look that began late enough has found none either."""
        # Late enough: its owner can't be starting it any more, and the list has had the time to show what came of it.
        taken_at = 0.0 if self._lease is None else self._lease.taken_at
        due = max(leases.now() - found.age_seconds, taken_at) + self._seconds_to_settle(found.intent)
        if looked_at >= due:
            taken = intents.replace(mine, found.etag)
            if taken is not None:
                logger.warning(
                    "%s: the intent of %s is taken over, no invocation came of it", mine.request_id, found.intent.owner
                )
                return taken
            due = leases.now() + self._list_lag
        return Held(found.written_at, due)

    def _seconds_to_settle(self, theirs: Intent) -> float:
        """Return how long after an intent was written it is certain that its call has ended, and is shown."""
        if theirs.operation == INVOKE:
            return max(self._list_lag, theirs.holds_seconds)
        if self._lease is not None and theirs.lease_uri == self._lease.uri:
            # Who held it before us starts nothing any more.
            return self._list_lag
        return theirs.holds_seconds + self._list_lag

    def _check_source(self, submission: Submission, request: AsyncInvokeRequest) -> None:
        """Refuse a request whose object is no longer the one that it was made from: Bedrock takes no version id."""
        uri, etag = request.source_uri, request.source_etag
        if not submission.check_source or uri is None:
            return
        found = self._clients().etag(uri)
        if found is None:
            raise AsyncInvokeError(Meaning.REFUSED, "SourceNotFound", f"{uri} was deleted before it was submitted")
        if etag is not None and found != etag:
            raise AsyncInvokeError(
                Meaning.REFUSED,
                "SourceChanged",
                f"{uri} was replaced before it was submitted (ETag {etag}, now {found})",
            )


class IntentChangedError(Exception):
    """An intent was changed by another while its request was started."""
