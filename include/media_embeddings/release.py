"""What failed, and letting it be tried again: for people, beside the runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase

import pyarrow as pa
import pyarrow.compute as pc

from media_embeddings.library import Library
from media_embeddings.planning import Status
from media_embeddings.reasons import ReasonCode
from media_embeddings.storage import Storage
from media_embeddings.tables import Tables

NOT_EMBEDDED = (Status.FAILED, Status.REJECTED, Status.QUARANTINED)
_RELEASABLE = (Status.FAILED, Status.QUARANTINED)


def failed_objects(
    storage: Storage, library: Library, model_name: str, statuses: Sequence[Status] = NOT_EMBEDDED
) -> pa.Table:
    """Return the ledger's rows of objects below the library's sources that were not embedded, sorted by URI."""
    ledger = Tables(library.tables, storage.table_options).read_ledger(model_name, library.sources)
    wanted = pa.array([str(status) for status in statuses], pa.string())
    return ledger.filter(pc.is_in(ledger["status"], value_set=wanted)).sort_by("media_uri")


def release(storage: Storage, library: Library, model_name: str, globs: Sequence[str]) -> list[str]:
    """Let the next run make another attempt at objects that failed or are quarantined, and return their URIs.

    What is rejected is not released: another attempt would be rejected as well, until content or limits change.

    :param globs: URIs, or globs of them.
    """
    rows = failed_objects(storage, library, model_name, _RELEASABLE)
    matching = [any(fnmatchcase(uri, glob) for glob in globs) for uri in rows["media_uri"].to_pylist()]
    rows = rows.filter(pa.array(matching, pa.bool_()))
    if rows.num_rows == 0:
        return []
    now = datetime.now(UTC)
    changes: dict[str, object] = {
        "status": str(Status.DEFERRED),
        "reason_code": str(ReasonCode.RELEASED),
        "reason": f"released by a person at {now:%Y-%m-%d %H:%M} UTC; the next run makes another attempt",
        "request_id": None,
        "updated_at": now,
    }
    for name, value in changes.items():
        field = rows.schema.field(name)
        column = pa.repeat(pa.scalar(value, field.type), rows.num_rows)
        rows = rows.set_column(rows.schema.get_field_index(name), field, column)
    Tables(library.tables, storage.table_options).update_ledger(rows)
    uris: list[str] = rows["media_uri"].to_pylist()
    return uris
