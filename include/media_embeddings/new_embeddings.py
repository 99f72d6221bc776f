"""Rows of media objects on their way into an embeddings table: written as they come, seen by readers all at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.transaction import AddAction

from media_embeddings.file_writing import RollingWriter
from media_embeddings.table_changes import Change, Commit, WrittenFiles, but
from media_embeddings.table_files import File, Files


class NewEmbeddings:
    """All rows of some media objects, which replace whatever the table has of these, in one commit.

    What is added goes into files at once, so that memory holds a few row groups, however much is added; only the commit
    makes it part of the table. As a context manager it gives up what was not committed when it is left.

    :param table: returns the table, made if it is not there.
    :param files: returns the files of the table when it is there.
    """

    def __init__(
        self, model_name: str, dimension: int, table: Callable[[], DeltaTable], files: Callable[[], Files]
    ) -> None:
        self._model_name, self._dimension = model_name, dimension
        self._make_table, self._make_files = table, files
        self._files: Files | None = None
        self._writer: RollingWriter | None = None
        self._segments: dict[str, int] = {}
        self._added: list[AddAction] | None = None

    def add(self, rows: pa.Table) -> None:
        """Take all rows of one media object.

        Files are the better for it the more objects come in the order of their URIs.

        :param rows: of :func:`~media_embeddings.schemas.embeddings_schema`, in the order of ``segment_index``.
        :raises ValueError: if a vector has another length, a segment is there twice, or the object has come before.
        """
        uri = rows["media_uri"][0].as_py()
        if not pc.all(pc.equal(pc.list_value_length(rows["embedding"]), self._dimension)).as_py():
            raise ValueError(f"the table of {self._model_name} has vectors of {self._dimension} numbers; {uri} has not")
        if uri in self._segments or len(pc.unique(rows["segment_index"])) != rows.num_rows:
            raise ValueError(f"rows have the media_uri and segment_index of another: {uri}")
        if self._writer is None:
            self._make_table()
            self._files = self._make_files()
            self._writer = self._files.rolling()
        self._writer.add(rows)
        self._segments[uri] = rows.num_rows

    def drop(self, uris: Collection[str]) -> None:
        """Take back objects that were added, by writing the files that hold them anew without them."""
        dropped = sorted(uri for uri in uris if uri in self._segments)
        if not dropped:
            return
        files, kept = self._files, []
        assert files is not None  # noqa: S101 - something was added
        for add in self._finished():
            file = _as_file(add)
            within = file.uris_within(dropped)
            kept += files.write_rest(file, but(within)) if within else [add]
        self._added = kept
        for uri in dropped:
            del self._segments[uri]

    def commit(self, commit_ids: Sequence[str]) -> Commit | None:
        """Make what was added part of the table, in one commit; None if there is nothing.

        :param commit_ids: as in :meth:`media_embeddings.table_changes.Change.commit`.
        :raises TableBusyError: if other writers were faster too often; nothing was committed then.
        """
        if not self._segments:
            return None
        assert self._files is not None  # noqa: S101 - something was added
        new = WrittenFiles(self._finished(), sum(self._segments.values()))
        # Opened anew: the credentials of before may have ended while the rows came.
        return Change(self._files, new, sorted(self._segments)).commit(self._make_table(), commit_ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.__exit__(kind, error, at)

    def _finished(self) -> list[AddAction]:
        if self._added is None:
            self._added = self._writer.finish() if self._writer is not None else []
        return self._added


def _as_file(add: AddAction) -> File:
    statistics = json.loads(add.stats)
    return File(
        add.path,
        add.size,
        {name: str(value) for name, value in add.partition_values.items()},
        statistics["minValues"]["media_uri"],
        statistics["maxValues"]["media_uri"],
    )
