"""Removes the rows of objects that are gone, from the table of every model, and says so in the ledger."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from media_embeddings.models import model_named
from media_embeddings.planning import Status
from media_embeddings.tables import Tables

logger = logging.getLogger(__name__)


def delete_objects(tables: Tables, model_name: str, uris: Sequence[str], *, run_id: str, listed_at: datetime) -> None:
    """Remove the rows of some objects from the table of every model, then mark them as ``deleted`` in the ledger.

    The run's model comes last: killed at any point before, the next run finds the objects in its ledger as they were, and
    does all of it again.

    :param model_name: the run's model.
    :param listed_at: when it was seen that the objects are gone. One that was embedded with another model since is there.
    """
    if not uris:
        return
    uris = sorted(uris)
    for name in sorted(tables.ledger_models(), key=lambda each: (each == model_name, each)):
        rows = tables.ledger_rows(name, uris)
        is_back = pc.and_(
            pc.equal(rows["status"], str(Status.EMBEDDED)),
            pc.greater(rows["updated_at"], pa.scalar(listed_at, rows["updated_at"].type)),
        )
        is_done = pc.equal(rows["status"], str(Status.DELETED))
        rows = rows.filter(pc.invert(pc.or_(is_back, is_done)))
        if rows.num_rows == 0:
            continue
        commit_id = _commit_id(rows, name, run_id)
        known = sorted(rows["media_uri"].to_pylist())
        tables.delete_embeddings(name, model_named(name).dimension, known, commit_id)
        tables.update_ledger(_as_deleted(rows, run_id), commit_id)
        logger.info("%d objects are gone: their rows in the table of %s are deleted", len(known), name)


def _commit_id(rows: pa.Table, model_name: str, run_id: str) -> str:
    """Name a deletion by what it ends.

    An object that came back, was embedded and is gone again has other rows than those that were deleted before.
    """
    digest = hashlib.sha256(run_id.encode())
    columns = rows.select(["media_uri", "etag", "request_id", "updated_at"]).sort_by("media_uri")
    for row in columns.to_pylist():
        digest.update(
            f"{row['media_uri']} {row['etag']} {row['request_id']} {row['updated_at'].isoformat()}\n".encode()
        )
    return f"deletion-{model_name}-{digest.hexdigest()[:40]}"


def _as_deleted(rows: pa.Table, run_id: str) -> pa.Table:
    changes: dict[str, object] = {
        "status": str(Status.DELETED),
        "reason_code": None,
        "reason": None,
        "segments": None,
        "absent_options": None,
        "run_id": run_id,
        "updated_at": datetime.now(UTC),
    }
    for name, value in changes.items():
        field = rows.schema.field(name)
        column = pa.repeat(pa.scalar(value, field.type), rows.num_rows)
        rows = rows.set_column(rows.schema.get_field_index(name), field, column)
    return rows
