"""Writes the files of a table anew where that makes fewer small files and fewer overlapping ranges.

The rows stay as they are, and so do partitions, order, encodings and statistics. A set of files is replaced in one commit that
is marked as no change of data and that is refused if anybody has committed since the table was looked at. A file never changes,
so that after a refusal what was written still holds if all files of the set still count; if a merge has replaced one of them,
its rows are newer, the set is given up, and another one is chosen from the new version.
"""

from __future__ import annotations

import logging
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from media_embeddings.table_layout import now
from media_embeddings.upkeep.choosing import Sizes, choose_rewrites, cut
from media_embeddings.upkeep.kept_tables import CountedFile, KeptTable

logger = logging.getLogger(__name__)

# The writer cuts at 128 MiB in memory; a little less leaves no crumbs behind.
_FILE_BYTES = 120 * 1024**2
_MOST_BYTES = 2 * 1024**3
_ROWS_TAKEN_AT_ONCE = 4096
_MOST_TRIES = 20
_LONGEST_WAIT_SECONDS = 2.0
_ROUNDS = 3


class RowsLostError(Exception):
    """What was written does not hold the rows of the files that it was to replace."""


@dataclass(frozen=True, slots=True)
class FileBytes:
    """How large files and commits shall be, in bytes of memory."""

    file: int = _FILE_BYTES
    commit: int = _MOST_BYTES


@dataclass(frozen=True, slots=True)
class Compaction:
    """What became of the sets of files that were worth writing anew."""

    sets: int
    files_removed: int
    files_added: int
    rows: int
    overtaken: int
    """Sets that a merge has changed while they were written; chosen again from its version."""
    left: int
    """Sets that were given up in the end; the next upkeep sees to them."""


def compact(table: KeptTable, sizes: FileBytes = FileBytes(), *, dry_run: bool = False) -> Compaction | None:
    """Write anew what is worth it, and return what became of it; None where there is no table.

    :param dry_run: count what would be written, and write nothing; ``files_added`` is an estimate then.
    """
    opened = table.open()
    if opened is None:
        return None
    total = Compaction(0, 0, 0, 0, 0, 0)
    for number in range(_ROUNDS):
        # What is often overtaken is tried in smaller sets: of those a merge takes fewer away.
        chosen, in_rows = _choose(table, opened, replace(sizes, commit=sizes.commit // 4**number))
        if dry_run:
            return _foreseen(chosen, in_rows)
        overtaken = 0
        for files in chosen:
            made = _rewrite(table, files, in_rows)
            if made is None:
                overtaken += 1
                continue
            total = replace(
                total,
                sets=total.sets + 1,
                files_removed=total.files_removed + len(files),
                files_added=total.files_added + made,
                rows=total.rows + sum(one.rows for one in files),
            )
        total = replace(total, overtaken=total.overtaken + overtaken, left=overtaken)
        if not overtaken:
            break
        logger.info("%s: %d sets were overtaken by merges in round %d", table.name, overtaken, number + 1)
        opened = _opened(table)
    return total


def _choose(table: KeptTable, opened: DeltaTable, sizes: FileBytes) -> tuple[list[tuple[CountedFile, ...]], Sizes]:
    files = table.counted(opened)
    row_bytes = _bytes_a_row(table, files)
    in_rows = Sizes(max(1, int(sizes.file / row_bytes)), max(1, int(max(sizes.commit, sizes.file) / row_bytes)))
    return choose_rewrites(files, in_rows), in_rows


def _bytes_a_row(table: KeptTable, files: Sequence[CountedFile]) -> float:
    """Return how much memory a row takes, from the file with most rows: those of one table are much alike."""
    largest = max(files, key=lambda one: one.rows, default=None)
    if largest is None or largest.rows == 0:
        return 1.0
    rows = table.files.read(largest.file, table.layout.schema.names)
    return max(1.0, float(rows.nbytes) / float(rows.num_rows))


def _foreseen(chosen: Sequence[Sequence[CountedFile]], sizes: Sizes) -> Compaction:
    rows = [sum(one.rows for one in files) for files in chosen]
    return Compaction(
        sets=len(chosen),
        files_removed=sum(len(files) for files in chosen),
        files_added=sum(ceil(number / sizes.target) for number in rows),
        rows=sum(rows),
        overtaken=0,
        left=0,
    )


def _opened(table: KeptTable) -> DeltaTable:
    """Open a table that was there; anew for each set, since its credentials may end while one is written."""
    if (opened := table.open()) is None:
        raise TableNotFoundError(f"{table.uri} was there when its upkeep began, and is not there any more")
    return opened


def _rewrite(table: KeptTable, files: Sequence[CountedFile], sizes: Sizes) -> int | None:
    """Replace files by new ones with the same rows and return their number; None where a merge was faster."""
    adds = _written(table, files, sizes)
    opened = _opened(table)
    at = now()
    removes = [
        RemoveAction(one.file.path, False, at, one.file.size_bytes, dict(one.file.partition_values)) for one in files
    ]
    paths = {one.file.path for one in files}
    for attempt in range(_MOST_TRIES):
        if not paths <= {file.path for file in table.files.of(opened)}:
            return None
        if _commit(table, opened, [*adds, *removes]):
            return len(adds)
        time.sleep(random.uniform(0, min(_LONGEST_WAIT_SECONDS, 0.05 * 2**attempt)))  # noqa: S311 - jitter
        opened.update_incremental()
    return None


def _commit(table: KeptTable, opened: DeltaTable, actions: list[AddAction | RemoveAction]) -> bool:
    """Commit on top of the version that was looked at, and return whether nobody was faster."""
    version = opened.version()
    try:
        opened.create_write_transaction(
            actions,
            "append",
            opened.schema(),
            partition_by=list(table.layout.partitions),
            # Conflicts are not resolved there: whether the files still count has to be looked up after every commit.
            commit_properties=CommitProperties(max_commit_retries=0, custom_metadata={"purpose": "compaction"}),
        )
    except CommitFailedError:
        opened.update_incremental()
        # Refused, and not because of another writer: trying again would not help.
        if opened.version() == version:
            raise
        return False
    opened.update_incremental()
    return True


def _written(table: KeptTable, files: Sequence[CountedFile], sizes: Sizes) -> list[AddAction]:
    """Write the rows of files into new ones, and return what a commit has to add."""
    adds: list[AddAction] = []
    expected, written = sum(one.rows for one in files), 0
    for rows in _pieces(table, files, sizes.target):
        written += rows.num_rows
        adds.extend(replace(add, data_change=False) for add in table.files.write(rows))
        # Else this piece would still be there while the next one is made.
        del rows
    if written != expected:
        raise RowsLostError(
            f"{table.uri}: {written} of {expected} rows would have been written anew; nothing was committed and the table is "
            "as it was. Please report this as a defect"
        )
    return adds


def _pieces(table: KeptTable, files: Sequence[CountedFile], target: int) -> Iterator[pa.Table]:
    """Yield the rows of files in the order of their objects, about as many at a time as one file takes.

    Every file is read once, and its rows are laid out on the local disk by the piece that they belong to: of files whose ranges
    overlap, each piece would have to fetch a part of every file otherwise.
    """
    counted = pa.concat_tables([_objects(table, one) for one in files]).group_by("media_uri")
    objects = counted.aggregate([("rows", "sum")]).sort_by("media_uri")
    ranges = cut(objects["media_uri"].to_pylist(), objects["rows_sum"].to_pylist(), target)
    with tempfile.TemporaryDirectory() as directory:
        paths = [Path(directory) / f"{number}.arrow" for number in range(len(ranges))]
        _lay_out(table, files, ranges, paths)
        for path in paths:
            # What was let go of is given back, or the peaks of reading, sorting and writing would add up.
            pa.default_memory_pool().release_unused()
            yield _in_order(path, table.layout.sort)
            path.unlink()


def _in_order(path: Path, sort: Sequence[str]) -> pa.Table:
    """Read rows and sort them, with no more than two copies of them in memory at any moment."""
    with pa.memory_map(str(path)) as source:
        rows = pa.ipc.open_stream(source).read_all().combine_chunks()
    order = pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in sort])
    # A few at a time: what is taken needs about as much again while it is taken.
    steps = range(0, len(order), _ROWS_TAKEN_AT_ONCE)
    return pa.concat_tables([rows.take(order.slice(start, _ROWS_TAKEN_AT_ONCE)) for start in steps])


def _lay_out(
    table: KeptTable, files: Sequence[CountedFile], ranges: Sequence[tuple[str, str]], paths: Sequence[Path]
) -> None:
    """Write the rows of each range into a file of the local disk."""
    schema = table.layout.schema
    with ExitStack() as stack:
        sinks = [stack.enter_context(pa.ipc.new_stream(str(path), schema)) for path in paths]
        for one in files:
            rows = table.files.read(one.file, schema.names)
            for bounds, sink in zip(ranges, sinks, strict=True):
                sink.write_table(rows.filter(_within(rows, bounds)).cast(schema))


def _objects(table: KeptTable, one: CountedFile) -> pa.Table:
    rows = table.files.read(one.file, ["media_uri"])
    return rows.group_by("media_uri").aggregate([([], "count_all")]).rename_columns(["media_uri", "rows"])


def _within(rows: pa.Table, bounds: tuple[str, str]) -> pa.Array:
    return pc.and_(pc.greater_equal(rows["media_uri"], bounds[0]), pc.less_equal(rows["media_uri"], bounds[1]))
