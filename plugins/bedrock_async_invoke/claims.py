"""Claims: who may send a request through InvokeModel, which has no token by which Bedrock would know it again.

A claim is an intent on S3. It is created under the condition that there is none, before the call, and holds for some seconds
after it was written: in that time its owner may be at the call, or about to keep the answer, so nobody else makes it. Its owner
writes it again before a call that could outlast it. What became of the request is told by its output, which lies where
everybody looks; an intent without an output that holds no longer is that of a process that is gone, and is taken over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any

from bedrock_async_invoke.bedrock_clock import CLOCK_MARGIN
from bedrock_async_invoke.clients import Clients
from bedrock_async_invoke.intents import INVOKE, FoundIntent, Intent, Intents
from bedrock_async_invoke.manifest import (
    AsyncInvokeRequest,
    Invocation,
    InvocationStatus,
    Outcome,
    invocation_arn,
    invoke_id,
    output_folder,
)
from bedrock_async_invoke.polling import COMPLETED, IN_PROGRESS

logger = logging.getLogger(__name__)

OUTPUT = "output.json"
KEEPING_SECONDS = 30.0
"""How long it may take to keep an answer once it has come."""
# S3 tells times in whole seconds.
_RESOLUTION_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Claimed:
    """The request may be sent now."""

    lost_answers: int
    """Calls of it that were made, or may have been, and of which no answer came."""


@dataclass(frozen=True, slots=True)
class Held:
    """Somebody else may be sending the request; at this time it can be told more."""

    until: float
    owner: str
    invocation: Invocation | None = None
    """What is in progress, where that is known."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of the request."""

    invocation: Invocation
    status: InvocationStatus | None


@dataclass(frozen=True, slots=True)
class _Claim:
    etag: str
    until: float
    lost_answers: int


class Claims:
    """The claims of one process. Its methods block, and are called by one thread at a time for each request.

    :param owner: names this process among all.
    :param call_seconds: the most that a call takes.
    :param list_lag_seconds: how long Bedrock's list may take to show an asynchronous invocation.
    :param now: returns seconds of a clock that never goes back.
    """

    def __init__(
        self,
        clients: Clients,
        intents_uri: str | None,
        manifest_uri: str,
        owner: str,
        *,
        call_seconds: float,
        list_lag_seconds: float,
        now: Callable[[], float],
    ) -> None:
        self._clients = clients
        self._intents = None if intents_uri is None else Intents(clients, intents_uri)
        self._manifest_uri = manifest_uri
        self._owner = owner
        self._call_seconds = call_seconds
        self._holds_seconds = 2 * call_seconds + KEEPING_SECONDS
        self._list_lag = list_lag_seconds
        self._now = now
        self._claims: dict[str, _Claim] = {}

    def claim(self, request: AsyncInvokeRequest, lost_answers: int = 0) -> Claimed | Held | Settled:
        """Claim a request, or say why it is not to be sent now.

        :param lost_answers: how many calls this process has made of which no answer came, and what it knew of before.
        """
        if self._intents is None:
            return self._with_output(request, lost_answers) or Claimed(lost_answers)
        claim = self._claims.get(request.request_id)
        began = self._now()
        if claim is not None:
            holds = began + self._call_seconds + KEEPING_SECONDS <= claim.until and claim.lost_answers == lost_answers
            if holds or self._write(request, claim.etag, began, lost_answers):
                return Claimed(lost_answers)
            # Somebody else has taken it over.
            del self._claims[request.request_id]
            began = self._now()
        found = self._intents.declare(self._intent(request, lost_answers))
        if isinstance(found, str):
            self._claims[request.request_id] = _Claim(found, began + self._holds_seconds, lost_answers)
            return Claimed(lost_answers)
        return self._meet(request, found)

    def release(self, request: AsyncInvokeRequest, lost_answers: int = 0) -> None:
        """Let others send a request at once: here it is not going to be sent, and no answer of it is on its way."""
        claim = self._claims.pop(request.request_id, None)
        if claim is not None and self._intents is not None:
            self._intents.replace(self._intent(request, lost_answers, holds_seconds=0.0), claim.etag)

    def arn(self, request: AsyncInvokeRequest) -> str:
        """Return what stands for the ARN of a call of InvokeModel."""
        return invocation_arn(self._clients.region_name, request.request_id, invoke_id(request.request_id))

    def output_uri(self, request: AsyncInvokeRequest) -> str:
        """Return where the answer of a call of InvokeModel is kept."""
        return f"{output_folder(request.output_uri, self.arn(request))}/{OUTPUT}"

    def _intent(self, request: AsyncInvokeRequest, lost_answers: int, *, holds_seconds: float | None = None) -> Intent:
        return Intent(
            request.request_id,
            self._owner,
            0,
            self._manifest_uri,
            operation=INVOKE,
            holds_seconds=self._holds_seconds if holds_seconds is None else holds_seconds,
            lost_answers=lost_answers,
        )

    def _write(self, request: AsyncInvokeRequest, etag: str, began: float, lost_answers: int) -> bool:
        assert self._intents is not None  # noqa: S101 - asked before
        written = self._intents.replace(self._intent(request, lost_answers), etag)
        if written is None:
            return False
        self._claims[request.request_id] = _Claim(written, began + self._holds_seconds, lost_answers)
        return True

    def _meet(self, request: AsyncInvokeRequest, found: FoundIntent) -> Claimed | Held | Settled:
        """Return what another's intent means."""
        theirs, began = found.intent, self._now()
        written_at = began - found.age_seconds
        if theirs.operation != INVOKE:
            return self._meet_asynchronous(request, found)
        if theirs.owner == self._owner and theirs.holds_seconds:
            # A write of ours whose answer was lost.
            return self._take(request, found, theirs.lost_answers)
        due = written_at + theirs.holds_seconds + _RESOLUTION_SECONDS
        # After the time was taken: what is kept until then is seen.
        if (settled := self._with_output(request, theirs.lost_answers)) is not None:
            return settled
        if not theirs.holds_seconds:
            return self._take(request, found, theirs.lost_answers)
        if began < due:
            return Held(due, theirs.owner)
        logger.warning("%s: the intent of %s is taken over, there is no output of it", request.request_id, theirs.owner)
        return self._take(request, found, theirs.lost_answers + 1)

    def _take(self, request: AsyncInvokeRequest, found: FoundIntent, lost_answers: int) -> Claimed | Held:
        began = self._now()
        if self._write(request, found.etag, began, lost_answers):
            return Claimed(lost_answers)
        # Somebody else was faster.
        return Held(began, found.intent.owner)

    def _meet_asynchronous(self, request: AsyncInvokeRequest, found: FoundIntent) -> Claimed | Held | Settled:
        """Return what the intent of a Start means, which an earlier run of another setting has left."""
        theirs, began = found.intent, self._now()
        if theirs.invocation_arn is not None:
            return self._job(request, theirs.invocation_arn, theirs.owner)
        due = began - found.age_seconds + theirs.holds_seconds + self._list_lag + _RESOLUTION_SECONDS
        if began < due:
            return Held(due, theirs.owner)
        since = found.written_at.astimezone(UTC) - CLOCK_MARGIN - timedelta(seconds=_RESOLUTION_SECONDS)
        for page in self._clients.bedrock.list_async_invokes(submitted_after=since):
            for one in page:
                if one.get("clientRequestToken") == request.request_id:
                    return self._job(request, one["invocationArn"], theirs.owner)
        return self._take(request, found, theirs.lost_answers)

    def _job(self, request: AsyncInvokeRequest, arn: str, owner: str) -> Held | Settled:
        """Return what became of an asynchronous invocation."""
        answer: dict[str, Any] = self._clients.bedrock.get_async_invoke(arn)
        submitted_at = answer["submitTime"].astimezone(UTC).isoformat()
        invocation = Invocation(request.request_id, arn, Outcome.ADOPTED, submitted_at)
        if answer["status"] == IN_PROGRESS:
            return Held(self._now(), owner, invocation)
        ended = answer.get("endTime")
        status = InvocationStatus(
            request_id=request.request_id,
            invocation_arn=arn,
            status=answer["status"],
            failure_message=answer.get("failureMessage"),
            submitted_at=submitted_at,
            ended_at=None if ended is None else ended.astimezone(UTC).isoformat(),
            output_uri=output_folder(request.output_uri, arn),
        )
        return Settled(invocation, status)

    def _with_output(self, request: AsyncInvokeRequest, lost_answers: int) -> Settled | None:
        """Return that a request has its output already, by whomever it was sent."""
        arn = self.arn(request)
        folder = output_folder(request.output_uri, arn)
        if self._clients.etag(f"{folder}/{OUTPUT}") is None:
            return None
        invocation = Invocation(request.request_id, arn, Outcome.ADOPTED, output_uri=folder, lost_answers=lost_answers)
        return Settled(invocation, completed(invocation, folder))


def completed(invocation: Invocation, folder: str, ended_at: str | None = None) -> InvocationStatus:
    """Return the status of a request whose output is kept."""
    return InvocationStatus(
        request_id=invocation.request_id,
        invocation_arn=invocation.invocation_arn or "",
        status=COMPLETED,
        failure_message=None,
        submitted_at=invocation.submitted_at,
        ended_at=ended_at,
        output_uri=folder,
    )
