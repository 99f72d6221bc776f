"""Reads several files at once, with as many in memory as are read at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

_AT_ONCE = 8
Given = TypeVar("Given")
Read = TypeVar("Read")


def read_ahead(read: Callable[[Given], Read], given: Iterable[Given]) -> Iterator[Read]:
    """Yield what is read for each of the given, in their order."""
    remaining = iter(given)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while several := list(islice(remaining, _AT_ONCE)):
            yield from pool.map(read, several)
