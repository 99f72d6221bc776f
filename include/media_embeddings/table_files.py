"""The files of a Delta table: how rows come out of them and into them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.transaction import AddAction
from pyarrow.fs import FileSystem

from media_embeddings.file_writing import FileWriter, RollingWriter, file_system
from media_embeddings.in_order import ahead
from media_embeddings.schemas import columns_of
from media_embeddings.table_layout import FILE_BYTES, Layout, rows_within
from media_embeddings.table_options import TableOptions, current

_LEAST_ROWS_A_SLICE = 8
# A full file is cut in two, its halves are not, so that replacing again and again makes no ever smaller files.
_LEAST_HALF_BYTES = FILE_BYTES * 3 // 8


@dataclass(frozen=True, slots=True)
class File:
    """A file of a table, as the log knows it."""

    path: str
    size_bytes: int
    partition_values: dict[str, str]
    first_uri: str | None
    """The least ``media_uri`` in it; None where the log does not say, as after some other engines' writes."""
    last_uri: str | None
    rows: int | None = None
    """How many rows it has; None where the log does not say."""

    def uris_within(self, uris: Sequence[str]) -> Sequence[str]:
        """Return those of some sorted URIs that the file may hold."""
        low = 0 if self.first_uri is None else bisect_left(uris, self.first_uri)
        high = len(uris) if self.last_uri is None else bisect_right(uris, self.last_uri)
        return uris[low:high]

    def may_hold_prefix(self, prefixes: Sequence[str] | None) -> bool:
        """Return whether it may hold a URI that begins with one of the prefixes."""
        return prefixes is None or any(
            (self.last_uri is None or self.last_uri >= prefix)
            and (self.first_uri is None or self.first_uri[: len(prefix)] <= prefix)
            for prefix in prefixes
        )


class Files:
    """Reads and writes the files of one table.

    They are read by Python's own threads alone: those of Arrow may still let go of a Python file while the interpreter
    exits, which aborts the process (https://github.com/apache/arrow/issues/34314; measured in one of five exits).
    """

    def __init__(self, uri: str, options: TableOptions, layout: Layout) -> None:
        self.layout = layout
        self._uri, self._options = uri, options
        self._made: tuple[dict[str, str], FileSystem] | None = None

    @property
    def _filesystem(self) -> FileSystem:
        options = current(self._options)
        if self._made is None or self._made[0] != options:
            self._made = options, file_system(self._uri, options)
        return self._made[1]

    def of(self, table: DeltaTable) -> Iterator[File]:
        """Yield the files that make up the table at its version."""
        for row in pa.table(table.get_add_actions(flatten=True)).to_pylist():
            yield File(
                row["path"],
                row["size_bytes"],
                {name: row[f"partition.{name}"] for name in self.layout.partitions},
                row.get("min.media_uri"),
                row.get("max.media_uri"),
                row.get("num_records"),
            )

    def metadata(self, file: File) -> pq.FileMetaData:
        """Return what a file's footer says; none of its rows is read."""
        with self._filesystem.open_input_file(file.path) as source:
            return pq.read_metadata(source)

    def read(
        self, file: File, columns: Sequence[str], condition: Callable[[pa.Table], pa.Array] | None = None
    ) -> pa.Table:
        """Return columns of the rows for which a condition holds, in the file's order."""
        wanted = columns_of(self.layout.schema, columns)
        return pa.concat_tables([wanted.empty_table(), *self.read_groups(file, columns, condition)])

    def read_groups(
        self,
        file: File,
        columns: Sequence[str],
        condition: Callable[[pa.Table], pa.Array] | None = None,
        since: tuple[str, datetime] | None = None,
        among: range | None = None,
    ) -> Iterator[pa.Table]:
        """Yield what :meth:`read` returns, a row group at a time.

        :param since: a column and a time: row groups all of whose times are before it are left out.
        :param among: the numbers of the row groups to read; all without it.
        """
        with (
            self._filesystem.open_input_file(file.path) as source,
            pq.ParquetFile(source, pre_buffer=False) as parquet,
        ):
            stored = set(parquet.schema_arrow.names)
            names = [name for name in {*columns, "media_uri"} if name in stored]
            for group in range(parquet.num_row_groups) if among is None else among:
                if since is not None and _is_before(parquet.metadata.row_group(group), *since):
                    continue
                rows = self._as_laid_out(parquet.read_row_group(group, columns=names, use_threads=False))
                if condition is not None:
                    rows = _where(rows, condition(rows))
                yield self._completed(rows, columns, file)

    def read_batches(self, file: File, columns: Sequence[str], most_rows: int) -> Iterator[tuple[int, int, pa.Table]]:
        """Yield columns of all rows, some at a time, each with its row group and the place in it of its first row.

        Only the encoded bytes of a row group's columns are in memory as a whole.
        """
        with self._opened(file, columns) as (parquet, names):
            for group in range(parquet.num_row_groups):
                first = 0
                for batch in parquet.iter_batches(most_rows, row_groups=[group], columns=names, use_threads=False):
                    yield group, first, self._completed(pa.Table.from_batches([batch]), columns, file)
                    first += batch.num_rows

    def read_places(
        self, file: File, columns: Sequence[str], places: Mapping[int, Sequence[int]]
    ) -> Iterator[tuple[int, pa.Table]]:
        """Yield columns of the rows at some places, each row group with its number.

        :param places: of the rows in their row group, by row group.
        """
        with self._opened(file, columns) as (parquet, names):
            for group, rows in places.items():
                read = parquet.read_row_group(group, columns=names, use_threads=False)
                yield group, self._completed(read.take(rows), columns, file)

    @contextmanager
    def _opened(self, file: File, columns: Sequence[str]) -> Iterator[tuple[pq.ParquetFile, list[str]]]:
        """Yield a file, and which of the columns are in it."""
        with (
            self._filesystem.open_input_file(file.path) as source,
            pq.ParquetFile(source, pre_buffer=False) as parquet,
        ):
            stored = set(parquet.schema_arrow.names)
            yield parquet, [name for name in {*columns, "media_uri"} if name in stored]

    def _as_laid_out(self, rows: pa.Table) -> pa.Table:
        """Return stored rows with the layout's types: other engines' strings may be views, which few functions take."""
        fields = [self.layout.schema.field(name) for name in rows.column_names]
        return rows.cast(pa.schema(fields)) if rows.schema.types != [field.type for field in fields] else rows

    def _completed(self, rows: pa.Table, columns: Sequence[str], file: File) -> pa.Table:
        """Return the columns with those that are the partition's, and nulls for what an older file does not have."""
        fields = [self.layout.schema.field(name) for name in columns]
        return pa.table(
            [
                rows[field.name].cast(field.type)
                if field.name in rows.column_names
                else pa.repeat(pa.scalar(file.partition_values.get(field.name), field.type), rows.num_rows)
                for field in fields
            ],
            schema=pa.schema(fields),
        )

    def write(self, rows: pa.Table) -> list[AddAction]:
        """Write rows of the table, by partition and sorted, and return what a commit has to add."""
        rows = rows.select(self.layout.schema.names).cast(self.layout.schema)
        return [
            self._written([part], values)
            for values, partition in _partitions(rows, self.layout.partitions)
            for part in _parts(_sorted(partition.select(self.layout.stored.names), self.layout.sort))
        ]

    def write_rest(
        self, file: File, condition: Callable[[pa.Table], pa.Array], *, side_by_side: bool = False
    ) -> list[AddAction]:
        """Write the rows of a file for which a condition holds into another one, a row group in memory at a time.

        Returns what a commit has to add: nothing where there are no such rows.

        :param side_by_side: write a large file as two halves at once, each into a file of its own.
        """
        parts = _halves(self.metadata(file)) if side_by_side else [None]
        with ThreadPoolExecutor(len(parts)) as pool:
            written = list(pool.map(lambda part: self._part_written(file, condition, part), parts))
        return [add for adds in written for add in adds]

    def _part_written(
        self, file: File, condition: Callable[[pa.Table], pa.Array], among: range | None
    ) -> list[AddAction]:
        groups = ahead(self.read_groups(file, self.layout.schema.names, condition, among=among))
        with closing(groups):
            parts = (part for part in groups if part.num_rows)
            first = next(parts, None)
            return [] if first is None else [self._written(chain([first], parts), file.partition_values)]

    def rolling(self) -> RollingWriter:
        """Return a writer of new files for rows that come in order."""
        return RollingWriter(lambda: self._filesystem, self.layout)

    def _written(self, parts: Iterable[pa.Table], values: dict[str, str]) -> AddAction:
        file = FileWriter(self._filesystem, self.layout, values)
        try:
            for part in parts:
                file.write(part)
        except BaseException:
            file.abandon()
            raise
        return file.close()


def _halves(metadata: pq.FileMetaData) -> list[range | None]:
    """Cut the row groups of a large file into two ranges without a common object, as even as can be; else the whole file."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    sizes = [group.total_byte_size for group in groups]
    cuts = [
        (min(sum(sizes[:at]), sum(sizes[at:])), at)
        for at in range(1, len(groups))
        if _are_apart(groups[at - 1], groups[at])
    ]
    smaller, cut = max(cuts, default=(0, 0))
    return [range(cut), range(cut, len(groups))] if smaller >= _LEAST_HALF_BYTES else [None]


def _are_apart(group: pq.RowGroupMetaData, following: pq.RowGroupMetaData) -> bool:
    """Return whether all objects of a row group come before those of another, as far as the statistics say."""
    last, first = _statistics(group, "media_uri"), _statistics(following, "media_uri")
    return last is not None and first is not None and bool(last.max < first.min)


def _statistics(group: pq.RowGroupMetaData, column: str) -> pq.Statistics | None:
    """Return the statistics of a column; None where there are none."""
    for number in range(group.num_columns):
        chunk = group.column(number)
        if chunk.path_in_schema == column and chunk.is_stats_set and chunk.statistics.has_min_max:
            return chunk.statistics
    return None


def _is_before(group: pq.RowGroupMetaData, column: str, time: datetime) -> bool:
    """Return whether all times of a column are before one, as far as its statistics say."""
    known = _statistics(group, column)
    return known is not None and bool(known.max < time)


def _where(rows: pa.Table, condition: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return the rows for which the condition holds; as slices, where that are few, since vectors are heavy to copy."""
    holds = np.concatenate([[False], condition.to_numpy(zero_copy_only=False), [False]])
    starts, ends = np.flatnonzero(np.diff(holds.astype(np.int8))).reshape(-1, 2).T.tolist()
    if len(starts) * _LEAST_ROWS_A_SLICE > rows.num_rows:
        return rows.filter(condition)
    return pa.concat_tables([rows.slice(0, 0), *(rows.slice(at, to - at) for at, to in zip(starts, ends, strict=True))])


def _partitions(rows: pa.Table, names: Sequence[str]) -> Iterator[tuple[dict[str, str], pa.Table]]:
    """Yield the values of each partition and its rows."""
    if not names:
        yield {}, rows
        return
    for values in rows.select(names).group_by(list(names)).aggregate([]).to_pylist():
        condition = pa.scalar(True)
        for name, value in values.items():
            condition = pc.and_(condition, pc.equal(rows[name], value))
        yield values, rows if pc.all(condition).as_py() else rows.filter(condition)


def _sorted(rows: pa.Table, names: Sequence[str]) -> pa.Table:
    order = pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in names])
    # Vectors are heavy to move, and most rows come in order.
    in_order = pc.all(pc.equal(order, pa.array(range(len(order)), pa.uint64())), min_count=0)
    return rows if in_order.as_py() else rows.take(order)


def _parts(rows: pa.Table) -> Iterator[pa.Table]:
    step = rows_within(rows, FILE_BYTES)
    return (rows.slice(start, step) for start in range(0, rows.num_rows, step))
