"""One look at Bedrock's list for everybody in a process who waits for invocations, instead of a look each."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

from bedrock_async_invoke.clients import Clients
from bedrock_async_invoke.polling import ListSince

# An older look is left to others, so that all come to look at the same time.
_SHARE_OF_INTERVAL = 0.5


@dataclass(frozen=True, slots=True)
class SharedLook:
    """A look at the list."""

    began: float
    """By a clock that never goes back."""
    wanted: frozenset[str]
    """The ARNs that were looked for."""
    found: Mapping[str, Mapping[str, Any]]
    """The summaries of those that were there, by ARN."""

    @property
    def age_seconds(self) -> float:
        """Return how long ago it began."""
        return max(0.0, time.monotonic() - self.began)


class SharedList:
    """The list of invocations, as those see it who wait."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._lock = threading.Lock()
        self._members: WeakKeyDictionary[object, ListSince] = WeakKeyDictionary()
        self._last: SharedLook | None = None

    def look(self, member: object, wish: ListSince, *, since: SharedLook | None, interval: float) -> SharedLook | None:
        """Return a look that shows what a member wishes to see; None if another thread is about to have it.

        :param since: the member's last look: a later one is wanted.
        :param interval: the seconds between two looks of the member.
        :raises AsyncInvokeError: if the list could not be looked at.
        """
        if not self._lock.acquire(blocking=False):
            return None
        try:
            self._members[member] = wish
            last = self._last
            if (
                last is None
                or last is since
                or last.age_seconds >= _SHARE_OF_INTERVAL * interval
                or not wish.wanted <= last.wanted
            ):
                last = self._last = self._look()
            return last
        finally:
            self._lock.release()

    def leave(self, member: object) -> None:
        """Look for what a member wishes no longer."""
        self._members.pop(member, None)

    def _look(self) -> SharedLook:
        began = time.monotonic()
        wishes = list(self._members.values())
        wanted = frozenset().union(*(wish.wanted for wish in wishes))
        found: dict[str, Mapping[str, Any]] = {}
        for page in self._clients.bedrock.list_async_invokes(
            submitted_after=_oldest(wish.submitted_after for wish in wishes)
        ):
            found |= {one["invocationArn"]: one for one in page if one["invocationArn"] in wanted}
            if len(found) == len(wanted):
                break
        return SharedLook(began, wanted, found)


def _oldest(times: Any) -> datetime | None:
    known = list(times)
    return None if None in known else min(known)


_lock = threading.Lock()
_lists: WeakKeyDictionary[Clients, SharedList] = WeakKeyDictionary()


def shared_list(clients: Clients) -> SharedList:
    """Return the list that everybody in this process shares who uses these clients."""
    with _lock:
        if clients not in _lists:
            _lists[clients] = SharedList(clients)
        return _lists[clients]
