"""The files of a Delta table: how they are laid out, and how rows come out of them and into them."""

from __future__ import annotations

import json
import re
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction
from pyarrow.fs import PyFileSystem

_FILE_BYTES = 128 * 1024**2
_ROW_GROUP_BYTES = 32 * 1024**2


@dataclass(frozen=True)
class Layout:
    """How a table is laid out: its columns, its partitions, and how the rows of a file are sorted."""

    schema: pa.Schema
    partitions: tuple[str, ...]
    sort: tuple[str, ...]

    @cached_property
    def stored(self) -> pa.Schema:
        """The columns that are in the files; those of the partitions stand in the log."""
        return pa.schema(
            [field for field in self.schema if field.name not in self.partitions], metadata=self.schema.metadata
        )

    @property
    def configuration(self) -> dict[str, str]:
        """Return the table properties that a new table gets."""
        return {
            "delta.dataSkippingStatsColumns": ",".join(self.sort),
            # Commit ids are remembered for as long as a task may still be cleared and repeat its commit.
            "delta.setTransactionRetentionDuration": "interval 90 days",
        }


@dataclass(frozen=True, slots=True)
class File:
    """A file of a table, as the log knows it."""

    path: str
    size_bytes: int
    partition_values: dict[str, str]
    first_uri: str | None
    """The least ``media_uri`` in it; None where the log does not say, as after some other engines' writes."""
    last_uri: str | None

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

    def __init__(self, uri: str, options: dict[str, str], layout: Layout) -> None:
        self.layout = layout
        self._filesystem = PyFileSystem(DeltaStorageHandler(uri, options))

    def of(self, table: DeltaTable) -> Iterator[File]:
        """Yield the files that make up the table at its version."""
        for row in pa.table(table.get_add_actions(flatten=True)).to_pylist():
            yield File(
                row["path"],
                row["size_bytes"],
                {name: row[f"partition.{name}"] for name in self.layout.partitions},
                row.get("min.media_uri"),
                row.get("max.media_uri"),
            )

    def metadata(self, file: File) -> pq.FileMetaData:
        """Return what a file's footer says; none of its rows is read."""
        with self._filesystem.open_input_file(file.path) as source:
            return pq.read_metadata(source)

    def read(
        self, file: File, columns: Sequence[str], condition: Callable[[pa.Table], pa.Array] | None = None
    ) -> pa.Table:
        """Return columns of the rows for which a condition holds, in the file's order."""
        schema = self.layout.schema
        with (
            self._filesystem.open_input_file(file.path) as source,
            pq.ParquetFile(source, pre_buffer=False) as parquet,
        ):
            stored = set(parquet.schema_arrow.names)
            parts = []
            for group in range(parquet.num_row_groups):
                names = [name for name in {*columns, "media_uri"} if name in stored]
                rows = parquet.read_row_group(group, columns=names, use_threads=False)
                if condition is not None:
                    rows = rows.filter(condition(rows))
                parts.append(self._completed(rows, columns, file))
        wanted = pa.schema([schema.field(name) for name in columns])
        return pa.concat_tables([wanted.empty_table(), *parts])

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
            self._write_file(part, values)
            for values, partition in _partitions(rows, self.layout.partitions)
            for part in _parts(_sorted(partition.select(self.layout.stored.names), self.layout.sort), _FILE_BYTES)
        ]

    def _write_file(self, rows: pa.Table, values: dict[str, str]) -> AddAction:
        # Readers take the values from the log, so that the folders' names can do without what would have to be escaped.
        folders = [f"{name}={re.sub(r'[^A-Za-z0-9._-]', '_', value)}" for name, value in values.items()]
        path = "/".join([*folders, f"part-{uuid4()}.zstd.parquet"])
        schema = self.layout.stored
        pq.write_table(
            rows.cast(schema),
            path,
            filesystem=self._filesystem,
            row_group_size=_rows_within(rows, _ROW_GROUP_BYTES),
            compression="zstd",
            compression_level=1,
            # Vectors are split by byte position, so that zstd finds something to compress.
            use_dictionary=False,
            column_encoding={
                name: encoding for field in schema if (encoding := _encoding(field)) for name in [_leaf(field)]
            },
            write_statistics=[field.name for field in schema if not pa.types.is_list(field.type)],
        )
        return AddAction(
            path=path,
            size=self._filesystem.get_file_info(path).size,
            partition_values=values,
            modification_time=now(),
            data_change=True,
            stats=json.dumps(_statistics(rows, self.layout.sort), ensure_ascii=False),
        )


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


def _parts(rows: pa.Table, most_bytes: int) -> Iterator[pa.Table]:
    step = _rows_within(rows, most_bytes)
    return (rows.slice(start, step) for start in range(0, rows.num_rows, step))


def _rows_within(rows: pa.Table, most_bytes: int) -> int:
    bytes_a_row = max(1, rows.nbytes) / max(1, rows.num_rows)
    return max(1, int(most_bytes / bytes_a_row))


def _encoding(field: pa.Field) -> str | None:
    if pa.types.is_list(field.type):
        return "BYTE_STREAM_SPLIT"
    return "DELTA_BYTE_ARRAY" if pa.types.is_string(field.type) else None


def _leaf(field: pa.Field) -> str:
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else str(field.name)


def _statistics(rows: pa.Table, names: Sequence[str]) -> dict[str, object]:
    """Return a file's statistics for the log; never cut off, since a replacement finds its files by them."""
    bounds = {name: pc.min_max(rows[name]).as_py() for name in names}
    return {
        "numRecords": rows.num_rows,
        "minValues": {name: bound["min"] for name, bound in bounds.items()},
        "maxValues": {name: bound["max"] for name, bound in bounds.items()},
        "nullCount": {name: rows[name].null_count for name in names},
    }


def now() -> int:
    """Return the time as the log has it: milliseconds since 1970."""
    return int(time.time() * 1000)
