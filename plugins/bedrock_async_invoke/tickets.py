"""Tickets: which manifests wait to be submitted. Whoever holds the lease submits them all, whoever has put them there.

A ticket is an object below the lease's folder. Who waits for a manifest writes its ticket again from time to time: one that
nobody waits for any more grows old, and nothing more of it is started.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any, Protocol

from bedrock_async_invoke.lease import Objects

REFRESH_SECONDS = 30.0
FRESH_SECONDS = 150.0
"""A ticket that was not written for so long belongs to nobody."""


class TicketObjects(Objects, Protocol):
    """Objects that can be listed and deleted as well."""

    def read(self, uri: str) -> bytes | None:
        """Return an object's content."""

    def write(self, uri: str, content: bytes) -> None:
        """Write an object whole."""

    def delete(self, uri: str) -> None:
        """Delete an object."""

    def ages(self, prefix_uri: str) -> dict[str, float]:
        """Return the URIs of the objects below a prefix, with the seconds since each was written."""


class Tickets:
    """The tickets of one submitter's folder."""

    def __init__(self, objects: TicketObjects, folder_uri: str) -> None:
        self._objects = objects
        self._folder = f"{folder_uri.rstrip('/')}/tickets"

    def uri(self, manifest_uri: str) -> str:
        """Return where the ticket of a manifest lies."""
        return f"{self._folder}/{hashlib.sha256(manifest_uri.encode()).hexdigest()[:32]}.json"

    def put(self, manifest_uri: str, submission: dict[str, Any]) -> None:
        """Write the ticket of a manifest, or write it again."""
        # The time makes it known to people when somebody was last waiting.
        content = json.dumps({"submission": submission, "waited_for_at": time.time()})
        self._objects.write(self.uri(manifest_uri), content.encode())

    def take_away(self, manifest_uri: str) -> None:
        """Remove the ticket of a manifest."""
        self._objects.delete(self.uri(manifest_uri))

    def fresh(self) -> set[str]:
        """Return the URIs of the tickets that somebody waits for."""
        return {uri for uri, age in self._objects.ages(f"{self._folder}/").items() if age <= FRESH_SECONDS}

    def read(self, ticket_uri: str) -> dict[str, Any] | None:
        """Return the submission of a ticket, or None where it is gone."""
        content = self._objects.read(ticket_uri)
        return None if content is None else dict(json.loads(content)["submission"])
