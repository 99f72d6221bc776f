"""Sends the requests of a batch through InvokeModel, side by side, as the schedule decides.

The order of what is done for each request is what keeps it from being paid for twice: its source is looked at, it is claimed,
sent, and the answer kept, before anything else is done with it. Between any two of these the process may end. Only coroutines
of one loop change what is known here; calls of S3 are made by threads.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import socket
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from math import inf
from typing import Any

from bedrock_async_invoke import lease as leases
from bedrock_async_invoke.batch import Batch, Submission, SubmissionFailedError
from bedrock_async_invoke.claims import Claimed, Claims, Held, Settled, completed
from bedrock_async_invoke.clients import Clients
from bedrock_async_invoke.errors import AsyncInvokeError, Meaning
from bedrock_async_invoke.invoking import Call, Done, GiveUp, InvokePatience, InvokeSchedule
from bedrock_async_invoke.manifest import (
    STATUSES,
    AsyncInvokeRequest,
    Invocation,
    InvocationStatus,
    Outcome,
    beside,
    format_lines,
    output_folder,
    read_statuses,
)
from bedrock_async_invoke.polling import IN_PROGRESS
from bedrock_async_invoke.runtime import Runtime
from bedrock_async_invoke.submission import LIST_LAG_SECONDS

logger = logging.getLogger(__name__)

CALL_SECONDS = 90.0
"""The most that a call takes: TwelveLabs says of the first months that answers took up to a minute."""
THREADS = 10
"""For the calls of S3: as many as a client of boto3 has connections."""
_RECORD_EVERY_SECONDS = 10.0
_FIRST_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.5, 15.0
_KEEPING_TRIES = 5
# An image that a model fails over each time is the image's fault, unlike an answer that never comes.
_MODEL_ERROR = "ModelErrorException"


@dataclass(frozen=True)
class Invoking:
    """What is to be sent through InvokeModel, and how."""

    model_id: str
    manifest_uri: str
    max_concurrent: int = 20
    check_source: bool = True
    intents_uri: str | None = None
    kms_key_id: str | None = None
    bucket_owner: str | None = None
    call_seconds: float = CALL_SECONDS
    deadline_seconds: float = 3600.0
    """How long somebody else's call of a request is waited for."""
    list_lag_seconds: float = LIST_LAG_SECONDS
    patience: InvokePatience = field(default_factory=InvokePatience)


@dataclass(frozen=True, slots=True)
class _Answered:
    invocation: Invocation
    status: InvocationStatus


@dataclass(frozen=True, slots=True)
class _NotAnswered:
    error: AsyncInvokeError
    by_bedrock: bool


@dataclass(frozen=True, slots=True)
class _NotSent:
    pass


@dataclass(frozen=True, slots=True)
class _Attempt:
    request: AsyncInvokeRequest
    began: float
    ending: _Answered | _NotAnswered | _NotSent | Held | Settled | Exception


class Invoker:
    """Sends the requests of one manifest.

    :param now: returns seconds of a clock that never goes back.
    :raises SubmissionFailedError: where there is no manifest.
    """

    def __init__(
        self,
        clients: Clients,
        runtime: Runtime,
        invoking: Invoking,
        *,
        now: Callable[[], float] = leases.now,
    ) -> None:
        self._clients, self._runtime, self._invoking, self._now = clients, runtime, invoking, now
        submission = Submission(
            model_id=invoking.model_id, manifest_uri=invoking.manifest_uri, intents_uri=invoking.intents_uri
        )
        self.batch = Batch(clients, submission)
        self._statuses = self._recorded_statuses()
        self._schedule = InvokeSchedule(
            (one.request_id for one in self.batch.pending),
            at_once=invoking.max_concurrent,
            patience=invoking.patience,
        )
        self._claims = Claims(
            clients,
            invoking.intents_uri,
            invoking.manifest_uri,
            f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}",
            call_seconds=invoking.call_seconds,
            list_lag_seconds=invoking.list_lag_seconds,
            now=now,
        )
        self._lost: dict[str, int] = {}
        self._held_since: dict[str, float] = {}
        self._looks: dict[str, int] = {}
        self._ended: asyncio.Queue[_Attempt | None] = asyncio.Queue()
        self._attempts: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False
        self._recorded_at = now()
        self._trouble: Exception | None = None

    def stop(self) -> None:
        """Begin no further call; what is under way is waited for. May be called by a signal's handler or another thread."""
        self._stopped = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ended.put_nowait, None)

    async def run(self) -> None:
        """Send everything. What became of the requests is on record when it ends, however it ends.

        :raises SubmissionFailedError: when Bedrock could not be reached too many times in a row, or it was told to stop.
        """
        self._loop = asyncio.get_running_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="invoke"))
        given_up = ""
        try:
            while not self._stopped and self._trouble is None:
                decision = self._schedule.decide(self._now())
                if isinstance(decision, Done):
                    break
                if isinstance(decision, GiveUp):
                    given_up = decision.reason
                    break
                if isinstance(decision, Call):
                    self._begin(self.batch.requests[decision.request_id])
                else:
                    await self._take_in(decision.seconds)
                await self._record_if_due()
        finally:
            await self._await_attempts()
            await asyncio.to_thread(self._record)
        self._raise_if_unfinished(given_up)

    def _raise_if_unfinished(self, given_up: str) -> None:
        if self._trouble is not None:
            raise self._trouble
        if given_up:
            raise SubmissionFailedError(f"Bedrock could not be relied on: {given_up}. {self._kept}")
        if not self.batch.is_done:
            raise SubmissionFailedError(f"Invoking was stopped. {self._kept}")

    @property
    def _kept(self) -> str:
        return (
            f"{len(self.batch.outcomes)} of {len(self.batch.requests)} requests have an outcome, kept in "
            f"{self.batch.invocations_uri}; a retry sends the others, and none whose answer is kept"
        )

    def _begin(self, request: AsyncInvokeRequest) -> None:
        self._schedule.begun(request.request_id, self._now())
        task = asyncio.create_task(self._attempt_and_tell(request))
        self._attempts.add(task)
        task.add_done_callback(self._attempts.discard)

    async def _attempt_and_tell(self, request: AsyncInvokeRequest) -> None:
        began = self._now()
        try:
            attempt = await self._attempt(request)
        except Exception as error:  # noqa: BLE001 - it is raised when all that is under way has ended
            attempt = _Attempt(request, began, error)
        self._ended.put_nowait(attempt)

    async def _take_in(self, seconds: float) -> None:
        """Take in the attempts that have ended; if none has, wait so many seconds for the first."""
        try:
            async with asyncio.timeout(None if seconds == inf else seconds):
                ended = [await self._ended.get()]
        except TimeoutError:
            return
        while not self._ended.empty():
            ended.append(self._ended.get_nowait())
        for attempt in ended:
            if attempt is not None:
                await self._take_in_attempt(attempt)

    async def _await_attempts(self) -> None:
        while self._attempts or not self._ended.empty():
            await self._take_in(1.0)

    async def _take_in_attempt(self, attempt: _Attempt) -> None:
        request_id, ending = attempt.request.request_id, attempt.ending
        if isinstance(ending, _Answered):
            self._schedule.answered(request_id, self._now())
            self._settle(ending.invocation, ending.status)
        elif isinstance(ending, Settled):
            self._schedule.settled(request_id, by_bedrock=False)
            self._settle(ending.invocation, ending.status)
        elif isinstance(ending, Held):
            self._hold(attempt.request, ending)
        elif isinstance(ending, _NotAnswered):
            await self._failed(attempt, ending)
        elif isinstance(ending, _NotSent):
            self._schedule.put_back(request_id)
        else:
            self._schedule.put_back(request_id)
            self._trouble = self._trouble or ending

    def _settle(self, invocation: Invocation, status: InvocationStatus | None) -> None:
        lost = self._lost.get(invocation.request_id, invocation.lost_answers)
        self.batch.settle(replace(invocation, lost_answers=lost))
        if status is not None:
            self._statuses[invocation.request_id] = status

    def _hold(self, request: AsyncInvokeRequest, held: Held) -> None:
        """Look again when more can be told; at the deadline settle it as it stands."""
        request_id, now = request.request_id, self._now()
        since = self._held_since.setdefault(request_id, now)
        if now - since < self._invoking.deadline_seconds:
            looks = self._looks[request_id] = self._looks.get(request_id, 0) + 1
            look = now + min(_FIRST_LOOK_SECONDS * 1.5**looks, _LONGEST_LOOK_SECONDS)
            self._schedule.hold(request_id, min(look, held.until) if held.until > now else look)
            return
        self._schedule.settled(request_id, by_bedrock=False)
        if (invocation := held.invocation) is None:
            message = f"{held.owner} has been about to send it for {now - since:.0f} s, and there is no output"
            self._settle(_without_answer(request_id, Outcome.UNANSWERED, "HeldByAnother", message), None)
            return
        folder = output_folder(request.output_uri, invocation.invocation_arn or "")
        self._settle(invocation, replace(completed(invocation, folder), status=IN_PROGRESS))

    async def _failed(self, attempt: _Attempt, ending: _NotAnswered) -> None:
        request, error, now = attempt.request, ending.error, self._now()
        request_id = request.request_id
        if error.is_lost and ending.by_bedrock:
            self._lost[request_id] = self._lost.get(request_id, 0) + 1
        if error.meaning is Meaning.THROTTLED:
            self._schedule.throttled(request_id, attempt.began, now, error.retry_after)
            return
        if error.meaning is Meaning.REFUSED:
            logger.warning("%s is refused: %s", request.source_uri or request_id, error)
            self._schedule.settled(request_id, by_bedrock=ending.by_bedrock)
            self._settle(_without_answer(request_id, Outcome.REFUSED, error.code, error.message), None)
            await asyncio.to_thread(self._claims.release, request, self._lost.get(request_id, 0))
            return
        logger.warning("no answer for %s: %s", request.source_uri or request_id, error)
        if error.meaning is Meaning.UNAUTHENTICATED:
            await self._renew()
        if self._schedule.failed(request_id, error, now):
            outcome = Outcome.REFUSED if error.code == _MODEL_ERROR else Outcome.UNANSWERED
            tries = self._invoking.patience.tries
            message = f"{tries} calls of InvokeModel had no answer of use; the last: {error.message}"
            self._settle(_without_answer(request_id, outcome, error.code, message), None)
            if not error.is_lost:
                await asyncio.to_thread(self._claims.release, request, self._lost.get(request_id, 0))

    async def _renew(self) -> None:
        self._clients.renew()
        try:
            await self._runtime.renew()
        except Exception as error:  # noqa: BLE001 - the next call meets the same, and is counted
            logger.warning("the client of Bedrock could not be made anew: %s", error)

    # One attempt.

    async def _attempt(self, request: AsyncInvokeRequest) -> _Attempt:
        """Send a request unless something speaks against it, and keep its answer at once."""
        began, asked_bedrock = self._now(), False
        try:
            body = await asyncio.to_thread(self._body, request)
            claimed = await asyncio.to_thread(self._claims.claim, request, self._lost.get(request.request_id, 0))
            if not isinstance(claimed, Claimed):
                return _Attempt(request, began, claimed)
            self._lost[request.request_id] = claimed.lost_answers
            if self._stopped:
                await asyncio.to_thread(self._claims.release, request, claimed.lost_answers)
                return _Attempt(request, began, _NotSent())
            began, submitted_at, asked_bedrock = self._now(), datetime.now(UTC), True
            answer = await self._runtime.invoke_model(self._invoking.model_id, body)
        except AsyncInvokeError as error:
            return _Attempt(request, began, _NotAnswered(error, by_bedrock=asked_bedrock))
        ended_at = datetime.now(UTC)
        await self._keep(request, answer)
        arn = self._claims.arn(request)
        invocation = Invocation(request.request_id, arn, Outcome.STARTED, submitted_at.isoformat())
        status = completed(invocation, output_folder(request.output_uri, arn), ended_at.isoformat())
        return _Attempt(request, began, _Answered(invocation, status))

    def _body(self, request: AsyncInvokeRequest) -> bytes:
        """Return the body of a request whose source is still the one that it was made from.

        :raises AsyncInvokeError: where it is not.
        """
        model_input, uri = request.model_input, request.source_uri
        found: str | None = request.source_etag
        if request.content_member is not None and uri is not None:
            read = self._clients.content(uri)
            found = None if read is None else read[1]
            if read is not None:
                model_input = with_content(model_input, request.content_member, read[0])
        elif uri is not None and self._invoking.check_source:
            found = self._clients.etag(uri)
        else:
            return _as_json(model_input)
        if found is None:
            raise AsyncInvokeError(Meaning.REFUSED, "SourceNotFound", f"{uri} was deleted before it was submitted")
        if request.source_etag not in (None, found):
            raise AsyncInvokeError(
                Meaning.REFUSED,
                "SourceChanged",
                f"{uri} was replaced before it was submitted (ETag {request.source_etag}, now {found})",
            )
        return _as_json(model_input)

    async def _keep(self, request: AsyncInvokeRequest, answer: bytes) -> None:
        """Write the answer where everybody looks for it: it is paid for."""
        uri, invoking = self._claims.output_uri(request), self._invoking
        for tries in range(1, _KEEPING_TRIES + 1):
            try:
                await asyncio.to_thread(
                    self._clients.write_output,
                    uri,
                    answer,
                    kms_key_id=invoking.kms_key_id,
                    bucket_owner=invoking.bucket_owner,
                )
            except Exception as error:
                if tries == _KEEPING_TRIES:
                    logger.exception("The answer for %s can't be kept in %s, and is lost", request.source_uri, uri)
                    raise
                logger.warning("%s could not be written: %s", uri, error)
                await asyncio.sleep(2.0**tries / 4)
            else:
                return

    # What is on record.

    def _recorded_statuses(self) -> dict[str, InvocationStatus]:
        """Return the statuses of what has an outcome already, from an earlier try or because its output was there."""
        uri = beside(self._invoking.manifest_uri, STATUSES)
        content = self._clients.read(uri)
        statuses = {} if content is None else {one.request_id: one for one in read_statuses(content, uri)}
        for request_id, invocation in self.batch.outcomes.items():
            if request_id not in statuses and (arn := invocation.invocation_arn) is not None:
                folder = invocation.output_uri or output_folder(self.batch.requests[request_id].output_uri, arn)
                statuses[request_id] = completed(invocation, folder)
        return statuses

    async def _record_if_due(self) -> None:
        if self._now() - self._recorded_at >= _RECORD_EVERY_SECONDS:
            await asyncio.to_thread(self._record)

    def _record(self) -> None:
        # Nothing is settled meanwhile: who awaits this is the one that settles.
        self.batch.record()
        statuses = [self._statuses[one] for one in self.batch.requests if one in self._statuses]
        self._clients.write(self.statuses_uri, format_lines(statuses))
        self._recorded_at = self._now()

    @property
    def statuses_uri(self) -> str:
        """Return where the statuses are written."""
        return beside(self._invoking.manifest_uri, STATUSES)

    def summary(self) -> dict[str, Any]:
        """Return counts, small enough for an XCom."""
        lost = sum(one.lost_answers for one in self.batch.outcomes.values())
        return {**self.batch.summary(), "statuses_uri": self.statuses_uri, "lost_answers": lost}


def with_content(model_input: dict[str, Any], member: tuple[str, ...], content: bytes) -> dict[str, Any]:
    """Return a request body with the content of its source, base64-encoded, as the member that the names lead to."""
    name, *others = member
    value: Any = base64.b64encode(content).decode()
    if others:
        value = with_content(model_input.get(name) or {}, tuple(others), content)
    return {**model_input, name: value}


def _as_json(model_input: dict[str, Any]) -> bytes:
    return json.dumps(model_input, ensure_ascii=False).encode()


def _without_answer(request_id: str, outcome: Outcome, code: str, message: str) -> Invocation:
    return Invocation(request_id, None, outcome, datetime.now(UTC).isoformat(), code, message)
