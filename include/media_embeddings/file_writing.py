"""Writes the files of a table while rows still come: encoding, compression and upload go on beside whoever gives the rows.

Memory holds a row group that is filled, one that is encoded, and what is on its way to the store, however many rows there
are: some MiB, and 48 where the store is slow.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from math import ceil
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction
from pyarrow.fs import FileSystem, PyFileSystem

from media_embeddings.table_layout import FILE_BYTES, ROW_GROUP_BYTES, Layout, now

logger = logging.getLogger(__name__)

# Every write to a file of Python's waits for the interpreter, which parsers hold: pages are gathered before that.
_WRITE_BYTES = 8 * 1024**2
# A store takes a second for a part now and then.
_MOST_WRITES_BEHIND = 3


def file_system(uri: str, options: dict[str, str]) -> FileSystem:
    """Return the file system of a table's folder; what is written to it is uploaded while the writer goes on."""
    return PyFileSystem(_WritingBehind(uri, options))


class _WritingBehind(DeltaStorageHandler):
    # The store's own stream waits for every part of 5 MiB to be uploaded.
    def open_output_stream(self, path: str, metadata: dict[str, str] | None = None) -> pa.PythonFile:
        return pa.PythonFile(_BehindStream(self._handler.open_output_stream(path, metadata)), mode="w")


class _BehindStream:
    """A file to write to that hands on what it is given in a thread of its own, in order."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink
        self._thread = ThreadPoolExecutor(1)
        self._under_way: deque[Future[Any]] = deque()
        self.closed = False

    def write(self, content: bytes) -> int:
        """Take content to be written; an error of earlier content is raised here or at the close."""
        while len(self._under_way) >= _MOST_WRITES_BEHIND:
            self._under_way.popleft().result()
        self._under_way.append(self._thread.submit(self._sink.write, content))
        return len(content)

    def flush(self) -> None:
        """Do nothing: what is written counts when the file is closed."""

    def close(self) -> None:
        """Return when everything is written."""
        if self.closed:
            return
        self.closed = True
        with self._thread:
            while self._under_way:
                self._under_way.popleft().result()
            self._sink.close()


class FileWriter:
    """One file of a partition, to which sorted rows are written in one or several goes."""

    def __init__(self, filesystem: FileSystem, layout: Layout, partition: Mapping[str, str]) -> None:
        self._filesystem, self._layout, self._partition = filesystem, layout, dict(partition)
        self._path = layout.new_path(partition)
        self._sink = filesystem.open_output_stream(self._path, compression=None, buffer_size=_WRITE_BYTES)
        self._writer = pq.ParquetWriter(self._sink, layout.stored, **layout.parquet_options)
        self._rows = 0
        self._least: dict[str, Any] = {}
        self._greatest: dict[str, Any] = {}

    def write(self, rows: pa.Table) -> None:
        """Write rows that come after those that were written before.

        :param rows: with the stored columns at least.
        :raises ValueError: if there is a null where the table promises a value.
        """
        if rows.num_rows == 0:
            return
        rows = rows.select(self._layout.stored.names).cast(self._layout.stored)
        # Of like size, so that what is a little more than a row group leaves no crumb behind.
        groups = max(1, round(rows.nbytes / ROW_GROUP_BYTES))
        self._writer.write_table(rows, row_group_size=ceil(rows.num_rows / groups))
        for name in self._layout.sort:
            bound = pc.min_max(rows[name]).as_py()
            self._least[name] = min(self._least.get(name, bound["min"]), bound["min"])
            self._greatest[name] = max(self._greatest.get(name, bound["max"]), bound["max"])
        self._rows += rows.num_rows

    def abandon(self) -> None:
        """Close the file without a use for it: it is in no commit."""
        try:
            with self._sink:
                self._writer.close()
        except OSError as error:
            logger.warning("%s was given up, and could not be closed: %s", self._path, error)

    def close(self) -> AddAction:
        """Finish the file, and return what a commit has to add."""
        with self._sink:
            self._writer.close()
        return AddAction(
            path=self._path,
            size=self._filesystem.get_file_info(self._path).size,
            partition_values=self._partition,
            modification_time=now(),
            data_change=True,
            stats=json.dumps(self._statistics(), ensure_ascii=False),
        )

    def _statistics(self) -> dict[str, object]:
        """Return the file's statistics for the log; never cut off, since a replacement finds its files by them."""
        return {
            "numRecords": self._rows,
            "minValues": self._least,
            "maxValues": self._greatest,
            # The columns that files are sorted by have no nulls.
            "nullCount": dict.fromkeys(self._layout.sort, 0),
        }


class RollingWriter:
    """Files of a table, one after the other, from rows that come in order.

    Rows that are added together stay together in a file, so that every file holds its own range of objects. Encoding is
    done in a thread: :meth:`add` waits only while the row group before is still being encoded. In another one a file that
    is complete is closed, so that a store which is slow to take its end holds nothing up but the end of the next file.

    As a context manager it gives up what is unfinished when it is left.

    :param filesystem: returns the file system, asked for with every file.
    """

    def __init__(self, filesystem: Callable[[], FileSystem], layout: Layout) -> None:
        self._filesystem, self._layout = filesystem, layout
        self._encoder, self._closer = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._encoding: Future[None] | None = None
        self._closing: Future[AddAction] | None = None
        self._partitions: dict[tuple[str, ...], _Rolling] = {}
        self._added: list[AddAction] = []

    def add(self, rows: pa.Table) -> None:
        """Take rows of one partition that come after those that it was given before.

        :param rows: with all columns of the table.
        """
        values = tuple(rows[name][0].as_py() for name in self._layout.partitions)
        rolling = self._partitions.setdefault(values, _Rolling())
        size = rows.nbytes
        if rolling.file_bytes and rolling.file_bytes + size > FILE_BYTES:
            self._finish(values)
        rolling.take(rows, size)
        if rolling.waiting_bytes >= ROW_GROUP_BYTES:
            self._encode(values)

    def finish(self) -> list[AddAction]:
        """Return what a commit has to add, when all files are complete."""
        for values in self._partitions:
            self._finish(values)
        self._wait()
        self._take_closed()
        return self._added

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._encoder.shutdown()
        self._closer.shutdown()
        if self._closing is not None and (failure := self._closing.exception()) is not None:
            logger.warning("a file that was given up could not be closed: %s", failure)
        for rolling in self._partitions.values():
            if rolling.file is not None:
                rolling.file.abandon()

    def _encode(self, values: tuple[str, ...]) -> None:
        rolling = self._partitions[values]
        rows = rolling.give()
        if rows is None:
            return

        def write() -> None:
            if rolling.file is None:
                rolling.file = FileWriter(
                    self._filesystem(), self._layout, dict(zip(self._layout.partitions, values, strict=True))
                )
            rolling.file.write(rows)

        self._run(write)

    def _finish(self, values: tuple[str, ...]) -> None:
        self._encode(values)
        rolling = self._partitions[values]
        rolling.file_bytes = 0

        def close() -> None:
            if rolling.file is not None:
                self._take_closed()
                self._closing = self._closer.submit(rolling.file.close)
                rolling.file = None

        self._run(close)

    def _take_closed(self) -> None:
        if self._closing is not None:
            self._added.append(self._closing.result())
            self._closing = None

    def _run(self, work: Callable[[], None]) -> None:
        self._wait()
        self._encoding = self._encoder.submit(work)

    def _wait(self) -> None:
        if self._encoding is not None:
            self._encoding.result()


class _Rolling:
    """The file of a partition that is being written; what the encoder does with it, it does one by one."""

    def __init__(self) -> None:
        self.file: FileWriter | None = None
        self.file_bytes = 0
        self.waiting_bytes = 0
        self._waiting: list[pa.Table] = []

    def take(self, rows: pa.Table, size: int) -> None:
        """Keep rows until there are enough for a row group."""
        self._waiting.append(rows)
        self.waiting_bytes += size
        self.file_bytes += size

    def give(self) -> pa.Table | None:
        """Return the rows that wait, which do so no longer."""
        rows = pa.concat_tables(self._waiting) if self._waiting else None
        self._waiting, self.waiting_bytes = [], 0
        return rows
