"""Which row of the ledger stands where a new one meets one that is there. Pure, column-wise."""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

_FAILURES = pa.array(["failed", "quarantined"])


def standing(rows: pa.Table, there: pa.Table, listed_at: datetime | None) -> pa.BooleanArray:
    """Return, for every new row, whether the one that is there stands against it.

    - A row that is ``embedded`` stands against a failed attempt at the same content with the same parameters: the table's
      rows are right.
    - A row that another run has written after ``listed_at`` stands if it is of other content, ``embedded`` or ``deleted``:
      whoever merges an old plan knows less. But a new row that is ``embedded`` with the same content and parameters is as
      right, and its vectors are those in the table.

    :param rows: of :data:`~media_embeddings.schemas.LEDGER_SCHEMA`, one an object.
    :param there: rows of the same objects, any of which may be missing.
    :param listed_at: when that was listed of which the new rows tell; None for what is known now.
    """
    position = _positions(rows, there)
    there = there.take(position)

    def same(name: str) -> pa.ChunkedArray:
        return pc.equal(pc.fill_null(there[name], ""), pc.fill_null(rows[name], ""))

    same_content = pc.and_(same("etag"), same("parameters"))
    was_embedded = pc.equal(there["status"], "embedded")
    is_embedded = pc.equal(rows["status"], "embedded")
    stands = pc.and_(pc.and_(was_embedded, pc.is_in(rows["status"], value_set=_FAILURES)), same_content)
    if listed_at is not None:
        is_later = pc.greater(there["updated_at"], pa.scalar(listed_at, there["updated_at"].type))
        # Two libraries may have runs of one name.
        by_another = pc.invert(pc.and_(same("run_id"), same("library")))
        knows_better = pc.or_(
            pc.or_(
                pc.and_(was_embedded, pc.invert(pc.and_(is_embedded, same_content))),
                pc.and_(pc.equal(there["status"], "deleted"), pc.invert(is_embedded)),
            ),
            pc.invert(same("etag")),
        )
        stands = pc.or_(stands, pc.and_(pc.and_(is_later, by_another), knows_better))
    found: pa.BooleanArray = pc.and_(pc.is_valid(position), pc.fill_null(stands, False)).combine_chunks()
    return found


def amended_ledger(rows: pa.Table, replaced: pa.Table, listed_at: datetime | None) -> pa.Table:
    """Return new rows with what stands of the rows that they replace; ``first_seen_at`` of a known object is kept.

    :param rows: as in :func:`standing`.
    :param replaced: as ``there`` in :func:`standing`.
    """
    there = replaced.take(_positions(rows, replaced))
    stands = standing(rows, replaced, listed_at)
    columns = []
    for field in rows.schema:
        new = pc.coalesce(there[field.name], rows[field.name]) if field.name == "first_seen_at" else rows[field.name]
        columns.append(pc.if_else(stands, there[field.name], new))
    return pa.table(columns, schema=rows.schema)


def _positions(rows: pa.Table, there: pa.Table) -> pa.Int32Array:
    """Return where the row of each object is among those that are there, null where it is not."""
    return pc.index_in(rows["media_uri"].combine_chunks(), value_set=there["media_uri"].combine_chunks())
