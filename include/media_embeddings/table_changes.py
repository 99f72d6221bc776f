"""Changes to a table: which files come and which go, and the one commit that says so.

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
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from media_embeddings.table_files import File, Files
from media_embeddings.table_layout import now

logger = logging.getLogger(__name__)

_MOST_TRIES = 40
_LONGEST_WAIT_SECONDS = 3.0
_PARALLEL_READS = 8
# Each holds a row group, and what is read of it, in memory.
_PARALLEL_REWRITES = 2


class TableBusyError(Exception):
    """Other writers were faster than this one too many times in a row."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit that was made, or found to have been made before."""

    version: int
    rows: int
    replaced: int
    """Objects whose earlier rows this commit replaced."""
    repeated: bool
    """Whether an earlier call had already made it."""


class NewFiles(Protocol):
    """The files that a change adds for its own rows."""

    @property
    def num_rows(self) -> int:
        """Return how many rows they have."""

    def written(self, replaced: pa.Table | None) -> Sequence[AddAction]:
        """Return what the commit has to add, written once however often it is asked for.

        :param replaced: what is remembered of the rows that go; None where none do.
        """


@dataclass(frozen=True, slots=True)
class WrittenFiles:
    """Files that lie there already."""

    added: Sequence[AddAction]
    num_rows: int

    def written(self, replaced: pa.Table | None) -> Sequence[AddAction]:  # noqa: ARG002 - they are as they are
        """Return what the commit has to add."""
        return self.added


class RowsToWrite:
    """Rows that are written when they are asked for.

    :param amended: returns the rows with what is taken over from the replaced ones.
    """

    def __init__(
        self, files: Files, rows: pa.Table, amended: Callable[[pa.Table, pa.Table], pa.Table] | None = None
    ) -> None:
        self._files, self._rows, self._amended = files, rows, amended
        self._written: tuple[pa.Table, list[AddAction]] | None = None

    @property
    def num_rows(self) -> int:
        """Return how many rows there are."""
        return int(self._rows.num_rows)

    def written(self, replaced: pa.Table | None) -> Sequence[AddAction]:
        """Return what the commit has to add; nothing is written again unless other rows are to be taken over."""
        rows = self._rows if self._amended is None or replaced is None else self._amended(self._rows, replaced)
        if self._written is None or not self._written[0].equals(rows):
            self._written = rows, self._files.write(rows)
        return self._written[1]


@dataclass(frozen=True, slots=True)
class _Held:
    """What a file holds of the replaced objects."""

    rows: pa.Table
    """With what is remembered of them; of an object one is enough where nothing is."""
    number: int
    """How many rows go."""


class Change:
    """One change to a table. What it writes it writes once, however often its commit has to be tried.

    :param uris: the objects whose rows go; sorted. The table is not searched if there are none.
    :param within: partition values outside of which nothing is replaced.
    :param remembered: columns of the replaced rows that the new files are given beside ``media_uri``.
    """

    def __init__(
        self,
        files: Files,
        new: NewFiles,
        uris: Sequence[str],
        *,
        within: Mapping[str, str] | None = None,
        remembered: Sequence[str] = (),
    ) -> None:
        self._files = files
        self._new = new
        self._uris = uris
        self._within = within or {}
        self._remembered = ["media_uri", *remembered]
        # A file never changes, so that what was found in it and written from it holds for as long as it counts.
        self._held: dict[str, _Held] = {}
        self._rests: dict[str, list[AddAction]] = {}

    def commit(self, table: DeltaTable, commit_ids: Sequence[str]) -> Commit:
        """Commit once, on top of whatever other writers commit meanwhile.

        :param commit_ids: names of what is committed. If the table knows the first one, nothing is done; the others are
            only put down. None at all for a commit that may be repeated.
        :raises TableBusyError: if other writers were faster too often; nothing was committed then.
        """
        for attempt in range(_MOST_TRIES):
            if commit_ids and table.transaction_version(commit_ids[0]) is not None:
                return Commit(table.version(), 0, 0, repeated=True)
            version = table.version()
            try:
                replaced = self._commit_on_top(table, commit_ids)
            except CommitFailedError as error:
                table.update_incremental()
                # Refused, and not because of another writer: trying again would not help.
                if table.version() == version:
                    raise
                logger.info("%s: another writer was faster (%s); trying again", table.table_uri, error)
                time.sleep(random.uniform(0, min(_LONGEST_WAIT_SECONDS, 0.05 * 2**attempt)))  # noqa: S311 - jitter
                table.update_incremental()
                continue
            return Commit(version + 1, self._new.num_rows, replaced, repeated=False)
        raise TableBusyError(
            f"{table.table_uri}: other writers were faster {_MOST_TRIES} times in a row; nothing was committed, "
            "and the task can be tried again"
        )

    def _commit_on_top(self, table: DeltaTable, commit_ids: Sequence[str]) -> int:
        """Commit on top of the table's version, and return how many objects were replaced.

        :raises CommitFailedError: if that version is no longer the latest one.
        """
        holding = self._holding(table)
        replaced = pa.concat_tables([self._held[file.path].rows for file in holding]) if holding else None
        with ThreadPoolExecutor(1) as pool:
            rests = pool.submit(self._rests_written, holding)
            added = self._new.written(replaced)
        removed = [
            RemoveAction(file.path, True, now(), file.size_bytes, dict(file.partition_values)) for file in holding
        ]
        table.create_write_transaction(
            [*added, *rests.result(), *removed],
            "append",
            table.schema(),
            partition_by=list(self._files.layout.partitions),
            # Conflicts are not resolved there: what is to be replaced has to be looked up again after every commit.
            commit_properties=CommitProperties(
                max_commit_retries=0,
                app_transactions=[Transaction(commit_id, 1, now()) for commit_id in commit_ids],
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
            self._held |= dict(zip([file.path for file in unknown], pool.map(self._found, unknown), strict=True))
        return [file for file in candidates if self._held[file.path].number]

    def _found(self, file: File) -> _Held:
        rows = self._files.read(file, self._remembered, among(file.uris_within(self._uris)))
        # Long media have thousands of rows each, so that memory would grow with the table.
        objects = rows.group_by("media_uri").aggregate([]) if self._remembered == ["media_uri"] else rows
        return _Held(objects, rows.num_rows)

    def _rests_written(self, holding: Sequence[File]) -> list[AddAction]:
        """Return what is to be added for the other rows of the files that go."""
        unwritten = [file for file in holding if file.path not in self._rests]
        # One alone would leave a core idle.
        side_by_side = len(unwritten) == 1
        with ThreadPoolExecutor(_PARALLEL_REWRITES) as pool:
            rests = pool.map(lambda file: self._rest_written(file, side_by_side=side_by_side), unwritten)
            self._rests |= dict(zip([file.path for file in unwritten], rests, strict=True))
        return [add for file in holding for add in self._rests[file.path]]

    def _rest_written(self, file: File, *, side_by_side: bool) -> list[AddAction]:
        if self._held[file.path].number == file.rows:
            return []
        return self._files.write_rest(file, but(file.uris_within(self._uris)), side_by_side=side_by_side)


def among(uris: Sequence[str]) -> Callable[[pa.Table], pa.Array]:
    """Return the condition that a row is of one of these objects."""
    values = pa.array(uris, pa.string())
    return lambda rows: pc.is_in(rows["media_uri"], value_set=values)


def but(uris: Sequence[str]) -> Callable[[pa.Table], pa.Array]:
    """Return the condition that a row is of none of these objects."""
    condition = among(uris)
    return lambda rows: pc.invert(condition(rows))
