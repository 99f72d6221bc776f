"""The three Delta tables of a library: embeddings, ledger, invocations.

Every write is one commit that either replaces whole keys or appends, is safe beside other writers (a conditional PUT on
the transaction log), and changes nothing when it is repeated under the same commit id.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from media_embeddings.schemas import (
    EMBEDDINGS_PARTITIONS,
    INVOCATIONS_SCHEMA,
    LEDGER_PARTITIONS,
    LEDGER_SCHEMA,
    embeddings_schema,
)
from media_embeddings.storage import join_uri

logger = logging.getLogger(__name__)

_MOST_TRIES = 20
_LONGEST_WAIT_SECONDS = 5.0
# Statistics that were cut off would let a replacement pass over the file that holds its rows: S3 keys have up to 1,024
# bytes (https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html), the bucket's name standing before.
_STATISTICS_BYTES = 2048


class TableBusyError(Exception):
    """Other writers were faster than this one too many times in a row."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit that was made, or found to have been made before."""

    version: int
    rows: int
    replaced: int
    """Keys whose earlier rows this commit replaced."""
    repeated: bool
    """Whether an earlier call had already made it."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a table is laid out: its columns, its partitions, and by which column rows are found and sorted."""

    schema: pa.Schema
    partitions: tuple[str, ...]
    sort: tuple[str, ...]

    @property
    def writer(self) -> WriterProperties:
        return _writer(tuple(field.name for field in self.schema if field.type == pa.string()))

    @property
    def configuration(self) -> dict[str, str | None]:
        skipping = [name for name in self.sort if name not in self.partitions]
        return {
            "delta.dataSkippingStatsColumns": ",".join(skipping),
            # Commit ids are remembered for as long as a task may still be cleared and repeat its commit.
            "delta.setTransactionRetentionDuration": "interval 90 days",
        }


_LEDGER = _Layout(LEDGER_SCHEMA, LEDGER_PARTITIONS, ("media_uri",))
_INVOCATIONS = _Layout(INVOCATIONS_SCHEMA, (), ("media_uri",))


@cache
def _writer(strings: tuple[str, ...]) -> WriterProperties:
    """Return how files are written: vectors split by byte position, so that zstd finds something to compress.

    A nested column can't be named, so the vectors get the default; string columns are named, since they can't have it.
    """
    return WriterProperties(
        compression="ZSTD",
        compression_level=1,
        statistics_truncate_length=_STATISTICS_BYTES,
        default_column_properties=ColumnProperties(dictionary_enabled=False, encoding="BYTE_STREAM_SPLIT"),
        column_properties={
            name: ColumnProperties(dictionary_enabled=False, encoding="DELTA_BYTE_ARRAY") for name in strings
        },
    )


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

    def commit_embeddings(self, model_name: str, dimension: int, rows: pa.Table, commit_id: str) -> Commit:
        """Replace all rows of every ``media_uri`` in ``rows``, in one commit; objects that are new are appended.

        :param rows: of :func:`~media_embeddings.schemas.embeddings_schema`, whole objects.
        :param commit_id: names what is committed: a second commit under the same id changes nothing.
        :raises TableBusyError: if other writers were faster too often; nothing was written then.
        """
        layout = _Layout(embeddings_schema(dimension), EMBEDDINGS_PARTITIONS, ("media_uri", "segment_index"))
        return self._replace(self.embeddings_uri(model_name), layout, lambda _: rows, _uris(rows), "", commit_id)

    def read_ledger(
        self, model_name: str, uri_prefixes: Sequence[str] | None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Return the ledger's rows of a model, below the prefixes where some are given.

        An absent ledger is empty. One that can't be read raises: what is unknown must not be taken for new.
        """
        table = self._open(self.ledger_uri)
        names = list(columns) if columns is not None else LEDGER_SCHEMA.names
        if table is None:
            return pa.schema([LEDGER_SCHEMA.field(name) for name in names]).empty_table()
        condition = pc.field("model") == model_name
        if uri_prefixes is not None:
            below = pc.scalar(False)
            for prefix in uri_prefixes:
                below = below | pc.starts_with(pc.field("media_uri"), prefix)
            condition = condition & below
        return table.to_pyarrow_dataset().to_table(columns=names, filter=condition)

    def update_ledger(self, rows: pa.Table) -> Commit | None:
        """Replace the ledger's rows of the same ``(media_uri, model)``; ``first_seen_at`` of a known object is kept.

        :param rows: of :data:`~media_embeddings.schemas.LEDGER_SCHEMA`, all of one model.
        """
        if rows.num_rows == 0:
            return None
        models = pc.unique(rows["model"]).to_pylist()
        if len(models) != 1:
            raise ValueError(f"ledger rows of several models in one commit: {models}")
        condition = f"model = {_quoted(models[0])} AND "

        def with_first_seen(table: DeltaTable) -> pa.Table:
            return _keep_first_seen(rows, _found(table, _uris(rows), models[0], ["media_uri", "first_seen_at"]))

        return self._replace(self.ledger_uri, _LEDGER, with_first_seen, _uris(rows), condition, None, models[0])

    def append_invocations(self, rows: pa.Table, commit_id: str) -> Commit:
        """Append rows of :data:`~media_embeddings.schemas.INVOCATIONS_SCHEMA`, once for each commit id."""
        return self._replace(self.invocations_uri, _INVOCATIONS, lambda _: rows, [], "", commit_id)

    def _replace(
        self,
        uri: str,
        layout: _Layout,
        rows_for: Callable[[DeltaTable], pa.Table],
        media_uris: Sequence[str],
        condition: str,
        commit_id: str | None,
        model: str | None = None,
    ) -> Commit:
        for attempt in range(_MOST_TRIES):
            table = self._create(uri, layout)
            if commit_id is not None and table.transaction_version(commit_id) is not None:
                return Commit(table.version(), 0, 0, repeated=True)
            present = pc.unique(_found(table, media_uris, model, ["media_uri"])["media_uri"]) if media_uris else []
            rows = rows_for(table).sort_by([(name, "ascending") for name in layout.sort])
            transactions = [] if commit_id is None else [Transaction(commit_id, 1)]
            # Only the files that hold rows of a replaced object are rewritten.
            predicate = f"{condition}media_uri IN ({', '.join(map(_quoted, media_uris))})" if present else None
            try:
                _write(table, layout, rows, predicate, transactions)
            except (CommitFailedError, DeltaError) as error:
                if not _is_conflict(error):
                    raise
                logger.info("%s: another writer was faster (%s); trying again", uri, error)
                time.sleep(random.uniform(0, min(_LONGEST_WAIT_SECONDS, 0.1 * 2**attempt)))  # noqa: S311 - jitter
                continue
            return Commit(table.version(), rows.num_rows, len(present), repeated=False)
        raise TableBusyError(
            f"{uri}: other writers were faster {_MOST_TRIES} times in a row; nothing was written, the task tries again"
        )

    def _open(self, uri: str) -> DeltaTable | None:
        try:
            return DeltaTable(uri, storage_options=self._options)
        except TableNotFoundError:
            return None

    def _create(self, uri: str, layout: _Layout) -> DeltaTable:
        if (table := self._open(uri)) is not None:
            return table
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


def _write(
    table: DeltaTable, layout: _Layout, rows: pa.Table, predicate: str | None, transactions: list[Transaction]
) -> None:
    # Conflicts are not retried here: what is replaced has to be looked up again after another writer's commit.
    commit = CommitProperties(max_commit_retries=0, app_transactions=transactions)
    if predicate is None:
        write_deltalake(table, rows, mode="append", writer_properties=layout.writer, commit_properties=commit)
    else:
        write_deltalake(
            table,
            rows,
            mode="overwrite",
            predicate=predicate,
            writer_properties=layout.writer,
            commit_properties=commit,
        )


def _found(table: DeltaTable, media_uris: Sequence[str], model: str | None, columns: Sequence[str]) -> pa.Table:
    """Return columns of the rows of these objects; only files whose statistics admit one of them are read."""
    uri = pc.field("media_uri")
    condition = (uri >= min(media_uris)) & (uri <= max(media_uris)) & uri.isin(pa.array(media_uris, pa.string()))
    if model is not None:
        condition = (pc.field("model") == model) & condition
    return table.to_pyarrow_dataset().to_table(columns=list(columns), filter=condition)


def _keep_first_seen(rows: pa.Table, known: pa.Table) -> pa.Table:
    first = dict(zip(known["media_uri"].to_pylist(), known["first_seen_at"].to_pylist(), strict=True))
    if not first:
        return rows
    seen = [
        first.get(uri, now)
        for uri, now in zip(rows["media_uri"].to_pylist(), rows["first_seen_at"].to_pylist(), strict=True)
    ]
    position = rows.schema.get_field_index("first_seen_at")
    field = rows.schema.field("first_seen_at")
    return rows.set_column(position, field, pa.array(seen, field.type))


def _uris(rows: pa.Table) -> list[str]:
    uris: list[str] = pc.unique(rows["media_uri"]).to_pylist()
    return uris


def _quoted(value: str) -> str:
    """Return a string literal of DataFusion's SQL, in which only the quote is special."""
    return "'" + value.replace("'", "''") + "'"


def _is_conflict(error: DeltaError) -> bool:
    # The package has one class for what another writer caused, and one for everything else; which one a conflict comes
    # as depends on where it was noticed.
    text = str(error).lower()
    return isinstance(error, CommitFailedError) or any(
        words in text for words in ("conflict", "concurrent", "transaction failed", "version already exists")
    )
