"""Which row of the ledger stands where a new one meets one that is there. Pure, column-wise."""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc


def amended_ledger(rows: pa.Table, replaced: pa.Table, planned_at: datetime | None) -> pa.Table:
    """Return new rows with what stands of the rows that they replace.

    - ``first_seen_at`` of a known object is kept.
    - A row that is ``embedded`` stands against a failed attempt at the same content with the same parameters: the table's
      rows are right.
    - A row that another run has written after ``planned_at`` stands if it is ``embedded`` or of other content: whoever
      merges an old plan knows less.

    :param rows: of :data:`~media_embeddings.schemas.LEDGER_SCHEMA`, one an object.
    :param replaced: rows of the same objects, any of which may be missing.
    """
    position = pc.index_in(rows["media_uri"].combine_chunks(), value_set=replaced["media_uri"].combine_chunks())
    there = replaced.take(position)
    is_known = pc.is_valid(position)

    def same(name: str) -> pa.ChunkedArray:
        return pc.equal(pc.fill_null(there[name], ""), pc.fill_null(rows[name], ""))

    was_embedded = pc.equal(there["status"], "embedded")
    stands = pc.and_(
        pc.and_(was_embedded, pc.is_in(rows["status"], value_set=pa.array(["failed", "quarantined"]))),
        pc.and_(same("etag"), same("parameters")),
    )
    if planned_at is not None:
        is_later = pc.greater(there["updated_at"], pa.scalar(planned_at, there["updated_at"].type))
        by_another = pc.and_(is_later, pc.invert(same("run_id")))
        stands = pc.or_(stands, pc.and_(by_another, pc.or_(was_embedded, pc.invert(same("etag")))))
    stands = pc.and_(is_known, pc.fill_null(stands, False))
    columns = []
    for field in rows.schema:
        new = pc.coalesce(there[field.name], rows[field.name]) if field.name == "first_seen_at" else rows[field.name]
        columns.append(pc.if_else(stands, there[field.name], new))
    return pa.table(columns, schema=rows.schema)
