"""The lease of the one process that may start invocations: an object on S3 that is written under a condition.

Who holds it writes it again before it runs out. Whether somebody else's has run out is told by S3's clock alone, whether
one's own still holds by this machine's alone, counted from before the write: so it never holds here for longer than it
looks held from outside, however the machines' clocks differ. Every holder's fence is higher than the one before.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from bedrock_async_invoke.clients import StoredObject

logger = logging.getLogger(__name__)

# S3 tells times in whole seconds.
_RESOLUTION_SECONDS = 2.0


class Objects(Protocol):
    """Objects that can be written under a condition; see :class:`~bedrock_async_invoke.clients.Clients`."""

    def read_object(self, uri: str) -> StoredObject | None:
        """Return an object with its ETag and age."""

    def write_if(self, uri: str, content: bytes, *, etag: str | None) -> str | None:
        """Write an object if nobody else has."""


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What the object says."""

    owner: str
    fence: int
    seconds: float
    """How long after it was written it holds."""
    writes: int = 0
    """Makes every content another one, so that a renewal is seen in the ETag."""
    released: bool = False
    last_words: dict[str, str] | None = None
    """What a holder that has let it go tells the next one."""

    @classmethod
    def of(cls, content: bytes) -> LeaseRecord:
        """Return the record of an object's content."""
        return cls(**json.loads(content))

    def has_run_out(self, age_seconds: float) -> bool:
        """Return whether another may take it, so many seconds after it was written."""
        return self.released or age_seconds > self.seconds + _RESOLUTION_SECONDS


def now() -> float:
    """Return seconds that also pass while the machine is suspended, and never go back."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Lease:
    """A lease as one process takes, renews and loses it.

    :param owner: names this process among all.
    :param seconds: how long it holds without being renewed.
    """

    def __init__(self, objects: Objects, uri: str, owner: str, seconds: float) -> None:
        self._objects = objects
        self.uri = uri
        self.owner = owner
        self._seconds = seconds
        self._record: LeaseRecord | None = None
        self._etag: str | None = None
        self._until = 0.0
        self.taken_at = 0.0
        """When this process last became the holder, by :func:`now`."""
        self.last_words: dict[str, str] | None = None
        """What the holder before has said when it let the lease go; None where it ended without a word."""

    @property
    def fence(self) -> int:
        """Return the number of this holder; 0 before it was one."""
        return self._record.fence if self._record else 0

    @property
    def holds(self) -> bool:
        """Return whether it holds at this moment; asks nobody."""
        return self._record is not None and now() < self._until

    def hold(self) -> bool:
        """Take it or renew it where that is due, and return whether it holds."""
        if self._record is not None and now() < self._until - self._seconds * 2 / 3:
            return True
        if self._record is not None and self._etag is not None and self._write(self._record, self._etag):
            return True
        return self._take()

    def release(self, last_words: dict[str, str] | None) -> None:
        """Let another take it at once, and tell it what it can't know otherwise."""
        if self.holds and self._record is not None:
            record = replace(self._record, released=True, last_words=last_words)
            self._objects.write_if(self.uri, _content(record), etag=self._etag)
        self._record = self._etag = None

    def _take(self) -> bool:
        if self._record is not None:
            logger.warning("The lease %s was taken over by another submitter", self.uri)
        mine, self._record = self._record, None
        found = self._objects.read_object(self.uri)
        if found is None:
            self.last_words = {}
            return self._become_holder(LeaseRecord(self.owner, 1, self._seconds), None)
        record = LeaseRecord.of(found.content)
        # A write of ours whose answer was lost.
        if mine is not None and (record.owner, record.fence) == (mine.owner, mine.fence) and not record.released:
            return self._write(mine, found.etag)
        if not record.has_run_out(found.age_seconds):
            return False
        self.last_words = record.last_words
        return self._become_holder(LeaseRecord(self.owner, record.fence + 1, self._seconds), found.etag)

    def _become_holder(self, record: LeaseRecord, etag: str | None) -> bool:
        if not self._write(record, etag):
            return False
        self.taken_at = now()
        logger.info("This process now submits: it holds the lease %s, fence %d", self.uri, record.fence)
        return True

    def _write(self, record: LeaseRecord, etag: str | None) -> bool:
        began = now()
        record = replace(record, writes=record.writes + 1)
        written = self._objects.write_if(self.uri, _content(record), etag=etag)
        if written is None:
            return False
        self._record, self._etag, self._until = record, written, began + self._seconds
        return self.holds


def _content(record: LeaseRecord) -> bytes:
    return json.dumps(asdict(record)).encode()
