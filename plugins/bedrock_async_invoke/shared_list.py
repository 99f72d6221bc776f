"""One look at Bedrock's list for everybody in a process who waits for invocations, instead of a look each."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

from bedrock_async_invoke.clients import Clients
from bedrock_async_invoke.polling import TERMINAL, ListSince

# An older look is left to others, so that all come to look at the same time.
_SHARE_OF_INTERVAL = 0.5
_MOST_ENDED = 10_000


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
        self._noting = threading.Lock()
        self._members: WeakKeyDictionary[object, ListSince] = WeakKeyDictionary()
        self._last: SharedLook | None = None
        # What a look for other reasons has shown, and the summaries of those that have ended of all such looks.
        self._noted: SharedLook | None = None
        self._ended: dict[str, Mapping[str, Any]] = {}

    def note(self, summaries: Iterable[Mapping[str, Any]]) -> None:
        """Take in a look for other reasons: who waits for what it shows need not look for it."""
        began = time.monotonic()
        found = {one["invocationArn"]: one for one in summaries}
        with self._noting:
            self._ended |= {arn: one for arn, one in found.items() if one.get("status") in TERMINAL}
            while len(self._ended) > _MOST_ENDED:
                del self._ended[next(iter(self._ended))]
            self._noted = SharedLook(began, frozenset(found), found)

    def _noted_for(self, wish: ListSince, since: SharedLook | None, interval: float) -> SharedLook | None:
        """Return what others' looks have shown of everything that a member wishes to see, if it is no older than its own."""
        with self._noting:
            noted = self._noted
            if noted is None or noted.age_seconds >= interval or (since is not None and noted.began <= since.began):
                return None
            found = {arn: self._ended.get(arn) or noted.found.get(arn) for arn in wish.wanted}
        shown = {arn: one for arn, one in found.items() if one is not None}
        return SharedLook(noted.began, wish.wanted, shown) if len(shown) == len(found) else None

    def look(self, member: object, wish: ListSince, *, since: SharedLook | None, interval: float) -> SharedLook | None:
        """Return a look that shows what a member wishes to see; None if another thread is about to have it.

        :param since: the member's last look: a later one is wanted.
        :param interval: the seconds between two looks of the member.
        :raises AsyncInvokeError: if the list could not be looked at.
        """
        if (noted := self._noted_for(wish, since, interval)) is not None:
            return noted
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
