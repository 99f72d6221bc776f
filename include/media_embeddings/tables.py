"""The three Delta tables of a library: embeddings, ledger, invocations.

How a change is made, and what it promises, is said in :mod:`media_embeddings.table_changes`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileSelector, PyFileSystem

from media_embeddings.ledger_rules import amended_ledger, standing
from media_embeddings.new_embeddings import NewEmbeddings
from media_embeddings.schemas import (
    EMBEDDINGS_PARTITIONS,
    INVOCATIONS_SCHEMA,
    LEDGER_PARTITIONS,
    LEDGER_SCHEMA,
    columns_of,
    embeddings_schema,
)
from media_embeddings.storage import join_uri
from media_embeddings.table_changes import Change, Commit, RowsToWrite, TableBusyError, among
from media_embeddings.table_files import File, Files
from media_embeddings.table_layout import Layout
from media_embeddings.table_options import TableOptions, current

__all__ = ["Commit", "TableBusyError", "TableUnreadableError", "Tables"]

_PARALLEL_READS = 8
_PARALLEL_COPIES = 4


class TableUnreadableError(Exception):
    """A table's files are there, but not the log that says which of them count."""


_LEDGER = Layout(LEDGER_SCHEMA, LEDGER_PARTITIONS, ("media_uri",))
_INVOCATIONS = Layout(INVOCATIONS_SCHEMA, (), ("media_uri",))


def _embeddings(dimension: int) -> Layout:
    return Layout(embeddings_schema(dimension), EMBEDDINGS_PARTITIONS, ("media_uri", "segment_index"))


class Tables:
    """The tables below one root.

    :param root: an S3 URI or a local path.
    :param storage_options: as :attr:`media_embeddings.storage.Storage.table_options`; hold credentials.
    """

    def __init__(self, root: str, storage_options: TableOptions) -> None:
        self._root = root
        self._options = storage_options

    @property
    def ledger_uri(self) -> str:
        """Return where the ledger lies."""
        return join_uri(self._root, "media")

    @property
    def invocations_uri(self) -> str:
        """Return where the invocations table lies."""
        return join_uri(self._root, "invocations")

    def embeddings_uri(self, model_name: str) -> str:
        """Return where the embeddings table of a model lies."""
        return join_uri(self._root, "embeddings", model_name)

    def layouts(self, dimensions: Mapping[str, int]) -> dict[str, Layout]:
        """Return where each table lies that there may be, and how it is laid out: embeddings first, then the other two.

        :param dimensions: of the vectors of each model.
        """
        embeddings = {
            self.embeddings_uri(name): Layout(
                embeddings_schema(dimension), EMBEDDINGS_PARTITIONS, ("media_uri", "segment_index")
            )
            for name, dimension in dimensions.items()
        }
        return embeddings | {self.ledger_uri: _LEDGER, self.invocations_uri: _INVOCATIONS}

    def commit_embeddings(self, model_name: str, dimension: int, rows: pa.Table, commit_id: str) -> Commit:
        """Replace all rows of every ``media_uri`` in ``rows``, in one commit; objects that are new are appended.

        :param rows: of :func:`~media_embeddings.schemas.embeddings_schema`, whole objects.
        :param commit_id: names what is committed: a second commit under the same id changes nothing.
        :raises ValueError: if a vector has another length, or a segment of an object is there twice.
        :raises TableBusyError: if other writers were faster too often; nothing was committed then.
        """
        layout = _embeddings(dimension)
        if not pc.all(pc.equal(pc.list_value_length(rows["embedding"]), dimension), min_count=0).as_py():
            raise ValueError(f"the table of {model_name} has vectors of {dimension} numbers, and some rows have not")
        _refuse_duplicates(rows, ["media_uri", "segment_index"])
        return self._commit(self.embeddings_uri(model_name), layout, rows, commit_id=commit_id)

    def new_embeddings(self, model_name: str, dimension: int) -> NewEmbeddings:
        """Return what takes the rows of any number of media objects, to be committed together at the end."""
        uri, layout = self.embeddings_uri(model_name), _embeddings(dimension)
        return NewEmbeddings(
            model_name,
            dimension,
            table=lambda: self._create(uri, layout),
            files=lambda: Files(uri, self._options, layout),
        )

    def embeddings_commit(self, model_name: str, commit_id: str) -> int | None:
        """Return the table's version if it has a commit of this id, or None."""
        table = self._open(self.embeddings_uri(model_name))
        return None if table is None or table.transaction_version(commit_id) is None else int(table.version())

    def read_ledger(
        self, model_name: str, uri_prefixes: Sequence[str] | None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Return the ledger's rows of a model, below the prefixes where some are given.

        An absent ledger is empty. One that can't be read raises: what is unknown must not be taken for new.
        """
        parts: list[pa.Table] = []
        self.copy_ledger(model_name, uri_prefixes, parts.append, columns)
        return pa.concat_tables([_ledger_schema(columns).empty_table(), *parts])

    def copy_ledger(
        self,
        model_name: str,
        uri_prefixes: Sequence[str] | None,
        write: Callable[[pa.Table], object],
        columns: Sequence[str] | None = None,
    ) -> None:
        """Hand over what :meth:`read_ledger` returns in parts of at most a row group, one call of ``write`` after another.

        So a ledger that does not fit into memory is read by several threads all the same.
        """
        table = self._open(self.ledger_uri)
        if table is None:
            return
        names = _ledger_schema(columns).names
        files = Files(self.ledger_uri, self._options, _LEDGER)
        prefixes = None if uri_prefixes is None else tuple(uri_prefixes)
        one_at_a_time = Lock()

        def copy(file: File) -> None:
            for rows in files.read_groups(file, names, _below(prefixes)):
                with one_at_a_time:
                    write(rows)

        wanted = [
            file
            for file in files.of(table)
            if file.partition_values["model"] == model_name and file.may_hold_prefix(prefixes)
        ]
        with ThreadPoolExecutor(_PARALLEL_COPIES) as pool:
            list(pool.map(copy, wanted))

    def ledger_rows(self, model_name: str, uris: Sequence[str]) -> pa.Table:
        """Return the ledger's rows of some media objects with a model.

        :param uris: sorted.
        """
        return self._read_objects(self.ledger_uri, _LEDGER, uris, LEDGER_SCHEMA.names, {"model": model_name})

    def superseded(self, rows: pa.Table, listed_at: datetime) -> frozenset[str]:
        """Return the objects of which :meth:`update_ledger` would keep the row that is there.

        :param rows: as in :meth:`update_ledger`.
        """
        if rows.num_rows == 0:
            return frozenset()
        uris = sorted(rows["media_uri"].to_pylist())
        there = self.ledger_rows(rows["model"][0].as_py(), uris)
        return frozenset(rows["media_uri"].filter(standing(rows, there, listed_at)).to_pylist())

    def delete_embeddings(self, model_name: str, dimension: int, uris: Sequence[str], commit_id: str) -> Commit | None:
        """Remove all rows of some media objects, in one commit; None where there is no table.

        :param uris: sorted.
        :raises TableBusyError: if other writers were faster too often; nothing was committed then.
        """
        uri = self.embeddings_uri(model_name)
        if self._open(uri) is None:
            return None
        layout = _embeddings(dimension)
        return self._commit(uri, layout, layout.schema.empty_table(), commit_id=commit_id, uris=uris)

    def ledger_models(self) -> list[str]:
        """Return the models that the ledger has rows of."""
        table = self._open(self.ledger_uri)
        if table is None:
            return []
        return sorted(
            {file.partition_values["model"] for file in Files(self.ledger_uri, self._options, _LEDGER).of(table)}
        )

    def read_embeddings(
        self,
        model_name: str,
        uris: Sequence[str],
        columns: Sequence[str],
        embedding_keys: Sequence[str] | None = None,
    ) -> pa.Table:
        """Return columns of the rows of some media objects.

        :param uris: sorted.
        :param embedding_keys: one for each object, in the same order: only rows under these are returned. ``columns`` has to
            hold theirs. All rows are returned without it.
        """
        dimension_is_not_read = 0
        layout = _embeddings(dimension_is_not_read)
        return self._read_objects(self.embeddings_uri(model_name), layout, uris, columns, embedding_keys=embedding_keys)

    def embedding_files(self, model_name: str, dimension: int) -> tuple[Files, tuple[File, ...]] | None:
        """Return the files that make up a model's table at this moment, and what reads them; None where there is no table."""
        uri = self.embeddings_uri(model_name)
        if (table := self._open(uri)) is None:
            return None
        files = Files(uri, self._options, _embeddings(dimension))
        return files, tuple(files.of(table))

    def read_invocations(self, uris: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Return columns of all attempts at some media objects.

        :param uris: sorted.
        """
        return self._read_objects(self.invocations_uri, _INVOCATIONS, uris, columns)

    def copy_invocations(self, since: datetime, write: Callable[[pa.Table], object], columns: Sequence[str]) -> None:
        """Hand over what was recorded of attempts since a time, and perhaps some of before, a row group at a time."""
        table = self._open(self.invocations_uri)
        if table is None:
            return
        files = Files(self.invocations_uri, self._options, _INVOCATIONS)
        one_at_a_time = Lock()

        def copy(file: File) -> None:
            for rows in files.read_groups(file, columns, since=("recorded_at", since)):
                with one_at_a_time:
                    write(rows)

        with ThreadPoolExecutor(_PARALLEL_COPIES) as pool:
            list(pool.map(copy, files.of(table)))

    def _read_objects(
        self,
        uri: str,
        layout: Layout,
        uris: Sequence[str],
        columns: Sequence[str],
        within: Mapping[str, str] | None = None,
        embedding_keys: Sequence[str] | None = None,
    ) -> pa.Table:
        table = self._open(uri)
        if table is None or not uris:
            return columns_of(layout.schema, columns).empty_table()
        files = Files(uri, self._options, layout)
        wanted = [
            file
            for file in files.of(table)
            if (within or {}).items() <= file.partition_values.items() and file.uris_within(uris)
        ]

        def condition(file: File) -> Callable[[pa.Table], pa.Array]:
            within = file.uris_within(uris)
            if embedding_keys is None:
                return among(within)
            first = bisect_left(uris, within[0])
            keys = pa.array(embedding_keys[first : first + len(within)], pa.string())
            return lambda rows: pc.is_in(rows["embedding_key"], value_set=keys)

        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            read = pool.map(lambda file: files.read(file, columns, condition(file)), wanted)
            return pa.concat_tables([columns_of(layout.schema, columns).empty_table(), *read])

    def update_ledger(
        self, rows: pa.Table, commit_id: str | None = None, *, listed_at: datetime | None = None
    ) -> Commit | None:
        """Replace the ledger's rows of the same ``(media_uri, model)``; ``first_seen_at`` of a known object is kept.

        A row that is there stays if it knows better: what is embedded is not failed by another attempt at the same
        content, and what another run has found out since is not taken back.

        :param rows: of :data:`~media_embeddings.schemas.LEDGER_SCHEMA`, all of one model.
        :param commit_id: names what is committed: a second commit under the same id changes nothing.
        :param listed_at: when that was listed of which the rows tell; None for what is known now.
        :raises ValueError: if the rows are of several models, or an object is there twice.
        :raises TableBusyError: if other writers were faster too often; nothing was committed then.
        """
        if rows.num_rows == 0:
            return None
        models = pc.unique(rows["model"]).to_pylist()
        if len(models) != 1:
            raise ValueError(f"ledger rows of several models in one commit: {models}")
        _refuse_duplicates(rows, ["media_uri"])
        return self._commit(
            self.ledger_uri,
            _LEDGER,
            rows,
            commit_id=commit_id,
            within={"model": models[0]},
            remembered=[name for name in LEDGER_SCHEMA.names if name != "media_uri"],
            amended=lambda new, replaced: amended_ledger(new, replaced, listed_at),
        )

    def append_invocations(self, rows: pa.Table, commit_id: str) -> Commit:
        """Append rows of :data:`~media_embeddings.schemas.INVOCATIONS_SCHEMA`, once for each commit id.

        :raises TableBusyError: if other writers were faster too often; nothing was committed then.
        """
        return self._commit(self.invocations_uri, _INVOCATIONS, rows, replaces=False, commit_id=commit_id)

    def _commit(
        self,
        uri: str,
        layout: Layout,
        rows: pa.Table,
        *,
        replaces: bool = True,
        commit_id: str | None = None,
        uris: Sequence[str] | None = None,
        amended: Callable[[pa.Table, pa.Table], pa.Table] | None = None,
        **details: Any,
    ) -> Commit:
        if uris is None:
            uris = sorted(pc.unique(rows["media_uri"]).to_pylist()) if replaces else ()
        table = self._create(uri, layout)
        files = Files(uri, self._options, layout)
        change = Change(files, RowsToWrite(files, rows, amended), uris, **details)
        return change.commit(table, [] if commit_id is None else [commit_id])

    def _open(self, uri: str) -> DeltaTable | None:
        try:
            return DeltaTable(uri, storage_options=current(self._options))
        except TableNotFoundError as error:
            if self._holds_data(uri):
                raise TableUnreadableError(
                    f"{uri} has data files, but no transaction log that says which of them count; nothing was read or "
                    "written. Restore _delta_log (from a bucket version or a backup), or move the files away to start anew"
                ) from error
            return None

    def _holds_data(self, uri: str) -> bool:
        try:
            filesystem = PyFileSystem(DeltaStorageHandler(uri, current(self._options)))
        except TableNotFoundError:  # a local folder that does not exist
            return False
        found = filesystem.get_file_info(FileSelector("", recursive=True))
        # Some S3 servers keep empty markers of the folders.
        return any(
            info.is_file and info.path.endswith(".parquet") and not info.path.startswith("_delta_log/")
            for info in found
        )

    def _create(self, uri: str, layout: Layout) -> DeltaTable:
        if (table := self._open(uri)) is not None:
            return _widened(table, layout)
        try:
            return DeltaTable.create(
                uri,
                schema=layout.schema,
                mode="ignore",
                partition_by=list(layout.partitions) or None,
                configuration=layout.configuration,
                storage_options=current(self._options),
            )
        except DeltaError:
            # Another process may have created it at the same moment.
            if (table := self._open(uri)) is None:
                raise
            return table


def _widened(table: DeltaTable, layout: Layout) -> DeltaTable:
    """Give a table of an earlier version the columns that it lacks."""
    known = {field.name for field in table.schema().fields}
    missing = [field for field in layout.schema if field.name not in known]
    if missing:
        table.alter.add_columns(Schema.from_arrow(pa.schema(missing)).fields)
    return table


def _ledger_schema(columns: Sequence[str] | None) -> pa.Schema:
    return LEDGER_SCHEMA if columns is None else columns_of(LEDGER_SCHEMA, columns)


def _below(prefixes: Sequence[str] | None) -> Callable[[pa.Table], pa.Array] | None:
    if prefixes is None:
        return None

    def condition(rows: pa.Table) -> pa.Array:
        below = pa.chunked_array([pa.repeat(pa.scalar(False), rows.num_rows)])
        for prefix in prefixes:
            below = pc.or_(below, pc.starts_with(rows["media_uri"], prefix))
        return below

    return condition


def _refuse_duplicates(rows: pa.Table, key: list[str]) -> None:
    counted = rows.select(key).group_by(key).aggregate([([], "count_all")])
    twice = counted.filter(pc.greater(counted["count_all"], 1))
    if twice.num_rows:
        raise ValueError(
            f"{twice.num_rows} rows have the {' and '.join(key)} of another, first {twice['media_uri'][0]}"
        )
