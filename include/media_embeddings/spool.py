"""A local file of tables that are written in any order, and read in the order of the parts that they belong to."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


class Spool:
    """Keeps tables out of memory; several threads may write at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._end = 0
        self._places: dict[int, list[tuple[int, int]]] = {}

    def write(self, part: int, rows: pa.Table) -> None:
        """Append rows to a part; one without rows is a part all the same."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema, options=_OPTIONS) as stream:
            stream.write_table(rows)
        content = sink.getvalue()
        with self._lock:
            places = self._places.setdefault(part, [])
            if rows.num_rows == 0:
                return
            with self._path.open("ab") as file:
                file.write(content)
            places.append((self._end, content.size))
            self._end += content.size

    def read(self, parts: Sequence[int]) -> Iterator[pa.Table]:
        """Yield the tables of some parts, in the order in which each was written."""
        places = [place for part in parts for place in self._places[part]]
        if not places:
            return
        with self._path.open("rb") as file:
            for start, size in places:
                file.seek(start)
                yield pa.ipc.open_stream(file.read(size)).read_all()
