"""Looks at every vector of the searched tables, in bounded memory.

A row group as it is encoded (some 12 MiB) and a thousand vectors are in memory for each thread, whatever the size of the
tables. First come the vectors and what tells rows apart; the other columns are read for the best alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from botocore.exceptions import BotoCoreError, ClientError
from deltalake.exceptions import DeltaError
from numpy.typing import NDArray

from media_embeddings.library import Library
from media_embeddings.search.cosine import Vectors, exact_cosines, margin, quick_cosines
from media_embeddings.search.queries import Narrowing
from media_embeddings.search.ranking import Best, Candidate
from media_embeddings.table_files import File, Files
from media_embeddings.tables import TableUnreadableError

_FILES_AT_ONCE = 4
# So many vectors stay in a processor's cache while they are compared.
_ROWS_AT_ONCE = 1024
_TOLD_APART_BY = ("media_uri", "segment_index")
_SHOWN = (
    "media_uri",
    "segment_index",
    "media_type",
    "start_sec",
    "end_sec",
    "start_char",
    "end_char",
    "embedding_option",
    "embedding_scope",
)


class TableUnreachableError(Exception):
    """A table can't be read; the message says which library's, in which region, and why."""


class VectorLengthError(TableUnreachableError):
    """A table has a vector of another length than its model's; the message names the file."""


@dataclass(frozen=True)
class SearchedTable:
    """One table at one version, and the libraries whose segments in it are searched."""

    libraries: tuple[Library, ...]
    """Several where they share a tables root."""
    files: Files
    parts: tuple[File, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the prefixes below which the libraries' segments lie."""
        return tuple(source for library in self.libraries for source in library.sources)

    def library_of(self, media_uri: str) -> Library:
        """Return the first of the libraries that a media object belongs to."""
        return next(library for library in self.libraries if media_uri.startswith(library.sources))


@contextmanager
def reading(libraries: Sequence[Library]) -> Iterator[None]:
    """Say of what fails within which libraries' table it is about.

    :raises TableUnreachableError: in the place of whatever S3, the network or the table's files have against it.
    """
    try:
        yield
    except (OSError, DeltaError, pa.ArrowException, BotoCoreError, ClientError, TableUnreadableError) as error:
        names = ", ".join(library.name for library in libraries)
        raise TableUnreachableError(
            f"the table of {names} in {libraries[0].region} can't be read, so there is no answer, not even one of the other "
            f"libraries; leave it out, or mend this: {error}"
        ) from error


def nearest(
    tables: Sequence[SearchedTable],
    queries: Vectors,
    narrowing: Narrowing,
    count: int,
    but: tuple[str, int | None] | None = None,
) -> tuple[tuple[Candidate, ...], dict[str, int]]:
    """Return the segments nearest to any of the queries, and how many were compared, by library.

    :param queries: shape (queries, dimension), of unit length.
    :param but: a media object, or with its number a segment of one, that is no hit.
    :raises TableUnreachableError: if any of the tables can't be read: no answer is one of a part.
    """
    best = Best(count)
    compared = {library.name: 0 for table in tables for library in table.libraries}
    counting = threading.Lock()

    def scan(work: tuple[int, int]) -> None:
        place, number = work
        table = tables[place]
        scanned = _Scan(table, place, number, queries, narrowing, but)
        with reading(table.libraries):
            for name, rows in scanned.into(best):
                with counting:
                    compared[name] += rows

    work = [
        (place, number)
        for place, table in enumerate(tables)
        for number, file in enumerate(table.parts)
        if file.may_hold_prefix(table.sources)
        and (narrowing.media_types is None or file.partition_values["media_type"] in narrowing.media_types)
    ]
    # The largest first, so that no long one is left for the end.
    work.sort(key=lambda one: -tables[one[0]].parts[one[1]].size_bytes)
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        under_way = [pool.submit(scan, one) for one in work]
        try:
            for one in under_way:
                one.result()
        finally:
            for one in under_way:
                one.cancel()
    return best.in_order, compared


def rows_of(tables: Sequence[SearchedTable], candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return what is shown of each candidate, by the names of the columns, in their order."""
    by_file: dict[tuple[int, int], dict[int, list[int]]] = {}
    for one in candidates:
        by_file.setdefault((one.table, one.file), {}).setdefault(one.group, []).append(one.row)

    def read(work: tuple[tuple[int, int], dict[int, list[int]]]) -> dict[tuple[int, int, int, int], dict[str, Any]]:
        (place, number), wanted = work
        table = tables[place]
        found: dict[tuple[int, int, int, int], dict[str, Any]] = {}
        with reading(table.libraries):
            for group, rows in table.files.read_places(table.parts[number], _SHOWN, wanted):
                shown = zip(wanted[group], rows.to_pylist(), strict=True)
                found |= {(place, number, group, row): one for row, one in shown}
        return found

    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        rows = {where: row for part in pool.map(read, by_file.items()) for where, row in part.items()}
    return [rows[one.table, one.file, one.group, one.row] for one in candidates]


class _Scan:
    """One file of a table, compared with the queries."""

    def __init__(
        self,
        table: SearchedTable,
        place: int,
        number: int,
        queries: Vectors,
        narrowing: Narrowing,
        but: tuple[str, int | None] | None,
    ) -> None:
        self._table, self._place, self._number = table, place, number
        self._queries, self._narrowing, self._but = queries, narrowing, but
        self._dimension = queries.shape[1]
        self._margin = margin(self._dimension)

    def into(self, best: Best) -> Iterator[tuple[str, int]]:
        """Offer what may be among the best, some rows at a time; yield how many were compared, by library."""
        file = self._table.parts[self._number]
        for group, first, rows in self._table.files.read_batches(file, self._columns, _ROWS_AT_ONCE):
            wanted = self._wanted(rows)
            if wanted.any():
                self._compare(rows, wanted, best, group, first)
                yield from self._counted(rows, wanted)

    @property
    def _columns(self) -> tuple[str, ...]:
        narrowed = {
            "embedding_option": self._narrowing.options is not None,
            "embedding_scope": self._narrowing.scope is not None,
        }
        return ("embedding", *_TOLD_APART_BY, *(name for name, is_read in narrowed.items() if is_read))

    def _wanted(self, rows: pa.Table) -> NDArray[np.bool_]:
        """Return which rows are of the libraries, and not narrowed away."""
        wanted = _below(rows["media_uri"], self._table.sources)
        if self._narrowing.options is not None:
            wanted &= _is_in(rows["embedding_option"], self._narrowing.options)
        if self._narrowing.scope is not None:
            wanted &= _is_in(rows["embedding_scope"], {self._narrowing.scope})
        if self._but is not None:
            uri, segment = self._but
            left_out = _is_in(rows["media_uri"], {uri})
            if segment is not None:
                left_out &= rows["segment_index"].to_numpy() == segment
            wanted &= ~left_out
        return wanted

    def _compare(self, rows: pa.Table, wanted: NDArray[np.bool_], best: Best, group: int, first: int) -> None:
        vectors = self._vectors(rows["embedding"].combine_chunks())
        cosines = np.where(wanted, quick_cosines(vectors, self._queries).astype(np.float64), -np.inf)
        places = np.flatnonzero(cosines >= self._least(cosines, best))
        scores = exact_cosines(vectors[places], self._queries)
        floor = best.floor
        near = [(place, score) for place, score in zip(places.tolist(), scores.tolist(), strict=True) if score >= floor]
        best.offer(
            Candidate(
                score,
                rows["media_uri"][place].as_py(),
                rows["segment_index"][place].as_py(),
                *(self._place, self._number, group, first + place),
            )
            for place, score in near
            if score > float("-inf")
        )

    def _least(self, cosines: NDArray[np.float64], best: Best) -> float:
        """Return the quick cosine below which a row can't be among the best, so that no other is looked at exactly."""
        count = best.count
        of_these = float(np.partition(cosines, -count)[-count]) if len(cosines) > count else float("-inf")
        # Twice: the row that sets the mark may be too high by one margin, and the row below it too low by another.
        return max(of_these - 2 * self._margin, best.floor - self._margin, float(np.finfo(np.float64).min))

    def _vectors(self, column: pa.ListArray) -> Vectors:
        """Return the vectors as a matrix; of Arrow's own memory, not a copy of it."""
        values = column.flatten().to_numpy()
        lengths = np.diff(column.offsets.to_numpy())
        if not (lengths == self._dimension).all():
            raise VectorLengthError(
                f"{self._table.parts[self._number].path} has a vector that is not {self._dimension} numbers long, as all of "
                "its model are; restore the file, or embed its objects again with force"
            )
        matrix: Vectors = values.reshape(len(column), self._dimension)
        return matrix

    def _counted(self, rows: pa.Table, wanted: NDArray[np.bool_]) -> Iterator[tuple[str, int]]:
        first, *others = self._table.libraries
        if not others:
            yield first.name, int(wanted.sum())
            return
        left = wanted.copy()
        for library in self._table.libraries:
            of_library = left & _below(rows["media_uri"], library.sources)
            yield library.name, int(of_library.sum())
            left &= ~of_library


def _below(uris: pa.ChunkedArray, prefixes: Sequence[str]) -> NDArray[np.bool_]:
    below = np.zeros(len(uris), dtype=bool)
    for prefix in prefixes:
        below |= pc.starts_with(uris, prefix).to_numpy()
    return below


def _is_in(column: pa.ChunkedArray, values: Sequence[str] | frozenset[str] | set[str]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = pc.is_in(column, value_set=pa.array(sorted(values), pa.string())).to_numpy()
    return found
