"""Chooses which files of a table are worth writing anew. Pure.

A file is worth it if it is small beside another small one, or if its range of URIs overlaps another's: then a replacement has
to look into both. Writing the chosen files anew leaves fewer small files and fewer overlaps, and what is left is not chosen
again, so that upkeep of a table that nobody writes to does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil

from media_embeddings.upkeep.kept_tables import CountedFile

_LAST = chr(0x10FFFF)
_SMALL_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large files shall be, in rows of their table."""

    target: int
    """Rows of a file of good size."""
    most: int
    """Most rows that are written anew in one commit."""

    @property
    def small(self) -> float:
        """Return below how many rows a file is small.

        It is less than half a target: what is cut in two must not be small again.
        """
        return self.target * _SMALL_SHARE


@dataclass(frozen=True, slots=True)
class _Unit:
    """Files that are written anew together or not at all; none where a file of good size lies between others."""

    files: tuple[CountedFile, ...]

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self.files)


_BARRIER = _Unit(())


def choose_rewrites(files: Iterable[CountedFile], sizes: Sizes) -> list[tuple[CountedFile, ...]]:
    """Return sets of files that are to be written anew, each set in one commit.

    The files of a set are of one partition, and no file is in two sets.
    """
    by_partition = sorted(files, key=lambda one: (_partition(one), _range(one), one.file.path))
    return [
        chosen
        for _, group in groupby(by_partition, _partition)
        for chosen in _sets(_units(list(group), sizes), sizes)
        if len(chosen) > 1 or not _has_range(chosen[0])
    ]


def cut(uris: Sequence[str], rows: Sequence[int], target: int) -> list[tuple[str, str]]:
    """Return ranges of URIs, both ends included, of about equally many rows, about ``target`` at most.

    :param uris: sorted; none twice. All rows of one object lie in one range, however many they are.
    :param rows: of each object.
    """
    share = sum(rows) / max(1, ceil(sum(rows) / target))
    ranges: list[tuple[str, str]] = []
    first, seen, shares = 0, 0, 1
    for index, count in enumerate(rows):
        seen += count
        if seen >= share * shares or index == len(rows) - 1:
            ranges.append((uris[first], uris[index]))
            first, shares = index + 1, int(seen / share) + 1
    return ranges


def _units(files: Sequence[CountedFile], sizes: Sizes) -> Iterator[_Unit]:
    """Yield what may be written anew of a partition's files, in the order of their ranges."""
    for group in _entangled(files):
        whole = _Unit(tuple(group))
        if len(group) == 1:
            yield whole if whole.rows < sizes.small or not _has_range(group[0]) else _BARRIER
        elif whole.rows <= sizes.most:
            yield whole
        else:
            yield from _units_of_many(group, sizes)
            yield _BARRIER


def _units_of_many(files: Sequence[CountedFile], sizes: Sizes) -> Iterator[_Unit]:
    """Yield what may be written anew of overlapping files that are too many for one commit.

    They are taken as runs, in each of which no two files overlap, so that a replacement has to look into one file of each.
    Where there are more of them than need be, the smallest are made one; else the small files are gathered.
    """
    runs = sorted(_runs(files), key=lambda run: run.rows)
    # No more are left when neighbours that fit into one commit are made one.
    if len(runs) <= 2 * ceil(sum(run.rows for run in runs) / sizes.most) + 1:
        yield from (_Unit((one,)) for one in files if one.rows < sizes.small or not _has_range(one))
        return
    gathered: list[_Unit] = []
    for run in (*runs, None):
        if run is None or sum(one.rows for one in gathered) + run.rows > sizes.most:
            if len(gathered) > 1:
                yield _Unit(tuple(file for one in gathered for file in one.files))
                yield _BARRIER
            gathered = []
        if run is not None:
            gathered.append(run)


def _runs(files: Sequence[CountedFile]) -> list[_Unit]:
    """Return files in as few runs as possible, in each of which no two overlap.

    :param files: in the order of their ranges.
    """
    runs: list[list[CountedFile]] = []
    for one in files:
        first = _range(one)[0]
        # The run that ends nearest before it, so that what was written as one run is found as one.
        fitting = [run for run in runs if _range(run[-1])[1] <= first]
        if fitting:
            max(fitting, key=lambda run: _range(run[-1])[1]).append(one)
        else:
            runs.append([one])
    return [_Unit(tuple(run)) for run in runs]


def _entangled(files: Sequence[CountedFile]) -> Iterator[list[CountedFile]]:
    """Yield the largest groups of files whose ranges overlap one another; those that only touch do not."""
    group: list[CountedFile] = []
    reach = ""
    for one in files:
        first, last = _range(one)
        if group and first >= reach:
            yield group
            group, reach = [], ""
        group.append(one)
        reach = max(reach, last)
    if group:
        yield group


def _sets(units: Iterable[_Unit], sizes: Sizes) -> Iterator[tuple[CountedFile, ...]]:
    """Yield neighbouring units together, up to the most rows of a commit."""
    gathered: list[CountedFile] = []
    rows = 0
    for unit in (*units, _BARRIER):
        if gathered and (unit is _BARRIER or rows + unit.rows > sizes.most):
            yield tuple(gathered)
            gathered, rows = [], 0
        gathered.extend(unit.files)
        rows += unit.rows


def _partition(one: CountedFile) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, str(value)) for name, value in one.file.partition_values.items()))


def _has_range(one: CountedFile) -> bool:
    return one.file.first_uri is not None and one.file.last_uri is not None


def _range(one: CountedFile) -> tuple[str, str]:
    """Return the least and the greatest URI that it may hold."""
    return one.file.first_uri or "", _LAST if one.file.last_uri is None else one.file.last_uri
