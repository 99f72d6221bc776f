"""The tables below a root as upkeep sees them: the files that the log names, and those that lie there."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileSelector, PyFileSystem

from media_embeddings.models import model_named, model_names
from media_embeddings.table_files import File, Files
from media_embeddings.table_layout import Layout
from media_embeddings.table_options import TableOptions, current
from media_embeddings.tables import Tables

_LOG = "_delta_log/"


@dataclass(frozen=True, slots=True)
class CountedFile:
    """A file of a table with the number of its rows."""

    file: File
    rows: int


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in a table's folder, whether the log names it or not."""

    path: str
    size_bytes: int
    written_at: datetime

    @property
    def is_log(self) -> bool:
        """Return whether it belongs to the transaction log."""
        return self.path.startswith(_LOG)


@dataclass(frozen=True)
class KeptTable:
    """A table below a root, which there may be or not.

    :param name: its path below the root.
    :param options: as in :class:`~media_embeddings.tables.Tables`; hold credentials.
    """

    name: str
    uri: str
    layout: Layout
    options: TableOptions = field(repr=False)

    def open(self) -> DeltaTable | None:
        """Return the table at its latest version, or None where there is none."""
        try:
            return DeltaTable(self.uri, storage_options=current(self.options))
        except TableNotFoundError:
            return None

    @cached_property
    def files(self) -> Files:
        """Return what reads and writes its files."""
        return Files(self.uri, self.options, self.layout)

    def counted(self, table: DeltaTable) -> list[CountedFile]:
        """Return the files that make up the table at its version, each with its rows.

        Where the log does not count them, as after some other engines' writes, the file's footer does.
        """
        numbers = pa.table(table.get_add_actions(flatten=True)).to_pydict()
        rows = dict(zip(numbers["path"], numbers.get("num_records", [None] * len(numbers["path"])), strict=True))
        return [
            CountedFile(file, self.files.metadata(file).num_rows if rows[file.path] is None else rows[file.path])
            for file in self.files.of(table)
        ]

    def stored(self) -> list[StoredFile]:
        """Return all files of the table's folder."""
        filesystem = PyFileSystem(DeltaStorageHandler(self.uri, current(self.options)))
        found = filesystem.get_file_info(FileSelector("", recursive=True))
        # Some S3 servers keep empty markers of the folders.
        return [StoredFile(info.path, info.size, info.mtime) for info in found if info.is_file and info.size]


def kept_tables(root: str, options: TableOptions) -> list[KeptTable]:
    """Return the tables that there may be below a root: embeddings by model, the ledger, the invocations."""
    base = f"{root.rstrip('/')}/"
    layouts = Tables(root, options).layouts({name: model_named(name).dimension for name in model_names()})
    return [KeptTable(uri.removeprefix(base), uri, layout, options) for uri, layout in layouts.items()]
