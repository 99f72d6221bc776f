"""Makes the calls that the status poller decides on. Blocking: for a worker, or for a thread of the triggerer."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bedrock_async_invoke.clients import Clients
from bedrock_async_invoke.errors import AsyncInvokeError, Meaning
from bedrock_async_invoke.manifest import (
    INVOCATIONS,
    STATUSES,
    Invocation,
    InvocationStatus,
    Outcome,
    beside,
    format_lines,
    output_folder,
    read_invocations,
    read_requests,
)
from bedrock_async_invoke.polling import (
    COMPLETED,
    FAILED,
    IN_PROGRESS,
    TERMINAL,
    Done,
    GetEach,
    GiveUp,
    ListSince,
    StatusPoller,
    Wait,
)
from bedrock_async_invoke.shared_list import SharedLook, shared_list

logger = logging.getLogger(__name__)

_JITTER = 0.1
_OTHERS_LOOK_SECONDS = 0.5
_MOST_FAILURES_OF_A_LOOK = 3
_COUNTED = {"completed": COMPLETED, "failed": FAILED, "in_progress": IN_PROGRESS}


@dataclass(frozen=True)
class Watch:
    """What is to be waited for: the invocations beside a manifest, or one."""

    manifest_uri: str | None = None
    invocation_arn: str | None = None
    poll_interval: float = 15.0
    timeout_seconds: float = 43_200.0
    """From the last submission to the deadline."""
    waiting_since: float = field(default_factory=time.time)
    """Seconds since the epoch; the deadline counts from here where no submission is known."""
    patience: int = 2
    """How many looks at the list may miss an invocation before it is asked for by itself."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a trigger."""
        return asdict(self)


class WatchingFailedError(Exception):
    """Bedrock could not be asked; the invocations go on, and a retry looks at them again."""


class Watcher:
    """Follows invocations to their end."""

    def __init__(self, clients: Clients, watch: Watch) -> None:
        self._clients = clients
        self._watch = watch
        self._stopped = False
        self._shared = shared_list(clients)
        self._last_look: SharedLook | None = None
        # What was decided, while another thread is looking.
        self._undone: ListSince | GetEach | None = None
        invocations = self._invocations()
        self._reused = [_status_of_reused(one) for one in invocations if one.outcome is Outcome.REUSED]
        self._poller = StatusPoller(
            [one for one in invocations if one.outcome is not Outcome.REUSED],
            poll_interval=watch.poll_interval,
            timeout=watch.timeout_seconds,
            waiting_since=watch.waiting_since,
            use_list=watch.invocation_arn is None,
            patience=watch.patience,
        )

    def _invocations(self) -> list[Invocation]:
        watch = self._watch
        if watch.invocation_arn is not None:
            return [Invocation("", watch.invocation_arn, Outcome.STARTED)]
        uri = beside(watch.manifest_uri or "", INVOCATIONS)
        content = self._clients.read(uri)
        if content is None:
            logger.warning("There is no %s: nothing was started, so there is nothing to wait for.", uri)
            return []
        return read_invocations(content, uri)

    def close(self) -> None:
        """Let others look no more for what is waited for here; what it has seen is on record, or is seen again."""
        self._shared.leave(self)

    def stop(self) -> None:
        """Let a step that runs in another thread end after the call that it is making."""
        self._stopped = True

    def step(self) -> float | None:
        """Look as often as needed now; return how many seconds to wait before the next step, or None when all is known.

        The statuses are on record when it returns None. When it raises, those of the invocations that have ended are.

        :raises WatchingFailedError: when Bedrock refuses to be asked, could not be asked too many times in a row, or it was
            told to stop.
        """
        while True:
            self._go_on()
            decision = self._undone or self._poller.decide(time.time())
            if isinstance(decision, Done):
                if decision.deadline_exceeded:
                    logger.warning("%d invocations have not ended at the deadline.", len(self._poller.pending))
                self._record(self.statuses)
                return None
            if isinstance(decision, Wait):
                return decision.seconds * random.uniform(1, 1 + _JITTER)  # noqa: S311 - to spread the calls
            if isinstance(decision, GiveUp):
                self._record(one for one in self.statuses if one.status in TERMINAL)
                raise WatchingFailedError(f"Bedrock could not be asked: {decision.reason}. {_KEPT}")
            try:
                self._undone = None if self._ask(decision) else decision
            except AsyncInvokeError as error:
                logger.warning("looking at invocations failed: %s", error)
                self._undone = None
                self._poller.failed(error)
            if self._undone is not None:
                return _OTHERS_LOOK_SECONDS

    def _go_on(self) -> None:
        if self._stopped:
            raise WatchingFailedError(f"Looking was stopped. {_KEPT}")

    def _ask(self, decision: ListSince | GetEach) -> bool:
        """Ask what was decided; return whether there was an answer, or another thread is about to have it."""
        if isinstance(decision, GetEach):
            self._get(decision.invocation_arns)
            return True
        # At the deadline what others have seen before does not tell.
        interval = self._watch.poll_interval if time.time() < self._poller.deadline else 0.0
        look = self._shared.look(self, decision, since=self._last_look, interval=interval)
        if look is None:
            return False
        self._last_look = look
        self._poller.listed([look.found[arn] for arn in decision.wanted & look.found.keys()], look.age_seconds)
        return True

    def _get(self, arns: Iterable[str]) -> None:
        answers: list[dict[str, Any]] = []
        refusals: dict[str, AsyncInvokeError] = {}
        failure: AsyncInvokeError | None = None
        failed = 0
        for arn in arns:
            self._go_on()
            try:
                answers.append(self._clients.bedrock.get_async_invoke(arn))
            except AsyncInvokeError as error:
                if error.meaning is Meaning.REFUSED:
                    refusals[arn] = error
                    continue
                failure, failed = error, failed + 1
                # One that Bedrock fails over must not hide those behind it; throttling and an outage strike them all.
                if error.meaning is Meaning.THROTTLED or failed >= _MOST_FAILURES_OF_A_LOOK:
                    break
        self._poller.got(answers, refusals)
        if failure is not None:
            raise failure

    def _record(self, statuses: Iterable[InvocationStatus]) -> None:
        if self._watch.manifest_uri is not None:
            self._clients.write(self.statuses_uri, format_lines(self._with_output(list(statuses))))

    def _with_output(self, statuses: list[InvocationStatus]) -> list[InvocationStatus]:
        """Add the output's folder to those of which Bedrock said nothing: the manifest knows it."""
        manifest_uri = self._watch.manifest_uri
        if manifest_uri is None or all(one.output_uri for one in statuses):
            return statuses
        requests = read_requests(self._clients.read(manifest_uri) or b"", manifest_uri)
        prefixes = {one.request_id: one.output_uri for one in requests}
        return [
            replace(one, output_uri=output_folder(prefixes[one.request_id], one.invocation_arn))
            if not one.output_uri and one.request_id in prefixes
            else one
            for one in statuses
        ]

    @property
    def statuses_uri(self) -> str:
        """Return where the statuses are written."""
        return beside(self._watch.manifest_uri or "", STATUSES)

    @property
    def statuses(self) -> list[InvocationStatus]:
        """Return the last status of every invocation."""
        return [*self._reused, *self._poller.statuses]

    def summary(self) -> dict[str, Any]:
        """Return counts, small enough for an event and an XCom; of one invocation, its status as well."""
        statuses = self.statuses
        counts = {name: sum(one.status == status for one in statuses) for name, status in _COUNTED.items()}
        counts["other"] = len(statuses) - sum(counts.values())
        if self._watch.manifest_uri is not None:
            return {"statuses_uri": self.statuses_uri, **counts}
        [one] = statuses
        return {
            "invocation_arn": one.invocation_arn,
            "invocation_status": one.status,
            "failure_message": one.failure_message,
            "output_uri": one.output_uri,
            **counts,
        }


def _status_of_reused(invocation: Invocation) -> InvocationStatus:
    return InvocationStatus(
        request_id=invocation.request_id,
        invocation_arn=invocation.invocation_arn or "",
        status=COMPLETED,
        failure_message=None,
        submitted_at=invocation.submitted_at,
        ended_at=None,
        output_uri=invocation.output_uri or "",
    )


_KEPT = "The invocations go on; a retry looks at them again and submits nothing"


def describe_failure(invocation: Mapping[str, Any]) -> str:
    """Return what to tell people of an invocation that is not completed, from its :meth:`Watcher.summary`."""
    arn, status = invocation["invocation_arn"], invocation["invocation_status"]
    if status == FAILED:
        return (
            f"Invocation {arn} failed: {invocation['failure_message'] or 'Bedrock gave no failure message'}. "
            "A retry finds it failed again; start another under another token"
        )
    return (
        f"Invocation {arn} was {status} at the deadline. Bedrock can't stop it, so it goes on and is billed; "
        "a retry waits for it only if the deadline is put off"
    )


def watch_blocking(watcher: Watcher) -> None:
    """Wait in this thread until all is known.

    :raises WatchingFailedError: as :meth:`Watcher.step`.
    """
    try:
        while (seconds := watcher.step()) is not None:
            time.sleep(seconds)
    finally:
        watcher.close()
