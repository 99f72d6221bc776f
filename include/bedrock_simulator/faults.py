"""The faults that the simulator can be told to commit.

To add one: give it a name in :data:`KINDS`, and act on it where its stage is handled: request and response faults in
``application.py``, job faults in ``jobs.py`` (:meth:`Outcome.of`), output faults in ``output_faults.py``.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from .documents import from_document, to_document
from .errors import HTTP_STATUSES


class Stage(StrEnum):
    """When a fault strikes."""

    REQUEST = "request"
    """before the operation: nothing has happened"""
    TOKEN = "token"  # noqa: S105 (no password)
    """when StartAsyncInvoke looks its token up"""
    LIST = "list"
    """in what ListAsyncInvokes answers"""
    RESPONSE = "response"
    """after the operation: it has happened, but the answer does not come as it should"""
    JOB = "job"
    """in the course of an accepted job"""
    OUTPUT = "output"
    """in what an accepted job writes"""


KINDS: dict[str, Stage] = {
    "error": Stage.REQUEST,  # code, message: the operation answers with this error
    "connection_reset": Stage.REQUEST,  # the connection is reset before anything happens
    "no_response": Stage.REQUEST,  # seconds: nothing happens, and after that time the connection is closed
    "token_forgotten": Stage.TOKEN,  # the token is not recognised: a second job is accepted, and charged
    "duplicate_page": Stage.LIST,  # the page's nextToken leads to the same page once more
    "lost_response": Stage.RESPONSE,  # the operation happens, the connection is closed without an answer
    "slow_response": Stage.RESPONSE,  # seconds: the answer comes so much later
    "stuck": Stage.JOB,  # seconds (None: for ever): the job stays InProgress
    "late_listing": Stage.JOB,  # seconds: so long after its submission the job first shows in lists
    "stale_status": Stage.JOB,  # seconds: so long after its end lists still show the job InProgress
    "failed": Stage.JOB,  # message: the job ends Failed
    "unknown_status": Stage.JOB,  # status: the job ends with a status outside the enum, e.g. Expired
    "output_missing": Stage.OUTPUT,  # the job is Completed without output.json
    "output_late": Stage.OUTPUT,  # seconds: output.json appears so long after the job is Completed
    "output_truncated": Stage.OUTPUT,  # output.json stops in the middle
    "output_malformed": Stage.OUTPUT,  # output.json is no JSON
    "output_without_data": Stage.OUTPUT,  # output.json is JSON, but of another shape
    "wrong_dimension": Stage.OUTPUT,  # dimension: the vectors are shorter or longer
    "non_finite": Stage.OUTPUT,  # value: NaN, Infinity or -Infinity in one row
    "zero_vector": Stage.OUTPUT,  # all numbers of one row are zero
    "missing_option": Stage.OUTPUT,  # option: there are no rows of this embeddingOption
    "missing_segment": Stage.OUTPUT,  # the rows of one stretch of time in the middle are left out
    "segment_failed": Stage.OUTPUT,  # reason: one segment has failed, in the output of a model that says so (Nova)
    "overlapping_segment": Stage.OUTPUT,  # one row begins where the row before begins
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault and when it strikes.

    It strikes calls whose operation, model id and source match the globs ``operation``, ``model`` and ``source`` (a
    source matches by its URI or its key; a call without media has the source ``""``), not before ``after`` such calls
    were spared, at most ``count`` times, each time with probability ``rate`` (drawn from ``seed``, so that a run can
    be repeated). Job and output faults are drawn when StartAsyncInvoke accepts the job and stay with it.
    """

    kind: str
    operation: str = "*"
    source: str = "*"
    model: str = "*"
    after: int = 0
    count: int | None = None
    rate: float = 1.0
    seed: int = 0
    code: str = "ThrottlingException"
    message: str = "Injected by the simulator."
    status: str = "Expired"
    seconds: float | None = None
    dimension: int = 3
    value: str = "NaN"
    option: str = "audio"
    reason: str = "INVALID_CONTENT"
    retry_after: float | None = None
    """Seconds that an error asks to wait, in a Retry-After header."""
    from_seconds: float = 0.0
    until_seconds: float | None = None
    """It strikes between these, in seconds of the simulator's clock since it was set; None for ever."""

    def __post_init__(self) -> None:
        """Refuse what can't strike."""
        if self.kind not in KINDS:
            raise ValueError(f"There is no fault {self.kind!r}; there are {', '.join(KINDS)}.")
        if self.code not in HTTP_STATUSES:
            raise ValueError(f"There is no error code {self.code!r}; there are {', '.join(HTTP_STATUSES)}.")
        if not 0 <= self.rate <= 1:
            raise ValueError(f"A fault's rate is 0 to 1, not {self.rate}.")
        if self.value not in ("NaN", "Infinity", "-Infinity"):
            raise ValueError(f"A fault's value is NaN, Infinity or -Infinity, not {self.value!r}.")

    @property
    def stage(self) -> Stage:
        """When it strikes."""
        return KINDS[self.kind]

    def matches(self, operation: str, model_id: str, source: str) -> bool:
        """Say whether a call is one that this fault may strike."""
        key = source.removeprefix("s3://").partition("/")[2]
        return (
            fnmatchcase(operation, self.operation)
            and fnmatchcase(model_id, self.model)
            and (fnmatchcase(source, self.source) or fnmatchcase(key, self.source))
        )


class _Standing:
    """A fault and what it has done."""

    def __init__(self, fault: Fault, set_ms: int, matched: int = 0, struck: int = 0) -> None:
        self.fault = fault
        self.set_ms = set_ms
        self.matched = matched
        self.struck = struck

    def is_due(self, now_ms: int) -> bool:
        since = (now_ms - self.set_ms) / 1000
        until = self.fault.until_seconds
        return since >= self.fault.from_seconds and (until is None or since < until)

    def strikes(self) -> bool:
        self.matched += 1
        fault = self.fault
        if self.matched <= fault.after or (fault.count is not None and self.struck >= fault.count):
            return False
        draw = random.Random(f"{fault.seed} {self.matched}").random()  # noqa: S311  (to be repeated)
        if fault.rate < 1.0 and draw >= fault.rate:
            return False
        self.struck += 1
        return True


class FaultBook:
    """The standing faults.

    Thread-safe. ``save`` is called with the document of :meth:`document` after every change, so that a restart
    forgets nothing.
    """

    def __init__(self, saved: object, save: Callable[[list[dict[str, Any]]], None], now_ms: Callable[[], int]) -> None:
        self._lock = threading.Lock()
        self._save = save
        self._now_ms = now_ms
        self._standing: list[_Standing] = []
        for entry in saved if isinstance(saved, list) else []:
            fault = {name: value for name, value in entry.items() if name not in ("matched", "struck", "set_ms")}
            standing = _Standing(from_document(Fault, fault), entry["set_ms"], entry["matched"], entry["struck"])
            self._standing.append(standing)

    def take(self, stages: Iterable[Stage], operation: str, model_id: str, source: str) -> list[Fault]:
        """Return the faults of the stages that strike this call, and count them as struck."""
        with self._lock:
            if not self._standing:
                return []
            wanted = frozenset(stages)
            matching = [
                standing
                for standing in self._standing
                if standing.fault.stage in wanted
                and standing.is_due(self._now_ms())
                and standing.fault.matches(operation, model_id, source)
            ]
            struck = [standing.fault for standing in matching if standing.strikes()]
            document = self._document()
        # Outside the lock: whoever saves holds a lock of its own, and may hold it while it asks for faults.
        if matching:
            self._save(document)
        return struck

    def replace(self, faults: Iterable[Fault]) -> None:
        """Let these faults stand, and no others."""
        with self._lock:
            self._standing = [_Standing(fault, self._now_ms()) for fault in faults]
            document = self._document()
        self._save(document)

    def add(self, faults: Iterable[Fault]) -> None:
        """Let these faults stand as well."""
        with self._lock:
            self._standing += [_Standing(fault, self._now_ms()) for fault in faults]
            document = self._document()
        self._save(document)

    def document(self) -> list[dict[str, Any]]:
        """Return each standing fault as a JSON object, with the numbers of calls it matched and struck."""
        with self._lock:
            return self._document()

    def _document(self) -> list[dict[str, Any]]:
        return [
            {
                **to_document(standing.fault),
                "set_ms": standing.set_ms,
                "matched": standing.matched,
                "struck": standing.struck,
            }
            for standing in self._standing
        ]
