"""Work on many things at once whose results come in order, and whose memory is bounded in bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Condition
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_WAITING_PER_THREAD = 8


class Budget:
    """How many bytes may be under way.

    What comes first in the order gets what it needs, however much that is, so that the work always goes on.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._taken: dict[int, int] = {}
        self._first = 0
        self._is_given_up = False
        self._changed = Condition()

    def take(self, place: int, size_bytes: int) -> None:
        """Return when the work at this place of the order may have so many bytes."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(place, size_bytes))
            self._taken[place] = size_bytes

    def leave(self, place: int) -> None:
        """Give back what was taken; the next place is the first one then."""
        with self._changed:
            self._taken.pop(place, None)
            self._first = place + 1
            self._changed.notify_all()

    def give_up(self) -> None:
        """Let everybody go on: nobody waits for the results any more."""
        with self._changed:
            self._is_given_up = True
            self._changed.notify_all()

    def _has_room(self, place: int, size_bytes: int) -> bool:
        return self._is_given_up or place == self._first or sum(self._taken.values()) + size_bytes <= self._most_bytes


@dataclass(frozen=True, slots=True)
class Share:
    """What a piece of work has of the budget."""

    budget: Budget
    place: int

    def take(self, size_bytes: int) -> None:
        """Return when there is room for so many bytes."""
        self.budget.take(self.place, size_bytes)


def in_order(
    work: Callable[[Item, Share], Result], items: Iterable[Item], *, threads: int, most_bytes: int
) -> Generator[Result]:
    """Yield the result of the work on each item, in the order of the items.

    An item's share of the bytes is free again when the next result is asked for. An error of the work is raised in its
    place; what has been begun after it is waited for.
    """
    budget = Budget(most_bytes)
    under_way: deque[Future[Result]] = deque()
    left = enumerate(items)
    with ThreadPoolExecutor(threads) as pool:
        try:
            done = 0
            while True:
                while len(under_way) < threads * _WAITING_PER_THREAD and (following := next(left, None)) is not None:
                    place, item = following
                    under_way.append(pool.submit(work, item, Share(budget, place)))
                if not under_way:
                    return
                yield under_way.popleft().result()
                budget.leave(done)
                done += 1
        finally:
            budget.give_up()
            for future in under_way:
                future.cancel()


def ahead(items: Iterator[Item]) -> Generator[Item]:
    """Yield what an iterator yields, of which the next one is made in a thread while the last one is worked on."""
    end = object()
    with ThreadPoolExecutor(1) as pool:
        following: Future[Item | object] = pool.submit(next, items, end)
        while (item := following.result()) is not end:
            following = pool.submit(next, items, end)
            yield item  # type: ignore[misc]
