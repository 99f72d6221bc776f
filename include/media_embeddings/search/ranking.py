"""The best of many candidates, found part by part: the same ones in whatever parts and order they come."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import nsmallest
from threading import Lock


@dataclass(frozen=True, slots=True)
class Candidate:
    """A segment with its score."""

    score: float
    media_uri: str
    segment_index: int
    table: int
    """The place of its table among those that are searched."""
    file: int = field(default=0, compare=False)
    """Where its row lies: the place of the file in the table, of the row group in the file, of the row in the group."""
    group: int = field(default=0, compare=False)
    row: int = field(default=0, compare=False)

    @property
    def order(self) -> tuple[float, str, int, int]:
        """Return what candidates are sorted by: the highest score first, equal ones by what they are, not where they lie."""
        return (-self.score, self.media_uri, self.segment_index, self.table)


class Best:
    """The best so far of what was offered; several threads may offer.

    :param count: how many are kept, at least 1.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._kept: list[Candidate] = []
        self._lock = Lock()

    @property
    def floor(self) -> float:
        """Return the score below which nothing is among the best any more; -inf while there is room."""
        kept = self._kept
        return kept[-1].score if len(kept) == self.count else float("-inf")

    def offer(self, candidates: Iterable[Candidate]) -> None:
        """Keep of these and the earlier ones the best."""
        with self._lock:
            self._kept = nsmallest(self.count, [*self._kept, *candidates], key=lambda one: one.order)

    @property
    def in_order(self) -> tuple[Candidate, ...]:
        """Return the best, the nearest first; equally near ones by URI, segment and table."""
        return tuple(self._kept)
