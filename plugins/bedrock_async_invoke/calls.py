"""Several calls under way at once, each in a thread of its own, for one thread that takes in what came of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

Result = TypeVar("Result")
Other = TypeVar("Other")


class Calls(Generic[Result]):
    """The calls that are under way.

    :param at_once: the most of them; with 1 each is made by the thread that begins it.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._under_way: list[Future[Result]] = []
        self._pool: ThreadPoolExecutor | None = None

    @property
    def are_under_way(self) -> bool:
        """Return whether there are any of which it was not said what came of them."""
        return bool(self._under_way)

    @property
    def has_room(self) -> bool:
        """Return whether another can be begun."""
        return len(self._under_way) < self._at_once

    def begin(self, call: Callable[[], Result]) -> None:
        """Begin a call."""
        if self._at_once > 1:
            self._under_way.append(self.aside(call))
            return
        future: Future[Result] = Future()
        try:
            future.set_result(call())
        except Exception as error:  # noqa: BLE001 - as a thread's would be, it is raised where the result is taken
            future.set_exception(error)
        self._under_way.append(future)

    def aside(self, call: Callable[[], Other]) -> Future[Other]:
        """Begin a call beside them, of which whoever begins it takes the result."""
        self._pool = self._pool or ThreadPoolExecutor(self._at_once, thread_name_prefix="start")
        return self._pool.submit(call)

    def take_finished(self, seconds: float) -> list[Future[Result]]:
        """Return the calls that have ended; if none has, wait so many seconds for the first one."""
        finished, _ = wait(self._under_way, timeout=seconds, return_when=FIRST_COMPLETED)
        ended = [one for one in self._under_way if one in finished]
        self._under_way = [one for one in self._under_way if one not in finished]
        return ended

    def close(self) -> None:
        """Let the threads end; calls can be begun again."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
