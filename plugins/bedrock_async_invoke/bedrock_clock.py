"""What is known of Bedrock's clock, by which the list of invocations tells when each was submitted."""

from __future__ import annotations

from datetime import datetime, timedelta

CLOCK_MARGIN = timedelta(minutes=5)
"""How far this machine's clock may be off from Bedrock's as long as nothing is known of it."""

RESOLUTION = timedelta(seconds=2)
"""The list may tell whole seconds, and clocks are set right now and then."""


class BedrockClock:
    """How much later it is by Bedrock's clock than by this machine's."""

    def __init__(self) -> None:
        self._ahead: timedelta | None = None

    def observe(self, began: datetime, submitted: datetime) -> None:
        """Take in when Start was called by this machine's clock, and when that was by Bedrock's."""
        ahead = submitted - began
        self._ahead = ahead if self._ahead is None else min(ahead, self._ahead)

    def at_the_earliest(self, began: datetime) -> datetime:
        """Return the earliest time by Bedrock's clock that a Start call may have been accepted which began then."""
        return began - CLOCK_MARGIN if self._ahead is None else began + self._ahead - RESOLUTION
