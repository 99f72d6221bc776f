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


def delete_objects(tables: Tables, sources: Sequence[str], uris: Sequence[str], run_id: str) -> None:
    """Remove the rows of some objects, then mark them as ``deleted`` in the ledger.

    Killed in between, the next run finds them in the ledger as they were, and does it again.

    :param sources: prefixes that all of them lie below.
    """
    if not uris:
        return
    wanted = pa.array(sorted(uris), pa.string())
    digest = hashlib.sha256("\n".join([run_id, *sorted(uris)]).encode()).hexdigest()[:40]
    for model_name in tables.ledger_models():
        rows = tables.read_ledger(model_name, sources)
        rows = rows.filter(
            pc.and_(pc.is_in(rows["media_uri"], value_set=wanted), pc.not_equal(rows["status"], str(Status.DELETED)))
        )
        if rows.num_rows == 0:
            continue
        known = sorted(rows["media_uri"].to_pylist())
        tables.delete_embeddings(model_name, model_named(model_name).dimension, known, f"deletion-{digest}")
        tables.update_ledger(_as_deleted(rows, run_id), f"deletion-{model_name}-{digest}")
        logger.info("%d objects are gone: their rows in the table of %s are deleted", len(known), model_name)


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
