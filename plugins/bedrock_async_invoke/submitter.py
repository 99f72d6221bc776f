"""Makes the calls that the submission window decides on. Blocking: for a worker, or for a thread of the triggerer.

A process has one submitter for each folder of a lease, however many tasks submit in it. The submitter that holds the lease
starts the requests of every manifest that has a ticket, also those of other processes; the others wait for the lease, and
for what the holder does of theirs.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from bedrock_async_invoke import lease as leases
from bedrock_async_invoke.attempts import (
    Attempt,
    Broken,
    FencedOff,
    Held,
    IntentChangedError,
    Known,
    NotStarted,
    Prepared,
    Started,
    Starter,
)
from bedrock_async_invoke.batch import Batch, Submission, SubmissionFailedError
from bedrock_async_invoke.bedrock_clock import CLOCK_MARGIN, RESOLUTION, BedrockClock
from bedrock_async_invoke.calls import Calls
from bedrock_async_invoke.clients import Clients
from bedrock_async_invoke.errors import AsyncInvokeError, Meaning
from bedrock_async_invoke.hooks import PAGE_SIZE
from bedrock_async_invoke.lease import Lease
from bedrock_async_invoke.manifest import AsyncInvokeRequest, Invocation, Outcome
from bedrock_async_invoke.polling import IN_PROGRESS, TERMINAL
from bedrock_async_invoke.shared_list import shared_list
from bedrock_async_invoke.submission import (
    Candidate,
    Done,
    GiveUp,
    Look,
    Start,
    SubmissionWindow,
    Wait,
)
from bedrock_async_invoke.tickets import REFRESH_SECONDS, Tickets

__all__ = ["ManifestSubmission", "Submission", "SubmissionFailedError", "Submitter", "submit_blocking"]

logger = logging.getLogger(__name__)

_TICKETS_EVERY_SECONDS = 2.0
_LONGEST_STEP_SECONDS = 5.0
_OTHERS_TURN_SECONDS = 0.5
_TURN_SECONDS_FOR_EACH = 0.1
_LOOK_FOR_ENDED_SECONDS = 2.0
CALLS_AT_ONCE = 8
"""Attempts that are under way at once: free slots of the window are filled side by side."""
_PREPARED_AT_ONCE = 12
# A wait that is shorter is spent where it is: whoever comes next may come too late for it.
_WAITED_OUT_SECONDS = 2.5
_PIECE_SECONDS = 0.25
_WHOLE_LOOK_SECONDS = 5.0
_NO_WHOLE_LOOK_SECONDS = 60.0
_SAY_AGAIN_SECONDS = 60.0
_UNREADABLE_SECONDS = 60.0
_JITTER = 0.2


class _FencedOffError(Exception):
    """The lease is no longer this process's, so it may start nothing."""


class _ServiceFailingError(Exception):
    """Bedrock as a whole fails."""


@dataclass(frozen=True, slots=True)
class _Search:
    """A stretch of the list that has to be looked at: there may be invocations under our tokens that are not known here."""

    since: datetime
    due: float
    """A look that begins at this time or later is enough."""


class Submitter:
    """Starts the requests of all batches that have joined it, through one window.

    Between any two of its calls the process may end: what was started is found again in ``invocations.jsonl``, in its intent
    or, by its token, in Bedrock's list.
    """

    def __init__(self, clients: Clients, submission: Submission) -> None:
        self._clients = clients
        self._model_id = submission.model_id
        self._list_lag = submission.list_lag_seconds
        self._window = SubmissionWindow(poll_interval=submission.poll_interval, list_lag=self._list_lag)
        self._owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._lease: Lease | None = None
        self._tickets: Tickets | None = None
        if (folder := submission.submitter_uri) is not None:
            uri = f"{folder.rstrip('/')}/lease.json"
            self._lease = Lease(clients, uri, self._owner, submission.lease_seconds)
            self._tickets = Tickets(clients, folder)
        self._lease_seconds = submission.lease_seconds
        self._lock = threading.RLock()
        self._batches: list[Batch] = []
        self._of_others: dict[str, Batch] = {}
        # By ticket: until when it is left alone.
        self._unreadable: dict[str, float] = {}
        self._tickets_seen_at = float("-inf")
        # The fence under which what is known here was found out; another may have submitted since.
        self._known_under = 0
        # Started lately and not seen in the list, which lags: they take room in the window all the same.
        self._unlisted: dict[str, datetime] = {}
        # What the last look has shown.
        self._listed: set[str] = set()
        self._looked_for_ended_at = float("-inf")
        self._bedrock_clock = BedrockClock()
        self._searches: list[_Search] = []
        self._said: tuple[str, float] = ("", float("-inf"))
        self._calls: Calls[Attempt] = Calls(CALLS_AT_ONCE)
        # By request id, of those that are to be started next, while there is no room for them yet.
        self._preparations: dict[str, Future[Prepared | Known | Held]] = {}
        # When the first of those was submitted that the last look at all has shown to be in progress.
        self._oldest: datetime | None = None
        self._looked_whole_at = float("-inf")
        self._starter = Starter(lambda: self._clients, self._owner, self._lease, self._list_lag)

    @property
    def tickets(self) -> Tickets | None:
        """Return the tickets of the lease's folder; None where there is no lease."""
        return self._tickets

    def join(self, batch: Batch, clients: Clients) -> None:
        """Take in a batch, to be submitted beside the others."""
        with self._lock:
            # They are made anew from time to time; the last ones have the latest credentials.
            self._clients = clients
            self._batches.append(batch)
            self._window.poll_interval = min(one.submission.poll_interval for one in self._batches)
            self._take_in(batch)

    def leave(self, batch: Batch) -> bool:
        """Let a batch go, with what became of it on record; return whether it was the last one."""
        with self._lock:
            is_settled = self.unsettled_seconds == 0.0
            if batch in self._batches:
                self._batches.remove(batch)
                staying = {request_id for one in self._batches for request_id in one.requests}
                self._window.forget(request_id for request_id in batch.requests if request_id not in staying)
                if self._may_write:
                    batch.record()
            own = [one for one in self._batches if one not in self._of_others.values()]
            if own:
                return False
            for uri in list(self._of_others):
                self._let_go(uri)
            self._calls.close()
            if self._lease is not None:
                # The list may not show them yet, and their batches may be done.
                unlisted = {arn: at.isoformat() for arn, at in self._unlisted.items()}
                self._lease.release(unlisted if is_settled else None)
            return True

    def step(self, is_going_on: Callable[[], bool], *, stays: bool = False) -> float:
        """Do what can be done now, unless another thread is at it; return how many seconds to wait before the next step.

        What became of the requests is on record when it raises.

        :param is_going_on: asked between any two calls.
        :param stays: whether it may spend short waits in this thread, and prepare meanwhile what is started next.
        :raises _ServiceFailingError: when Bedrock could not be reached too many times in a row.
        """
        if not self._lock.acquire(blocking=False):
            return self._until_ones_turn()
        try:
            return self._step(is_going_on, stays=stays)
        finally:
            self._lock.release()

    def _until_ones_turn(self) -> float:
        """Return how long who is not at it waits: however many they are, about ten of them ask in a second."""
        mean = max(_OTHERS_TURN_SECONDS, _TURN_SECONDS_FOR_EACH * len(self._batches))
        return min(mean, _LONGEST_STEP_SECONDS) * random.uniform(0.5, 1.5)  # noqa: S311 - to spread them

    def _step(self, is_going_on: Callable[[], bool], *, stays: bool) -> float:
        if self._lease is not None and not self._lease.hold():
            self._follow()
            return _TICKETS_EVERY_SECONDS
        if self._lease is not None and self._lease.fence != self._known_under:
            self._begin_holding(self._lease)
        self._take_tickets()
        # With a lease there are intents: what is started is on record before and after. The file may come later.
        at_once = True
        try:
            seconds = self._drive(is_going_on, stays=stays)
            at_once = self._lease is None or not is_going_on()
        except _FencedOffError:
            return 0.0
        finally:
            if self._may_write:
                self._record(at_once=at_once)
        return seconds

    def _drive(self, is_going_on: Callable[[], bool], *, stays: bool) -> float:
        """Do what the window decides, for some seconds at most; return how many seconds to wait before it goes on.

        No call is under way any more when it ends, however it ends.
        """
        ends = leases.now() + _LONGEST_STEP_SECONDS
        try:
            while is_going_on() and leases.now() < ends:
                decision = self._window.decide(leases.now())
                if isinstance(decision, GiveUp):
                    raise _ServiceFailingError(decision.reason)
                if isinstance(decision, Wait) and not self._calls.are_under_way:
                    seconds = self._waiting(decision)
                    if not stays or seconds > _WAITED_OUT_SECONDS:
                        return seconds
                    self._wait_out(seconds, is_going_on)
                    continue
                self._carry_out(decision)
                self._distribute()
                self._record(at_once=False)
                if isinstance(decision, Done):
                    return _OTHERS_TURN_SECONDS
            return 0.0
        finally:
            self._await_calls()

    def _wait_out(self, seconds: float, is_going_on: Callable[[], bool]) -> None:
        """Wait in this thread, and meanwhile prepare what is started next."""
        until = leases.now() + seconds
        self._prepare()
        while is_going_on() and (left := until - leases.now()) > 0:
            time.sleep(min(left, _PIECE_SECONDS))

    def _carry_out(self, decision: Look | Start | Wait | Done) -> None:
        """Do the next thing, or wait until a call has ended after which there may be another."""
        if isinstance(decision, Look):
            self._look()
        elif isinstance(decision, Start) and self._calls.has_room:
            self._begin(decision.request_id)
            self._take_in_attempts(0.0)
        elif not isinstance(decision, Done):
            most = decision.seconds if isinstance(decision, Wait) else _LONGEST_STEP_SECONDS
            self._take_in_attempts(most)

    def _await_calls(self) -> None:
        try:
            while self._calls.are_under_way:
                self._take_in_attempts(_LONGEST_STEP_SECONDS)
        finally:
            if self._calls.are_under_way:
                self._await_calls()
            self._distribute()

    @property
    def _may_write(self) -> bool:
        return self._lease is None or self._lease.holds

    @property
    def unsettled_seconds(self) -> float:
        """Return how long it takes until the list shows what became of every Start call."""
        return max(0.0, self._window.unsettled_until() - leases.now())

    def _waiting(self, decision: Wait) -> float:
        said, at = self._said
        kind = "".join(letter for letter in decision.reason if not letter.isdigit())
        if kind != said or leases.now() - at > _SAY_AGAIN_SECONDS:
            self._said = (kind, leases.now())
            logger.info("%d requests wait %.0f s: %s", self._window.pending, decision.seconds, decision.reason)
        if self._lease is None:
            return decision.seconds
        # In between the lease has to be renewed, and others may have put their tickets.
        return min(decision.seconds, self._lease_seconds / 3, _TICKETS_EVERY_SECONDS)

    # Batches: whose requests they are, and what became of them.

    def _take_in(self, batch: Batch) -> None:
        """Let the window know a batch's requests, and what of it is known already."""
        for request_id in batch.requests:
            if (known := self._window.outcomes.get(request_id)) is not None:
                batch.settle(_as_adopted(known))
        for one in batch.outcomes.values():
            if one.outcome is Outcome.STARTED and one.invocation_arn and one.submitted_at:
                self._unlisted[one.invocation_arn] = datetime.fromisoformat(one.submitted_at)
        pending = batch.pending
        if not pending:
            return
        most = batch.submission.max_in_flight
        self._window.add(Candidate(one.request_id, one.priority, most) for one in pending)
        self._search(datetime.fromtimestamp(batch.submission.adopt_since, UTC), leases.now())

    def _search(self, since: datetime, due: float) -> None:
        self._searches.append(_Search(since, due))

    def _distribute(self) -> None:
        """Give what was settled to every batch that asked for it; to the first of them as it was."""
        for invocation in self._window.take_settled():
            owners = [batch for batch in self._batches if invocation.request_id in batch.requests]
            for number, batch in enumerate(owners):
                batch.settle(invocation if number == 0 else _as_adopted(invocation))

    def _record(self, *, at_once: bool) -> None:
        for batch in self._batches:
            if batch in self._of_others.values():
                self._record_of_others(batch, at_once=at_once or batch.is_done)
            else:
                batch.record(at_once=at_once or batch.is_done)

    def _record_of_others(self, batch: Batch, *, at_once: bool = True) -> None:
        """Record what became of another process's requests; where that can't be done, that must not be our tasks' failure."""
        try:
            batch.record(at_once=at_once)
        except Exception:
            # What was started stands in its intents all the same.
            logger.warning("%s can't be written now", batch.invocations_uri, exc_info=True)

    # The lease, and the tickets of other processes.

    def _begin_holding(self, lease: Lease) -> None:
        """Take up what other holders have left; all of it again, if not all of it could be read."""
        self._preparations.clear()
        self._tickets_seen_at = float("-inf")
        if lease.last_words is None:
            self._window.distrust_list(lease.taken_at + self._list_lag)
        else:
            started = {arn: datetime.fromisoformat(at) for arn, at in lease.last_words.items()}
            self._unlisted = started | self._unlisted
        self._window.forget(request_id for batch in self._batches for request_id in batch.requests)
        for batch in self._batches:
            batch.reload()
            self._take_in(batch)
        self._known_under = lease.fence

    def _take_tickets(self) -> None:
        """Take in the manifests that others wait for; let go those that nobody waits for any more, or that are done."""
        if self._tickets is None:
            return
        for uri, batch in list(self._of_others.items()):
            if batch.is_done:
                self._let_go(uri)
                self._tickets.take_away(batch.submission.manifest_uri or "")
        if leases.now() - self._tickets_seen_at < _TICKETS_EVERY_SECONDS:
            return
        self._tickets_seen_at = leases.now()
        fresh = self._tickets.fresh()
        for uri in self._of_others.keys() - fresh:
            logger.info("Nobody waits for %s any more", self._of_others[uri].submission.manifest_uri)
            self._let_go(uri)
        own = {self._tickets.uri(one.submission.manifest_uri or "") for one in self._batches}
        unreadable = {uri for uri, until in self._unreadable.items() if until > leases.now()}
        for uri in fresh - own - self._of_others.keys() - unreadable:
            self._take_ticket(uri)

    def _take_ticket(self, uri: str) -> None:
        assert self._tickets is not None  # noqa: S101 - asked before
        try:
            submission = self._tickets.read(uri)
            if submission is None:
                return
            batch = Batch(self._clients, Submission(**submission))
        except (ValueError, TypeError, KeyError, SubmissionFailedError):
            # Who waits for it meets the same error, and says so.
            logger.warning("The ticket %s can't be used", uri, exc_info=True)
            self._unreadable[uri] = float("inf")
            return
        except Exception:
            # Of another library, perhaps with permissions of its own: no reason to fail who can go on.
            logger.warning("The ticket %s, or its manifest, can't be read now", uri, exc_info=True)
            self._unreadable[uri] = leases.now() + _UNREADABLE_SECONDS
            return
        self._of_others[uri] = batch
        self._batches.append(batch)
        self._take_in(batch)

    def _let_go(self, uri: str) -> None:
        """Forget a batch of another process, with what became of it on record."""
        batch = self._of_others[uri]
        if self._may_write:
            self._record_of_others(batch)
        del self._of_others[uri]
        self._batches.remove(batch)
        staying = {request_id for one in self._batches for request_id in one.requests}
        self._window.forget(request_id for request_id in batch.requests if request_id not in staying)

    def _follow(self) -> None:
        """See what the holder has done of ours: it takes the ticket away when a manifest is done."""
        for uri in list(self._of_others):
            self._let_go(uri)
        if self._tickets is None or leases.now() - self._tickets_seen_at < _TICKETS_EVERY_SECONDS:
            return
        self._tickets_seen_at = leases.now()
        fresh = self._tickets.fresh()
        for batch in self._batches:
            manifest_uri = batch.submission.manifest_uri or ""
            if not batch.is_done and self._tickets.uri(manifest_uri) not in fresh:
                batch.reload()
                if not batch.is_done:
                    self._tickets.put(manifest_uri, batch.submission.as_dict())

    # The calls of Bedrock.

    def _look(self) -> None:
        """Count what is in progress, and adopt what is ours and was not known to be."""
        began = leases.now()
        lagging = _now() - timedelta(seconds=self._list_lag)
        self._unlisted = {arn: at for arn, at in self._unlisted.items() if at > lagging}
        try:
            counts = any(one.submission.max_in_flight is not None for one in self._batches)
            whole_since = self._whole_since(began) if counts else None
            found = self._first_summaries(whole_since) if counts else []
            self._take_in_listed(found)
            if (since := self._look_since(began, counts=counts)) is not None and (
                whole_since is None or since < whole_since
            ):
                # In either of the two looks: what the first did not show yet may be in the second.
                found += self._summaries(submitted_after=since)
                self._take_in_listed(found)
        except AsyncInvokeError as error:
            logger.warning("looking at the list of invocations failed: %s", error)
            self._renew_where_that_may_help(error)
            self._window.list_failed(error, leases.now())
            return
        self._searches = [one for one in self._searches if one.due > began]
        self._listed = {one["invocationArn"] for one in found}
        counted = {one["invocationArn"]: one["submitTime"] for one in found if self._takes_room(one)}
        if whole_since is not None:
            self._take_in_whole(found, began)
        if whole_since is not None or self._oldest is None:
            self._oldest = min(counted.values(), default=None)
        self._window.listed(
            len(counted) + len(self._unlisted), self._adoptable(found), began, counted.keys() | self._unlisted.keys()
        )

    def _first_summaries(self, whole_since: datetime | None) -> list[dict[str, Any]]:
        if whole_since is None:
            return self._summaries(status=IN_PROGRESS)
        return self._summaries(submitted_after=whole_since)

    def _whole_since(self, began: float) -> datetime | None:
        """Return since when to look at all invocations, whatever their status; None to look at those in progress only.

        A look at all that were submitted since the oldest one in progress shows the same ones in progress, and how the others
        have ended, which those want to know who wait for them. It is longer, so it is made from time to time only.
        """
        if self._oldest is None or began - self._looked_whole_at < _WHOLE_LOOK_SECONDS:
            return None
        lagging = self._bedrock_clock.at_the_earliest(_now() - timedelta(seconds=self._list_lag))
        return min(self._oldest - RESOLUTION, lagging)

    def _take_in_whole(self, summaries: Sequence[Mapping[str, Any]], began: float) -> None:
        """Learn how long invocations take, and let those know that wait for them."""
        # Where one page does not hold it, they had better look themselves.
        self._looked_whole_at = began if len(summaries) < PAGE_SIZE else began + _NO_WHOLE_LOOK_SECONDS
        for one in summaries:
            if one.get("status") in TERMINAL and (end := one.get("endTime")) is not None:
                self._window.ended(one["invocationArn"], (end - one["submitTime"]).total_seconds())
        shared_list(self._clients).note(summaries)

    def _take_in_listed(self, summaries: Iterable[Mapping[str, Any]]) -> None:
        """Take in that invocations are listed: from then on the list counts them, whatever their status."""
        for one in summaries:
            if (began := self._unlisted.pop(one["invocationArn"], None)) is not None:
                self._bedrock_clock.observe(began, one["submitTime"])

    def _look_since(self, now: float, *, counts: bool) -> datetime | None:
        """Return since when submissions are to be looked at, whatever their status; None if that is not to be done now."""
        known = [one.since for one in self._searches]
        # Those that are not in progress have ended already, or the list does not show them yet.
        if self._unlisted and counts and now - self._looked_for_ended_at >= _LOOK_FOR_ENDED_SECONDS:
            self._looked_for_ended_at = now
            known.append(self._bedrock_clock.at_the_earliest(min(self._unlisted.values())))
        return min(known, default=None)

    def _summaries(self, **condition: Any) -> list[dict[str, Any]]:
        return [one for page in self._clients.bedrock.list_async_invokes(**condition) for one in page]

    def _takes_room(self, summary: Mapping[str, Any]) -> bool:
        # The model may be named by its id or by its ARN; Bedrock answers with the ARN.
        model_id = str(summary.get("modelArn", "")).rpartition("/")[2]
        return summary.get("status", IN_PROGRESS) == IN_PROGRESS and model_id == self._model_id.rpartition("/")[2]

    def _adoptable(self, summaries: Sequence[Mapping[str, Any]]) -> list[Invocation]:
        return [
            Invocation(
                request_id=one["clientRequestToken"],
                invocation_arn=one["invocationArn"],
                outcome=Outcome.ADOPTED,
                submitted_at=one["submitTime"].astimezone(UTC).isoformat(),
            )
            for one in summaries
            if self._window.is_pending(one.get("clientRequestToken", ""))
        ]

    def _begin(self, request_id: str) -> None:
        """Begin an attempt at starting a request."""
        batch = self._batch_of(request_id)
        request, fence, looked_at = batch.requests[request_id], self._known_under, self._window.looked_at
        self._window.starting(request_id)
        preparation = self._preparations.pop(request_id, None)
        self._calls.begin(
            lambda: self._starter.attempt(batch, request, fence=fence, looked_at=looked_at, preparation=preparation)
        )

    def _prepare(self) -> None:
        """Do what comes before Start for those that are started next, so that a slot that becomes free is soon filled."""
        if CALLS_AT_ONCE == 1:
            return
        upcoming = self._window.upcoming(_PREPARED_AT_ONCE)
        for request_id in self._preparations.keys() - set(upcoming):
            self._preparations.pop(request_id).cancel()
        for request_id in upcoming:
            if request_id not in self._preparations:
                batch = self._batch_of(request_id)
                self._preparations[request_id] = self._calls.aside(
                    partial(
                        self._starter.prepare,
                        batch,
                        batch.requests[request_id],
                        fence=self._known_under,
                        looked_at=self._window.looked_at,
                    )
                )

    def _batch_of(self, request_id: str) -> Batch:
        return next(one for one in self._batches if request_id in one.requests)

    def _take_in_attempts(self, seconds: float) -> None:
        """Take in the attempts that have ended; if none has, wait so many seconds for the first.

        :raises _FencedOffError: after all were taken in, if one of them was.
        """
        troubles: list[Exception] = []
        for call in self._calls.take_finished(seconds):
            error = call.exception()
            if isinstance(error, Exception):
                troubles.append(error)
            elif (trouble := self._take_in_attempt(call.result())) is not None:
                troubles.append(trouble)
        for trouble in troubles:
            raise trouble

    def _take_in_attempt(self, attempt: Attempt) -> Exception | None:
        request, ending = attempt.request, attempt.ending
        match ending:
            case Started(invocation, trouble):
                self._take_in_start(invocation, attempt.began)
                if isinstance(trouble, IntentChangedError):
                    logger.warning("%s", trouble)
                    return None
                return trouble
            case Known(invocation):
                self._window.known(invocation)
            case Held(since, due):
                self._search(since - CLOCK_MARGIN, due)
                self._window.hold(request.request_id, due)
            case NotStarted(error):
                self._failed(attempt.batch, request, error, attempt.began)
            case FencedOff():
                self._window.not_started(request.request_id)
                return _FencedOffError()
            case Broken(error):
                self._window.not_started(request.request_id)
                return error
        return None

    def _take_in_start(self, invocation: Invocation, began: datetime) -> None:
        arn = invocation.invocation_arn or ""
        is_listed = arn in self._listed
        if not is_listed:
            self._unlisted[arn] = began
        self._window.started(invocation, is_listed=is_listed, now=leases.now())

    def _failed(self, batch: Batch, request: AsyncInvokeRequest, error: AsyncInvokeError, before: datetime) -> None:
        self._window.start_failed(request.request_id, error, leases.now(), before.isoformat())
        if error.meaning is Meaning.UNAVAILABLE:
            logger.warning("no answer to rely on for %s: %s", request.source_uri or request.request_id, error)
            self._search(before - CLOCK_MARGIN, leases.now() + self._list_lag)
        elif error.meaning is Meaning.REFUSED:
            logger.warning("%s is refused: %s", request.source_uri or request.request_id, error)
            if self._window.is_pending(request.request_id):
                since = datetime.fromtimestamp(batch.submission.adopt_since, UTC)
                self._search(since, leases.now() + self._list_lag)
        self._renew_where_that_may_help(error)

    def _renew_where_that_may_help(self, error: AsyncInvokeError) -> None:
        if error.meaning is Meaning.UNAUTHENTICATED:
            self._clients.renew()


class ManifestSubmission:
    """What one task submits: its batch, at the process's submitter.

    :param submitter: where there is no lease, or a test wants one of its own; the process's otherwise.
    :param stays: as in :meth:`Submitter.step`.
    :raises SubmissionFailedError: where there is no manifest.
    """

    def __init__(
        self, clients: Clients, submission: Submission, submitter: Submitter | None = None, *, stays: bool = False
    ) -> None:
        self._stays = stays
        self._clients = clients
        self._submission = submission
        self._batch = Batch(clients, submission)
        self._stopped = False
        self._waited_at = float("-inf")
        self._submitter = submitter or _submitter_of_this_process(clients, submission)
        self._submitter.join(self._batch, clients)

    @property
    def stopped(self) -> bool:
        """Return whether it was told to stop."""
        return self._stopped

    def stop(self) -> None:
        """Let a step that runs in another thread end after the call that it is making, and start nothing more."""
        self._stopped = True

    def step(self) -> float | None:
        """Do what can be done now; return how many seconds to wait before the next step, or None when all is done.

        What became of the requests is on record when it returns None or raises.

        :raises SubmissionFailedError: when Bedrock could not be reached too many times in a row, or it was told to stop.
        """
        try:
            self._show_that_it_is_waited_for()
            seconds = 0.0 if self._stopped else self._submitter.step(lambda: not self._stopped, stays=self._stays)
        except _ServiceFailingError as error:
            self.withdraw()
            raise SubmissionFailedError(f"Bedrock could not be relied on: {error}. {self._batch.kept}") from error
        except BaseException:
            self.close()
            raise
        if self._batch.is_done:
            self._finish()
            return None
        if self._stopped:
            self.close()
            raise SubmissionFailedError(f"Submitting was stopped. {self._batch.kept}")
        if self._submitter.tickets is not None:
            # Under a lease one alone makes calls.
            return seconds
        return seconds * random.uniform(1, 1 + _JITTER)  # noqa: S311 - to spread the calls

    @property
    def hand_over_seconds(self) -> float:
        """Return how long another process has to wait before it goes on, where no intent tells it what was begun here."""
        return 0.0 if self._submission.intents_uri is not None else self._submitter.unsettled_seconds

    def _show_that_it_is_waited_for(self) -> None:
        tickets = self._submitter.tickets
        if tickets is None or self._batch.is_done or leases.now() - self._waited_at < REFRESH_SECONDS:
            return
        tickets.put(self._submission.manifest_uri or "", self._submission.as_dict())
        self._waited_at = leases.now()

    def _finish(self) -> None:
        self._batch.record()
        self.withdraw()

    def withdraw(self) -> None:
        """Leave, and let no other process go on with it."""
        try:
            # Before it is left: the ticket that is there would be taken by those who go on.
            if (tickets := self._submitter.tickets) is not None:
                tickets.take_away(self._submission.manifest_uri or "")
        finally:
            self.close()

    def close(self) -> None:
        """Leave; another process may go on with it for as long as its ticket is fresh."""
        self._stopped = True
        if self._submitter.leave(self._batch):
            _forget(self._submitter)

    @property
    def output_prefix(self) -> str:
        """Return the folder that the outputs lie in."""
        return self._batch.output_prefix

    @property
    def invocations(self) -> Mapping[str, Invocation]:
        """Return what became of the requests so far, by request id."""
        return self._batch.outcomes

    def summary(self) -> dict[str, Any]:
        """Return counts, small enough for an XCom; of one request, what became of it."""
        return self._batch.summary()


_lock = threading.Lock()
_submitters: dict[tuple[int, str, str], Submitter] = {}


def _submitter_of_this_process(clients: Clients, submission: Submission) -> Submitter:
    if submission.submitter_uri is None:
        return Submitter(clients, submission)
    # A forked process has copies of its parent's submitters, which are not its own.
    key = (os.getpid(), submission.submitter_uri, submission.model_id)
    with _lock:
        if key not in _submitters:
            _submitters[key] = Submitter(clients, submission)
        return _submitters[key]


def _forget(submitter: Submitter) -> None:
    with _lock:
        for key in [key for key, one in _submitters.items() if one is submitter]:
            del _submitters[key]


def _as_adopted(invocation: Invocation) -> Invocation:
    if invocation.outcome is not Outcome.STARTED:
        return invocation
    return replace(invocation, outcome=Outcome.ADOPTED)


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def submit_blocking(submission: ManifestSubmission) -> None:
    """Submit everything, waiting in this thread while the window is full.

    :raises SubmissionFailedError: as :meth:`ManifestSubmission.step`.
    """
    while (seconds := submission.step()) is not None:
        until = time.monotonic() + seconds
        # In short pieces: Airflow asks a task to stop by a signal, after which a sleep goes on.
        while not submission.stopped and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 1.0))
