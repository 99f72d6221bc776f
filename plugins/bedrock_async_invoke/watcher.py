"""Makes the calls that the status poller decides on. Blocking: for a worker, or for a thread of the triggerer."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bedrock_async_invoke.clients import Clients
from bedrock_async_invoke.errors import AsyncInvokeError
from bedrock_async_invoke.manifest import (
    INVOCATIONS,
    STATUSES,
    Invocation,
    InvocationStatus,
    Outcome,
    beside,
    format_lines,
    parse_lines,
)
from bedrock_async_invoke.polling import (
    COMPLETED,
    FAILED,
    IN_PROGRESS,
    Done,
    GetEach,
    GiveUp,
    ListSince,
    StatusPoller,
    Wait,
)

logger = logging.getLogger(__name__)

_CLOCK_MARGIN = timedelta(minutes=5)
_JITTER = 0.1


@dataclass(frozen=True)
class Watch:
    """What is to be waited for: the invocations beside a manifest, or one."""

    manifest_uri: str | None = None
    invocation_arn: str | None = None
    poll_interval: float = 15.0
    timeout_seconds: float = 43_200.0
    """Counted from the last submission."""
    started_waiting: float = 0.0
    """Seconds since the epoch; the time-out counts from here where no submission is known."""
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
        invocations = self._invocations()
        self._poller = StatusPoller(
            invocations,
            poll_interval=watch.poll_interval,
            deadline=_deadline(invocations, watch),
            patience=watch.patience,
        )

    def _invocations(self) -> list[Invocation]:
        watch = self._watch
        if watch.invocation_arn is not None:
            return [Invocation("", watch.invocation_arn, Outcome.STARTED)]
        uri = beside(watch.manifest_uri or "", INVOCATIONS)
        content = self._clients.read(uri)
        if content is None:
            logger.warning("there is no %s: nothing was started, so there is nothing to wait for", uri)
            return []
        return [Invocation.from_dict(line) for line in parse_lines(content)]

    def step(self) -> float | None:
        """Look as often as needed now; return how many seconds to wait before the next step, or None when all is known.

        :raises WatchingFailedError: when Bedrock could not be asked too many times in a row.
        """
        while True:
            decision = self._poller.decide(time.time())
            if isinstance(decision, Done):
                if decision.deadline_exceeded:
                    logger.warning("%d invocations have not ended at the deadline", len(self._poller.pending))
                self._record()
                return None
            if isinstance(decision, Wait):
                return decision.seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - to spread the calls
            if isinstance(decision, GiveUp):
                raise WatchingFailedError(
                    f"Bedrock could not be asked: {decision.reason}. The invocations go on; a retry looks at them again "
                    "and submits nothing"
                )
            try:
                self._ask(decision)
            except AsyncInvokeError as error:
                logger.warning("looking at invocations failed: %s", error)
                self._poller.failed(error)

    def _ask(self, decision: ListSince | GetEach) -> None:
        if isinstance(decision, GetEach) or self._watch.invocation_arn is not None:
            arns = decision.invocation_arns if isinstance(decision, GetEach) else tuple(decision.wanted)
            self._poller.got([self._clients.bedrock.get_async_invoke(arn) for arn in arns])
            return
        since = decision.submitted_after
        found: list[dict[str, Any]] = []
        missing = set(decision.wanted)
        for page in self._clients.bedrock.list_async_invokes(
            submitted_after=None if since is None else datetime.fromisoformat(since) - _CLOCK_MARGIN
        ):
            found += [one for one in page if one["invocationArn"] in missing]
            missing -= {one["invocationArn"] for one in page}
            if not missing:
                break
        self._poller.listed(found)

    def _record(self) -> None:
        if self._watch.manifest_uri is not None:
            self._clients.write(self.statuses_uri, format_lines(self._poller.statuses))

    @property
    def statuses_uri(self) -> str:
        """Return where the statuses are written."""
        return beside(self._watch.manifest_uri or "", STATUSES)

    @property
    def statuses(self) -> list[InvocationStatus]:
        """Return the last status of every invocation."""
        return self._poller.statuses

    def summary(self) -> dict[str, Any]:
        """Return counts, small enough for an event and an XCom."""
        statuses = [one.status for one in self.statuses]
        counts = {name: statuses.count(status) for name, status in _COUNTED.items()}
        watch = self._watch
        subject = (
            {"invocation_arn": watch.invocation_arn}
            if watch.manifest_uri is None
            else {"statuses_uri": self.statuses_uri}
        )
        return {
            **subject,
            "invocations": len(statuses),
            **counts,
            "other": len(statuses) - sum(counts.values()),
        }


_COUNTED = {"completed": COMPLETED, "failed": FAILED, "in_progress": IN_PROGRESS}


def _deadline(invocations: list[Invocation], watch: Watch) -> float:
    submitted = [
        datetime.fromisoformat(one.submitted_at).astimezone(UTC).timestamp() for one in invocations if one.submitted_at
    ]
    return max(submitted, default=watch.started_waiting) + watch.timeout_seconds


def watch_blocking(watcher: Watcher, sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait in this thread until all is known."""
    while (seconds := watcher.step()) is not None:
        sleep(seconds)
