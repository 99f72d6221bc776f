"""Removes files that no version needs any more, and keeps the transaction logs short.

A file goes if the log has taken it out of the table for longer than the retention, or never had it in and it is older than
that: then its write was killed. Younger files may belong to a merge that is about to commit them. The ids of the commits
survive in the checkpoints, for as long as ``delta.setTransactionRetentionDuration`` says.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import timedelta

from deltalake import DeltaTable

from media_embeddings.upkeep.kept_tables import KeptTable

logger = logging.getLogger(__name__)

LEAST_RETENTION = timedelta(days=1)
"""No write may take that long from its first file to its commit."""
_PROPERTY = "delta.deletedFileRetentionDuration"
_DELTA_DEFAULT_DAYS = 7
_CHECKPOINT = re.compile(r"_delta_log/(\d{20})\.checkpoint")
_VERSIONS_WITHOUT_CHECKPOINT = 10


@dataclass(frozen=True, slots=True)
class Vacuum:
    """What was removed of a table's folder, or would be in a dry run."""

    files: int
    bytes: int
    log_files: int
    checkpointed: bool


def vacuum(table: KeptTable, retention: timedelta, *, dry_run: bool = False) -> Vacuum | None:
    """Remove what no version within the retention needs; None where there is no table.

    :param retention: how long a version can still be read after the next one has replaced it; a longer one that is set in the
        table's own properties holds.
    :raises ValueError: if the retention is shorter than :data:`LEAST_RETENTION`.
    """
    if retention < LEAST_RETENTION:
        raise ValueError(f"a retention of {retention} is too short: what is written may be committed within a day")
    opened = table.open()
    if opened is None:
        return None
    held = _held_days(opened)
    if held is not None:
        retention = max(retention, timedelta(days=held))
    if not dry_run:
        _remember_removals(opened, retention, held or _DELTA_DEFAULT_DAYS)
    sizes = {one.path: one.size_bytes for one in table.stored()}
    # "full" also finds what never was in the log.
    removed = opened.vacuum(
        retention_hours=round(retention / timedelta(hours=1)),
        dry_run=dry_run,
        enforce_retention_duration=False,
        full=True,
    )
    log_before = sum(path.startswith("_delta_log/") for path in sizes)
    checkpointed = False
    if not dry_run:
        checkpointed = _shorten_log(table, sizes)
    log_after = log_before if dry_run else sum(one.is_log for one in table.stored())
    logger.info("%s: %d files that no version needs %s", table.name, len(removed), "found" if dry_run else "removed")
    return Vacuum(
        files=len(removed),
        bytes=sum(sizes.get(path, 0) for path in removed),
        log_files=max(0, log_before - log_after),
        checkpointed=checkpointed,
    )


def _held_days(opened: DeltaTable) -> int | None:
    """Return the retention of the table's own properties, in days; None where it has none.

    :raises ValueError: if it is given in other units.
    """
    held = opened.metadata().configuration.get(_PROPERTY)
    if held is None:
        return None
    days = re.fullmatch(r"interval (\d+) days?", held.strip())
    if days is None:
        raise ValueError(
            f"{opened.table_uri}: its property {_PROPERTY} is {held!r}; give it in days, as in 'interval 7 days'"
        )
    return int(days.group(1))


def _remember_removals(opened: DeltaTable, retention: timedelta, known_days: int) -> None:
    """Let checkpoints remember removed files for the retention: one that is forgotten looks like that of a killed write."""
    days = -(-retention // timedelta(days=1))
    if known_days < days:
        opened.alter.set_table_properties({_PROPERTY: f"interval {days} days"})


def _shorten_log(table: KeptTable, stored: dict[str, int]) -> bool:
    """Write a checkpoint where there is none of late, and remove entries that it makes superfluous."""
    opened = table.open()
    if opened is None:
        return False
    found = [int(match.group(1)) for path in stored if (match := _CHECKPOINT.match(path))]
    due = opened.version() - max(found, default=0) >= _VERSIONS_WITHOUT_CHECKPOINT
    if due:
        opened.create_checkpoint()
    opened.cleanup_metadata()
    return due
