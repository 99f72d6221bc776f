"""The three Delta tables of a library: embeddings, ledger, invocations.

A write has two steps. First its files: the new rows, and for every file that holds rows of a replaced object another one
with the rest of its rows. Then one small commit that adds and removes files, and that is refused if anybody has
committed since the table was looked at (a conditional PUT on the transaction log). Only that commit competes with other
writers: after a refusal the table is looked at again, and what is already written stays written. So

- all rows of an object are replaced in one commit, or none;
- a file is rewritten only if it holds rows of a replaced object, and keeps its own range of URIs;
- a commit that is repeated under its commit id changes nothing.

Files of a write that was given up, or of a process that was killed, are in no commit; no reader sees them, and vacuum
removes them.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction, RemoveAction
from pyarrow.fs import FileSelector, PyFileSystem

from media_embeddings.ledger_rules import amended_ledger, standing
from media_embeddings.schemas import (
    EMBEDDINGS_PARTITIONS,
    INVOCATIONS_SCHEMA,
    LEDGER_PARTITIONS,
    LEDGER_SCHEMA,
    embeddings_schema,
)
from media_embeddings.storage import join_uri
from media_embeddings.table_files import File, Files, Layout, now

logger = logging.getLogger(__name__)

_MOST_TRIES = 40
_LONGEST_WAIT_SECONDS = 3.0
_PARALLEL_READS = 8


class TableBusyError(Exception):
    """Other writers were faster than this one too many times in a row."""


class TableUnreadableError(Exception):
    """A table's files are there, but not the log that says which of them count."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit that was made, or found to have been made before."""

    version: int
    rows: int
    replaced: int
    """Objects whose earlier rows this commit replaced."""
    repeated: bool
    """Whether an earlier call had already made it."""


_LEDGER = Layout(LEDGER_SCHEMA, LEDGER_PARTITIONS, ("media_uri",))
_INVOCATIONS = Layout(INVOCATIONS_SCHEMA, (), ("media_uri",))


class Tables:
    """The tables below one root.

    :param root: an S3 URI or a local path.
    :param storage_options: as :attr:`media_embeddings.storage.Storage.table_options`; hold credentials.
    """

    def __init__(self, root: str, storage_options: Mapping[str, str]) -> None:
        self._root = root
        self._options = dict(storage_options)

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
        layout = Layout(embeddings_schema(dimension), EMBEDDINGS_PARTITIONS, ("media_uri", "segment_index"))
        if not pc.all(pc.equal(pc.list_value_length(rows["embedding"]), dimension), min_count=0).as_py():
            raise ValueError(f"the table of {model_name} has vectors of {dimension} numbers, and some rows have not")
        _refuse_duplicates(rows, ["media_uri", "segment_index"])
        return self._commit(self.embeddings_uri(model_name), layout, rows, commit_id=commit_id)

    def read_ledger(
        self, model_name: str, uri_prefixes: Sequence[str] | None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Return the ledger's rows of a model, below the prefixes where some are given.

        An absent ledger is empty. One that can't be read raises: what is unknown must not be taken for new.
        """
        names = list(columns) if columns is not None else LEDGER_SCHEMA.names
        schema = pa.schema([LEDGER_SCHEMA.field(name) for name in names])
        table = self._open(self.ledger_uri)
        if table is None:
            return schema.empty_table()
        files = Files(self.ledger_uri, self._options, _LEDGER)
        prefixes = None if uri_prefixes is None else tuple(uri_prefixes)
        wanted = [
            file
            for file in files.of(table)
            if file.partition_values["model"] == model_name and file.may_hold_prefix(prefixes)
        ]
        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            parts = list(pool.map(lambda file: files.read(file, names, _below(prefixes)), wanted))
        return pa.concat_tables(parts) if parts else schema.empty_table()

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
        layout = Layout(embeddings_schema(dimension), EMBEDDINGS_PARTITIONS, ("media_uri", "segment_index"))
        return self._commit(uri, layout, layout.schema.empty_table(), commit_id=commit_id, uris=uris)

    def ledger_models(self) -> list[str]:
        """Return the models that the ledger has rows of."""
        table = self._open(self.ledger_uri)
        if table is None:
            return []
        return sorted(
            {file.partition_values["model"] for file in Files(self.ledger_uri, self._options, _LEDGER).of(table)}
        )

    def read_embeddings(self, model_name: str, uris: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Return columns of the rows of some media objects.

        :param uris: sorted.
        """
        dimension_is_not_read = 0
        layout = Layout(embeddings_schema(dimension_is_not_read), EMBEDDINGS_PARTITIONS, ("media_uri", "segment_index"))
        return self._read_objects(self.embeddings_uri(model_name), layout, uris, columns)

    def read_invocations(self, uris: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Return columns of all attempts at some media objects.

        :param uris: sorted.
        """
        return self._read_objects(self.invocations_uri, _INVOCATIONS, uris, columns)

    def _read_objects(
        self,
        uri: str,
        layout: Layout,
        uris: Sequence[str],
        columns: Sequence[str],
        within: Mapping[str, str] | None = None,
    ) -> pa.Table:
        table = self._open(uri)
        if table is None or not uris:
            return pa.schema([layout.schema.field(name) for name in columns]).empty_table()
        files = Files(uri, self._options, layout)
        wanted = [
            file
            for file in files.of(table)
            if (within or {}).items() <= file.partition_values.items() and file.uris_within(uris)
        ]
        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            read = pool.map(lambda file: files.read(file, columns, _among(file.uris_within(uris))), wanted)
            return pa.concat_tables([pa.schema([layout.schema.field(name) for name in columns]).empty_table(), *read])

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
        **details: Any,
    ) -> Commit:
        table = self._create(uri, layout)
        change = _Change(Files(uri, self._options, layout), rows, replaces=replaces, **details)
        for attempt in range(_MOST_TRIES):
            if commit_id is not None and table.transaction_version(commit_id) is not None:
                return Commit(table.version(), 0, 0, repeated=True)
            version = table.version()
            try:
                replaced = change.commit(table, commit_id)
            except CommitFailedError as error:
                table.update_incremental()
                # Refused, and not because of another writer: trying again would not help.
                if table.version() == version:
                    raise
                logger.info("%s: another writer was faster (%s); trying again", uri, error)
                time.sleep(random.uniform(0, min(_LONGEST_WAIT_SECONDS, 0.05 * 2**attempt)))  # noqa: S311 - jitter
                table.update_incremental()
                continue
            return Commit(version + 1, rows.num_rows, replaced, repeated=False)
        raise TableBusyError(
            f"{uri}: other writers were faster {_MOST_TRIES} times in a row; nothing was committed, "
            "and the task can be tried again"
        )

    def _open(self, uri: str) -> DeltaTable | None:
        try:
            return DeltaTable(uri, storage_options=self._options)
        except TableNotFoundError as error:
            if self._holds_data(uri):
                raise TableUnreadableError(
                    f"{uri} has data files, but no transaction log that says which of them count; nothing was read or "
                    "written. Restore _delta_log (from a bucket version or a backup), or move the files away to start anew"
                ) from error
            return None

    def _holds_data(self, uri: str) -> bool:
        try:
            filesystem = PyFileSystem(DeltaStorageHandler(uri, self._options))
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
                storage_options=self._options,
            )
        except DeltaError:
            # Another process may have created it at the same moment.
            if (table := self._open(uri)) is None:
                raise
            return table


class _Change:
    """One change to a table. What it writes it writes once, however often its commit has to be tried.

    :param rows: what the table gets.
    :param replaces: whether rows of the same objects go; the table is not searched otherwise.
    :param within: partition values outside of which nothing is replaced.
    :param remembered: columns of the replaced rows that ``amended`` is given beside ``media_uri``.
    :param amended: returns the rows with what is taken over from the replaced ones.
    :param uris: the objects whose rows go, where they are not those of ``rows``; sorted.
    """

    def __init__(
        self,
        files: Files,
        rows: pa.Table,
        *,
        replaces: bool,
        within: Mapping[str, str] | None = None,
        remembered: Sequence[str] = (),
        amended: Callable[[pa.Table, pa.Table], pa.Table] | None = None,
        uris: Sequence[str] | None = None,
    ) -> None:
        self._files = files
        self._rows = rows
        replaced = sorted(pc.unique(rows["media_uri"]).to_pylist()) if replaces else []
        self._uris = replaced if uris is None else list(uris)
        self._within = within or {}
        self._remembered = ["media_uri", *remembered]
        self._amended = amended
        # A file never changes, so that what was found in it and written from it holds for as long as it counts.
        self._held: dict[str, pa.Table] = {}
        self._rests: dict[str, list[AddAction]] = {}
        self._written: tuple[pa.Table, list[AddAction]] | None = None

    def commit(self, table: DeltaTable, commit_id: str | None) -> int:
        """Commit on top of the table's version, and return how many objects were replaced.

        :raises CommitFailedError: if that version is no longer the latest one.
        """
        holding = self._holding(table)
        replaced = pa.concat_tables([self._held[file.path] for file in holding]) if holding else None
        added = self._rows_written(replaced)
        removed = [
            RemoveAction(file.path, True, now(), file.size_bytes, dict(file.partition_values)) for file in holding
        ]
        rests = [add for file in holding for add in self._rest_written(file)]
        table.create_write_transaction(
            [*added, *rests, *removed],
            "append",
            table.schema(),
            partition_by=list(self._files.layout.partitions),
            # Conflicts are not resolved there: what is to be replaced has to be looked up again after every commit.
            commit_properties=CommitProperties(
                max_commit_retries=0,
                app_transactions=[] if commit_id is None else [Transaction(commit_id, 1, now())],
            ),
        )
        return 0 if replaced is None else len(pc.unique(replaced["media_uri"]))

    def _holding(self, table: DeltaTable) -> list[File]:
        """Return the files that hold rows of a replaced object."""
        if not self._uris:
            return []
        candidates = [
            file
            for file in self._files.of(table)
            if self._within.items() <= file.partition_values.items() and file.uris_within(self._uris)
        ]
        unknown = [file for file in candidates if file.path not in self._held]
        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            found = pool.map(
                lambda file: self._files.read(file, self._remembered, _among(file.uris_within(self._uris))), unknown
            )
            self._held |= dict(zip([file.path for file in unknown], found, strict=True))
        return [file for file in candidates if self._held[file.path].num_rows]

    def _rows_written(self, replaced: pa.Table | None) -> list[AddAction]:
        rows = self._rows if self._amended is None or replaced is None else self._amended(self._rows, replaced)
        if self._written is None or not self._written[0].equals(rows):
            self._written = rows, self._files.write(rows)
        return self._written[1]

    def _rest_written(self, file: File) -> list[AddAction]:
        if file.path not in self._rests:
            among = _among(file.uris_within(self._uris))
            rest = self._files.read(file, self._files.layout.schema.names, lambda rows: pc.invert(among(rows)))
            self._rests[file.path] = self._files.write(rest)
        return self._rests[file.path]


def _widened(table: DeltaTable, layout: Layout) -> DeltaTable:
    """Give a table of an earlier version the columns that it lacks."""
    known = {field.name for field in table.schema().fields}
    missing = [field for field in layout.schema if field.name not in known]
    if missing:
        table.alter.add_columns(Schema.from_arrow(pa.schema(missing)).fields)
    return table


def _among(uris: Sequence[str]) -> Callable[[pa.Table], pa.Array]:
    values = pa.array(uris, pa.string())
    return lambda rows: pc.is_in(rows["media_uri"], value_set=values)


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
