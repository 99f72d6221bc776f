"""Intents: the records that say, before a paid call is made, who is about to make it. One object a request id.

It is created under the condition that there is none, so of two submitters one alone goes on; the invocation's ARN is added
once it is known. An intent without an ARN may stand for an invocation that the list does not show yet: it is taken over
only after a look that began late enough.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime

from bedrock_async_invoke.lease import Objects

START, INVOKE = "StartAsyncInvoke", "InvokeModel"
"""The calls that an intent may stand for."""


@dataclass(frozen=True, slots=True)
class Intent:
    """What an intent says."""

    request_id: str
    owner: str
    fence: int
    manifest_uri: str | None
    """Where the request stands, for people."""
    invocation_arn: str | None = None
    submitted_at: str | None = None
    """ISO 8601, UTC; when Start was called."""
    operation: str = START
    """The call that is about to be made."""
    holds_seconds: float = 0.0
    """So long after the intent was written its owner may be at the call; 0 for one that is not going to make it."""
    lost_answers: int = 0
    """Calls that were made before, by any owner, and of which no answer came."""
    lease_uri: str | None = None
    """The lease under which a Start is made: it keeps those from it that have held the lease before."""

    @classmethod
    def of(cls, content: bytes) -> Intent:
        """Return the intent of an object's content."""
        return cls(**json.loads(content))

    @property
    def content(self) -> bytes:
        """Return the object's content."""
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True, slots=True)
class FoundIntent:
    """An intent that was there already."""

    intent: Intent
    etag: str
    written_at: datetime
    age_seconds: float


class Intents:
    """The intents below one prefix."""

    def __init__(self, objects: Objects, prefix_uri: str) -> None:
        self._objects = objects
        self._prefix = prefix_uri.rstrip("/")

    def declare(self, intent: Intent) -> FoundIntent | str:
        """Create an intent and return its ETag; where there is one already, return that."""
        uri = self._uri(intent.request_id)
        while True:
            etag = self._objects.write_if(uri, intent.content, etag=None)
            if etag is not None:
                return etag
            found = self._objects.read_object(uri)
            # Between the two calls it may have been removed.
            if found is not None:
                return FoundIntent(Intent.of(found.content), found.etag, found.written_at, found.age_seconds)

    def replace(self, intent: Intent, etag: str) -> str | None:
        """Write over an intent that has not changed since, and return its new ETag; None where it has."""
        return self._objects.write_if(self._uri(intent.request_id), intent.content, etag=etag)

    def _uri(self, request_id: str) -> str:
        return f"{self._prefix}/{request_id}"
